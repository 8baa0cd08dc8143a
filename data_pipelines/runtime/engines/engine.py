"""The interface of engines, the local engine, and many files on an engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from data_pipelines.errors import DicomError
from data_pipelines.runtime.engines.shared import require_files
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items of one part of `map_files`
ITEMS_PER_PART = 256


class ComputeParts(Protocol):
    """Computes parts: yields the results of each part, in the order of the parts. Computing a part
    twice, or again after a crash, changes nothing: what it writes has a name that depends on the
    part alone, and appears as a whole. It can be pickled, unless only the local engine calls it.
    """

    def __call__(
        self,
        parts: Sequence[Any],
        /,
        *,
        workers: int | None,
        progress: ProgressCallback | None,
    ) -> Iterator[Any]: ...


class Engine(Protocol):
    """Where parts are computed."""

    @property
    def is_local(self) -> bool:
        """Whether the parts are computed by this process and the workers that it starts."""
        ...

    def run(
        self,
        compute: ComputeParts,
        parts: Sequence[Any],
        *,
        sizes: Sequence[int],
        check: Callable[[Any], None] | None = None,
        workers: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Iterator[Any]:
        """Yield what `compute` yields for all parts, in the order of the parts.

        sizes: number of items (files) of each part, for the progress and to balance the load.
        check: called with each part on the machine that computes it; raises CodedError where that
            machine does not see what the part needs.
        workers: how many are at work at the same time. progress: called with (done, total) items.
        """
        ...


class LocalEngine:
    """One call for all parts, so that they share one pool of decode workers."""

    is_local = True

    def run(
        self,
        compute: ComputeParts,
        parts: Sequence[Any],
        *,
        sizes: Sequence[int],
        check: Callable[[Any], None] | None = None,
        workers: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Iterator[Any]:
        """As `Engine.run`; `compute` reports the progress, and `check` is not needed."""
        return compute(parts, workers=workers, progress=progress)


LOCAL = LocalEngine()


def map_files(
    engine: Engine,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    paths: Callable[[Item], Sequence[str]],
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[Item, Result | DicomError]]:
    """As `map_isolated`, on an engine. function and paths: importable by name. paths: the
    files that an item needs; each machine must see them.
    """
    parts = [
        tuple(items[start : start + ITEMS_PER_PART])
        for start in range(0, len(items), ITEMS_PER_PART)
    ]

    results = engine.run(
        functools.partial(_map_parts, function=function),
        parts,
        sizes=[len(part) for part in parts],
        check=functools.partial(_check_part, paths=paths),
        workers=workers,
        progress=progress,
    )
    return zip(items, results, strict=True)


def _check_part(part: Sequence[Item], paths: Callable[[Item], Sequence[str]]) -> None:
    require_files([path for item in part for path in paths(item)])


def _map_parts(
    parts: Sequence[Sequence[Item]],
    /,
    *,
    function: Callable[[Item], Result],
    workers: int | None,
    progress: ProgressCallback | None,
) -> Iterator[Result | DicomError]:
    items = [item for part in parts for item in part]
    answers = map_isolated(function, items, workers=workers, progress=progress)
    return (answer for _, answer in answers)

"""The interface of engines, the local engine, and many files on an engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from data_pipelines.errors import DicomError
from data_pipelines.runtime.engines.saved_answers import SavedAnswers
from data_pipelines.runtime.engines.shared import require_files, require_marker, shared_unless
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items of one part of `map_files`, at most
ITEMS_PER_PART = 256
MIN_PARTS = 40  # where answers are saved and items are many: a kill loses less than a part


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


class FilePart(NamedTuple):
    """Items of `map_files`, and the name of the file of their answers ('': they are not saved)."""

    items: tuple[Any, ...]
    name: str = ""


def map_files(
    engine: Engine,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    paths: Callable[[Item], Sequence[str]],
    workers: int | None = None,
    timeout_s: Callable[[Item], float] | None = None,
    progress: ProgressCallback | None = None,
    saved: SavedAnswers | None = None,
) -> Iterator[tuple[Item, Result | DicomError]]:
    """As `map_isolated`, on an engine. function, paths and timeout_s: importable by name. paths:
    the files that an item needs; each machine must see them. saved: where answers are written when
    a part is finished, so that the same call after a crash computes only the others; the caller
    removes the files.
    """
    size = ITEMS_PER_PART if saved is None else parts_size(len(items))
    cuts = [tuple(items[start : start + size]) for start in range(0, len(items), size)]
    parts = [FilePart(cut, "" if saved is None else saved.name(cut, paths)) for cut in cuts]
    with shared_unless(engine.is_local, None if saved is None else saved.folder) as marker:
        results = engine.run(
            functools.partial(_map_parts, function=function, timeout_s=timeout_s, saved=saved),
            parts,
            sizes=[len(part.items) for part in parts],
            check=functools.partial(_check_part, paths=paths, marker=marker),
            workers=workers,
            progress=progress,
        )
        yield from zip(items, results, strict=True)


def parts_size(count: int) -> int:
    """How many of so many items one part has."""
    return max(1, min(ITEMS_PER_PART, count // MIN_PARTS))


def _check_part(part: FilePart, paths: Callable[[Any], Sequence[str]], marker: str | None) -> None:
    if marker is not None:
        require_marker(marker)
    require_files([path for item in part.items for path in paths(item)])


def _map_parts(
    parts: Sequence[FilePart],
    /,
    *,
    function: Callable[[Any], Any],
    timeout_s: Callable[[Any], float] | None,
    saved: SavedAnswers | None,
    workers: int | None,
    progress: ProgressCallback | None,
) -> Iterator[Any]:
    def known(part: FilePart) -> list[tuple[Any] | None]:
        count = len(part.items)
        return [None] * count if saved is None else saved.read(part.name, count)

    absent = [
        [item for item, answer in zip(part.items, known(part), strict=True) if answer is None]
        for part in parts
    ]
    items = [item for each in absent for item in each]
    total = sum(len(part.items) for part in parts)

    def update(done: int, count: int) -> None:
        if progress is not None:
            progress(total - count + done, total)

    computed = map_isolated(function, items, workers=workers, timeout_s=timeout_s, progress=update)
    for part, to_compute in zip(parts, absent, strict=True):
        if not to_compute:
            yield from (answer[0] for answer in known(part) if answer is not None)
        else:
            yield from _finished(part, known(part), computed, saved)
    next(computed, None)  # the last call of `progress`
    if not items:
        update(0, 0)


def _finished(
    part: FilePart,
    known: Sequence[tuple[Any] | None],
    computed: Iterator[tuple[Any, Any]],
    saved: SavedAnswers | None,
) -> Iterator[Any]:
    """The answers of a part that is not saved yet. Without `saved` each is yielded at once."""
    answers = (next(computed)[1] if answer is None else answer[0] for answer in known)
    if saved is None:
        yield from answers
        return
    whole = list(answers)
    saved.write(part.name, whole)
    yield from whole

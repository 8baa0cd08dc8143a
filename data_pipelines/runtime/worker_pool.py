"""`map_isolated`: many items in a pool of worker processes. A crash, a hang or a memory bomb costs
one item (see worker_process.py).
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

from data_pipelines.errors import DicomError
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.worker_process import (
    POLL_S,
    Worker,
    count_processors,
    not_started,
    start_worker,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
ProgressCallback = Callable[[int, int], None]
#: called with the name of a long step; the block that it opens gets the callback of that step
StageCallback = Callable[[str], contextlib.AbstractContextManager[ProgressCallback]]

#: Bytes of results that may wait for a slow item before them; no item is submitted beyond that.
MAX_WAITING_BYTES = 256 << 20


@contextlib.contextmanager
def stage(stages: StageCallback | None, name: str) -> Iterator[ProgressCallback | None]:
    """The progress callback of one step, None if nobody wants to know."""
    with contextlib.nullcontext(None) if stages is None else stages(name) as progress:
        yield progress


def map_isolated(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    timeout_s: Callable[[Item], float] | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[Item, Result | DicomError]]:
    """Yield (item, result or DicomError) in the order of `items`.

    function: importable by name; its results must be picklable. An exception that it raises is the
        result of the item: a DicomError unchanged, any other as DecodeFailed with only the name of
        the exception (its message may quote a patient's data). Codes if a worker is lost:
        decoder_crashed, time_limit, memory_limit.
    workers: by default one per processor; none outlives the iterator.
    timeout_s: the time limit of an item, for items of several files. The other limits are those
        that apply at the first item (see `limits`).
    progress: called with (done, total).
    A slow item does not stop the workers: later results wait for it, as bytes, up to
    MAX_WAITING_BYTES. Raises DicomError (code workers) if a worker cannot be started.
    """
    count = min(workers or count_processors(), len(items))
    limits = active_limits()
    start = functools.partial(start_worker, function, limits)
    pool = [start() for _ in range(count)]
    queue = _Queue(items, timeout_s or (lambda item: limits.seconds))
    try:
        for index, item in enumerate(items):
            queue.submit(pool, index)
            _collect(pool, queue, start, block=False)
            while index not in queue.results:
                queue.submit(pool, index)
                _collect(pool, queue, start, block=True)
            queue.submit(pool, index)
            yield item, queue.pop(index)
            if progress is not None:
                progress(index + 1, len(items))
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.end()


class _Queue(Generic[Item]):
    """The items that wait for a worker, and the results that wait for their turn."""

    def __init__(self, items: Sequence[Item], seconds: Callable[[Item], float]) -> None:
        self.items, self.seconds, self.submitted = items, seconds, 0
        self.results: dict[int, bytes | DicomError] = {}
        self._bytes = 0

    def submit(self, pool: list[Worker], next_index: int) -> None:
        """Give the next items to idle workers: always that of the next result, others unless too
        many bytes wait.
        """
        for worker in pool:
            full = self._bytes > MAX_WAITING_BYTES and self.submitted > next_index
            if self.submitted == len(self.items) or full:
                return
            if worker.ready and worker.index is None:
                item = self.items[self.submitted]
                worker.submit(self.submitted, item, self.seconds(item))
                self.submitted += 1

    def add(self, index: int, result: bytes | DicomError) -> None:
        self.results[index] = result
        self._bytes += len(result) if isinstance(result, bytes) else 0

    def pop(self, index: int) -> Any:
        result = self.results.pop(index)
        if not isinstance(result, bytes):
            return result
        self._bytes -= len(result)
        return pickle.loads(result)


def _collect(
    pool: list[Worker], queue: _Queue, start: Callable[[], Worker], *, block: bool
) -> None:
    """Collect the results that have arrived. block: wait for a message, a crash or a deadline."""
    busy = [worker for worker in pool if worker.index is not None or not worker.ready]
    if not busy:
        return
    pause = min(worker.deadline for worker in busy) - time.monotonic() if block else 0.0
    readable = set(wait([worker.pipe for worker in busy], max(0.0, min(pause, POLL_S))))
    for position, worker in enumerate(pool):
        if worker.pipe in readable:
            answer = worker.receive()
            if not isinstance(answer, bytes):
                _replace(pool, position, queue, start, answer)
                continue
            if worker.ready and worker.index is not None:
                queue.add(worker.index, answer)
                worker.index = None
            worker.ready = True
        elif worker in busy and time.monotonic() >= worker.deadline:
            _replace(pool, position, queue, start, worker.too_slow())


def _replace(
    pool: list[Worker],
    position: int,
    queue: _Queue,
    start: Callable[[], Worker],
    error: DicomError,
) -> None:
    """Replace a lost worker; `error` is the result of its item."""
    worker = pool[position]
    worker.end()
    if worker.index is None:
        raise not_started(worker)
    queue.add(worker.index, error)
    pool[position] = start()

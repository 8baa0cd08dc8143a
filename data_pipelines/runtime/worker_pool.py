"""A pool of spawned, long-lived worker processes in which a crash, a hang or a memory bomb costs
one item.

Codecs are native code that reads untrusted bytes: they may crash, loop or allocate without end, and
none of that can be caught inside the process. The parent enforces a time limit on each worker, and
the system a memory limit. The time in which a worker waits for storage does not count (see
storage.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import multiprocessing
import os
import pickle
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import sharedctypes
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from data_pipelines.errors import DecodeFailed, DicomError, LimitExceeded
from data_pipelines.runtime.limits import Limits, active_limits, install_limits
from data_pipelines.runtime.storage import Cells, StorageClock, install_clock

Item = TypeVar("Item")
Result = TypeVar("Result")
ProgressCallback = Callable[[int, int], None]
#: called with the name of a long step; the block that it opens gets the callback of that step
StageCallback = Callable[[str], contextlib.AbstractContextManager[ProgressCallback]]

_START_S = 120.0
_POLL_S = 1.0  # a deadline moves when a read begins or ends
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # of malloc.h
#: Bytes of results that may wait for a slow item before them; no item is submitted beyond that.
MAX_WAITING_BYTES = 256 << 20


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    clock: StorageClock
    started: float  # of the item, or of the process until it is ready
    limits: Limits
    index: int | None = None  # of the item that it works on
    ready: bool = False

    @property
    def deadline(self) -> float:
        """When the process is to be stopped, if its state does not change."""
        if not self.ready:
            return self.started + _START_S
        since = self.clock.reading_since  # read once: the worker may end its read at any moment
        if since:
            return since + self.limits.stall
        return self.started + self.clock.waited + self.limits.seconds


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
    count = min(workers or _processors(), len(items))
    limits = active_limits()
    start = functools.partial(_start, function, limits)
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
            worker.process.join()
            worker.pipe.close()


class _Queue(Generic[Item]):
    """The items that wait for a worker, and the results that wait for their turn."""

    def __init__(self, items: Sequence[Item], seconds: Callable[[Item], float]) -> None:
        self.items, self.seconds, self.submitted = items, seconds, 0
        self.results: dict[int, bytes | DicomError] = {}
        self._bytes = 0

    def submit(self, pool: list[_Worker], next_index: int) -> None:
        """Give the next items to idle workers: always that of the next result, others unless too
        many bytes wait.
        """
        for worker in pool:
            full = self._bytes > MAX_WAITING_BYTES and self.submitted > next_index
            if self.submitted == len(self.items) or full:
                return
            if worker.ready and worker.index is None:
                item = self.items[self.submitted]
                _submit(worker, self.submitted, item, self.seconds(item))
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
    pool: list[_Worker], queue: _Queue, start: Callable[[], _Worker], *, block: bool
) -> None:
    """Collect the results that have arrived. block: wait for a message, a crash or a deadline."""
    busy = [worker for worker in pool if worker.index is not None or not worker.ready]
    if not busy:
        return
    pause = min(worker.deadline for worker in busy) - time.monotonic() if block else 0.0
    readable = set(wait([worker.pipe for worker in busy], max(0.0, min(pause, _POLL_S))))
    for position, worker in enumerate(pool):
        if worker.pipe in readable:
            try:
                answer = worker.pipe.recv_bytes()
            except (EOFError, OSError):
                _replace(pool, position, queue, start, _crashed(worker))
                continue
            if worker.ready and worker.index is not None:
                queue.add(worker.index, answer)
                worker.index = None
            worker.ready = True
        elif worker in busy and time.monotonic() >= worker.deadline:
            _replace(pool, position, queue, start, _too_slow(worker))


def _too_slow(worker: _Worker) -> DicomError:
    if worker.clock.reading_since:
        return LimitExceeded(
            f"Storage delivered nothing for {worker.limits.stall:g} s, and the read was given up. "
            f"Check the disk or the network, and run again; or raise the limit with --limit "
            f"stall=N.",
            code="read_stalled",
        )
    return LimitExceeded(
        f"Decoding took longer than {worker.limits.seconds:g} s and was stopped. Raise the limit "
        f"with --limit seconds=N.",
        code="time_limit",
    )


def _replace(
    pool: list[_Worker],
    position: int,
    queue: _Queue,
    start: Callable[[], _Worker],
    error: DicomError,
) -> None:
    """Replace a lost worker; `error` is the result of its item."""
    worker = pool[position]
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()
    if worker.index is None:
        raise DicomError(
            f"A decode worker did not start (exit code {worker.process.exitcode}). Check that "
            f"enough memory is free.",
            code="workers",
        )
    queue.add(worker.index, error)
    pool[position] = start()


def _crashed(worker: _Worker) -> DicomError:
    worker.process.join()
    return DecodeFailed(
        f"The decoder crashed (exit code {worker.process.exitcode}).", code="decoder_crashed"
    )


def _submit(worker: _Worker, index: int, item: object, timeout_s: float) -> None:
    worker.index, worker.started = index, time.monotonic()
    worker.limits = replace(worker.limits, seconds=timeout_s)
    worker.clock.reset()
    with contextlib.suppress(OSError):  # it has crashed: _collect finds its pipe closed
        worker.pipe.send((item, timeout_s))


def _start(function: Callable, limits: Limits) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    cells = sharedctypes.RawArray(ctypes.c_double, 2)
    process = context.Process(
        target=_worker_main, args=(theirs, function, limits, cells), daemon=True
    )
    with _blank_main():
        process.start()
    theirs.close()
    return _Worker(process, ours, StorageClock(cells), time.monotonic(), limits)


@contextlib.contextmanager
def _blank_main() -> Iterator[None]:
    """Keep `spawn` from running the user's script again in each worker: it imports __main__ unless
    __main__ has no file.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _worker_main(
    pipe: Connection, function: Callable[[Any], Any], limits: Limits, cells: Cells
) -> None:
    """Work until the parent closes the pipe or ends. An alarm ends a worker that hangs after the
    parent has ended.
    """
    # The default action of an alarm ends the process, whatever it is doing.
    alarm = getattr(signal, "alarm", lambda seconds: 0)
    # Ctrl-C reaches the whole process group; the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _silence()
    install_limits(limits)
    _limit_memory(limits.memory)
    _tune_malloc()
    seconds = limits.seconds

    def set_alarm(reading: bool) -> None:
        alarm(math.ceil(2 * (limits.stall if reading else seconds)) + 1)

    install_clock(StorageClock(cells, set_alarm))
    pipe.send(None)
    while True:
        try:
            item, seconds = pipe.recv()
        except (EOFError, OSError):
            return
        set_alarm(False)
        outcome = _outcome(function, item)
        alarm(0)
        pipe.send(outcome)


def _outcome(function: Callable[[Any], Any], item: object) -> object:
    try:
        return function(item)
    except DicomError as error:
        return error
    except MemoryError:
        return LimitExceeded(
            "Decoding needed more memory than the limit of one file. Raise the limit with --limit "
            "memory=NGiB.",
            code="memory_limit",
        )
    except Exception as error:  # noqa: BLE001  process boundary: only this item fails
        return DecodeFailed(f"Decoding failed with {type(error).__name__}.")


def _silence() -> None:
    """Discard what native code prints: it may quote the file."""
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)


def _limit_memory(extra_bytes: int) -> None:
    """Allow `extra_bytes` of address space beyond what the imports use. Linux only: other systems
    have no such limit.
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _tune_malloc() -> None:
    """Make glibc keep freed memory for the next file (mallopt(3)): fresh pages took a third of the
    time per file. Does nothing without glibc.
    """
    mallopt = (
        getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    )
    if mallopt is not None:
        for option, size in (
            (_MMAP_THRESHOLD, 32 << 20),
            (_TRIM_THRESHOLD, 256 << 20),
            (_TOP_PAD, 16 << 20),
        ):
            mallopt(option, size)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""A pool of spawned, long-lived worker processes in which a crash, a hang or a memory bomb costs
one item.

Codecs are native code that reads untrusted bytes: they may crash, loop or allocate without end, and
none of that can be caught inside the process. The parent enforces a time limit on each worker, and
the system a memory limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from data_pipelines.errors import DecodeFailed, DicomError, LimitExceeded
from data_pipelines.runtime.limits import Limits, active_limits, install_limits

Item = TypeVar("Item")
Result = TypeVar("Result")
ProgressCallback = Callable[[int, int], None]

_START_S = 120.0
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # of malloc.h
#: Items submitted per worker beyond the next result to be yielded: few results wait in memory.
PREFETCH = 4


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    deadline: float
    index: int | None = None  # of the item that it works on
    ready: bool = False


def map_isolated(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    timeout_s: float | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[Item, Result | DicomError]]:
    """Yield (item, result or DicomError) in the order of `items`.

    function: importable by name; its results must be picklable. An exception that it raises is the
        result of the item: a DicomError unchanged, any other as DecodeFailed with only the name of
        the exception (its message may quote a patient's data). Codes if a worker is lost:
        decoder_crashed, time_limit, memory_limit.
    workers: by default one per processor; none outlives the iterator.
    timeout_s: time limit per item, for items of several files. The other limits are those that
        apply at the first item (see `limits`).
    progress: called with (done, total).
    Raises DicomError (code workers) if a worker cannot be started.
    """
    count = min(workers or _processors(), len(items))
    limits = active_limits() if timeout_s is None else replace(active_limits(), seconds=timeout_s)
    start = functools.partial(_start, function, limits)
    pool = [start() for _ in range(count)]
    results: dict[int, Result | DicomError] = {}
    submitted = 0
    try:
        for index, item in enumerate(items):
            while index not in results:
                for worker in pool:
                    if (
                        worker.ready
                        and worker.index is None
                        and submitted < min(len(items), index + PREFETCH * count)
                    ):
                        _submit(worker, submitted, items[submitted], limits.seconds)
                        submitted += 1
                _collect(pool, results, start, limits.seconds)
            yield item, results.pop(index)
            if progress is not None:
                progress(index + 1, len(items))
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.join()
            worker.pipe.close()


def _collect(
    pool: list[_Worker], results: dict[int, Any], start: Callable[[], _Worker], timeout_s: float
) -> None:
    """Wait for the next message, crash or deadline, and collect the results that have arrived."""
    busy = [worker for worker in pool if worker.index is not None or not worker.ready]
    pause = min(worker.deadline for worker in busy) - time.monotonic()
    readable = set(wait([worker.pipe for worker in busy], max(0.0, pause)))
    for position, worker in enumerate(pool):
        if worker.pipe in readable:
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                _replace(pool, position, results, start, _crashed(worker))
                continue
            if worker.ready and worker.index is not None:
                results[worker.index] = answer
                worker.index = None
            worker.ready = True
        elif worker in busy and time.monotonic() >= worker.deadline:
            error = LimitExceeded(
                f"Decoding took longer than {timeout_s:g} s and was stopped. Raise the limit with "
                f"--limit seconds=N.",
                code="time_limit",
            )
            _replace(pool, position, results, start, error)


def _replace(
    pool: list[_Worker],
    position: int,
    results: dict[int, Any],
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
    results[worker.index] = error
    pool[position] = start()


def _crashed(worker: _Worker) -> DicomError:
    worker.process.join()
    return DecodeFailed(
        f"The decoder crashed (exit code {worker.process.exitcode}).", code="decoder_crashed"
    )


def _submit(worker: _Worker, index: int, item: object, timeout_s: float) -> None:
    worker.index = index
    worker.deadline = time.monotonic() + timeout_s
    with contextlib.suppress(OSError):  # it has crashed: _collect finds its pipe closed
        worker.pipe.send(item)


def _start(function: Callable, limits: Limits) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker_main, args=(theirs, function, limits), daemon=True)
    with _blank_main():
        process.start()
    theirs.close()
    return _Worker(process, ours, time.monotonic() + _START_S)


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


def _worker_main(pipe: Connection, function: Callable[[Any], Any], limits: Limits) -> None:
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
    pipe.send(None)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        alarm(math.ceil(2 * limits.seconds) + 1)
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

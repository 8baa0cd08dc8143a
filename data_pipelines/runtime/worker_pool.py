"""A pool of spawned, long-lived worker processes in which a crash, a hang or a memory bomb costs
one item.

Codecs are native code fed with untrusted bytes: they may crash, loop or allocate without end, and
none of that can be caught inside the process. Each worker is held to a time limit by its parent and
to a memory limit by the system.
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
# items given out per worker beyond the next one to be yielded, so that results in order stay few
PREFETCH = 4


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    deadline: float
    index: int | None = None  # of the item it works on
    ready: bool = False


def map_isolated(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    timeout_s: float | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[Item, Result | DicomError]]:
    """Yield (item, result or DicomError) in the order of `items`; `function` is importable by name,
    its values pickle.

    What `function` raises is the result: a DicomError as it is, anything else as DecodeFailed with
    the exception's name alone (its message may quote a patient's data). Codes of lost workers:
    decoder_crashed, time_limit, memory_limit. Limits of time, memory and the rest are those in
    force at the first item (see limits); `timeout_s` is another limit of
    time, for items of several files. Workers: one a processor unless given; none outlives the
    iterator. `progress` is called with (done, total). Raises DicomError (code workers) where none
    can be started.
    """
    count = min(workers or _processors(), len(items))
    limits = active_limits() if timeout_s is None else replace(active_limits(), seconds=timeout_s)
    start = functools.partial(_start, function, limits)
    pool = [start() for _ in range(count)]
    results: dict[int, Result | DicomError] = {}
    given = 0
    try:
        for index, item in enumerate(items):
            while index not in results:
                for worker in pool:
                    if (
                        worker.ready
                        and worker.index is None
                        and given < min(len(items), index + PREFETCH * count)
                    ):
                        _submit(worker, given, items[given], limits.seconds)
                        given += 1
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
    """Wait for the next message, death or deadline, and take what has come in."""
    busy = [worker for worker in pool if worker.index is not None or not worker.ready]
    pause = min(worker.deadline for worker in busy) - time.monotonic()
    talking = set(wait([worker.pipe for worker in busy], max(0.0, pause)))
    for place, worker in enumerate(pool):
        if worker.pipe in talking:
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                _replace(pool, place, results, start, _crashed(worker))
                continue
            if worker.ready and worker.index is not None:
                results[worker.index] = answer
                worker.index = None
            worker.ready = True
        elif worker in busy and time.monotonic() >= worker.deadline:
            said = (
                f"Decoding took longer than {timeout_s:g} s and was stopped; more is given by "
                f"--limit seconds=N."
            )
            limit = LimitExceeded(said, code="time_limit")
            _replace(pool, place, results, start, limit)


def _replace(
    pool: list[_Worker],
    place: int,
    results: dict[int, Any],
    start: Callable[[], _Worker],
    reason: DicomError,
) -> None:
    worker = pool[place]
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()
    if worker.index is None:
        raise DicomError(
            f"A decode worker did not start (exit code {worker.process.exitcode}). Is there "
            f"memory left?",
            code="workers",
        )
    results[worker.index] = reason
    pool[place] = start()


def _crashed(worker: _Worker) -> DicomError:
    worker.process.join()
    return DecodeFailed(
        f"The decoder crashed (exit code {worker.process.exitcode}).", code="decoder_crashed"
    )


def _submit(worker: _Worker, index: int, item: object, timeout_s: float) -> None:
    worker.index = index
    worker.deadline = time.monotonic() + timeout_s
    with contextlib.suppress(OSError):  # it died meanwhile: its pipe says so at the next look
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
    that has no file.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _worker_main(pipe: Connection, function: Callable[[Any], Any], limits: Limits) -> None:
    """Work until the parent closes the pipe or dies. A hang ends by an alarm should the parent not
    be there to end it.
    """
    alarm = getattr(
        signal, "alarm", lambda seconds: 0
    )  # its default action ends the process, whatever it is doing
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends its workers
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
            "Decoding needed more memory than a file may take; more is given by --limit "
            "memory=NGiB.",
            code="memory_limit",
        )
    except Exception as error:  # noqa: BLE001  process boundary: one item fails, by the name of its exception
        return DecodeFailed(f"Decoding failed with {type(error).__name__}.")


def _silence() -> None:
    """Send what native code prints (it may quote the file) to nowhere."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _limit_memory(extra_bytes: int) -> None:
    """Allow `extra_bytes` of address space beyond what the imports took, where the system knows
    such limits (Linux).
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _tune_malloc() -> None:
    """Have glibc keep what it frees for the next file (mallopt(3)): fresh pages took a third of the
    time of a file. No-op elsewhere.
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

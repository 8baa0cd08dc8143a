"""One spawned, long-lived worker process in which a crash, a hang or a memory bomb costs one item.

Codecs are native code that reads untrusted bytes: they may crash, loop or allocate without end, and
none of that can be caught inside the process. The parent enforces a time limit on each worker, and
the system a memory limit (on Linux). The time in which a worker waits for storage does not count
(see storage.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import sharedctypes
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from data_pipelines.errors import DecodeFailed, DicomError, LimitExceeded
from data_pipelines.runtime.limits import Limits, install_limits
from data_pipelines.runtime.storage import Cells, StorageClock, install_clock

POLL_S = 1.0  # a deadline moves when a read begins or ends
_START_S = 120.0
_start_lock = threading.Lock()
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # of malloc.h


@dataclass
class Worker:
    """A process, its pipe, and the state of its present item."""

    process: BaseProcess
    pipe: Connection
    clock: StorageClock
    started: float  # of the item, or of the process until it is ready
    limits: Limits
    index: int | None = None  # of the item that it works on
    ready: bool = False
    item_seconds: float = 0.0  # time limit of an item of several files; 0: that of one file

    @property
    def deadline(self) -> float:
        """When the process is to be stopped, if its state does not change."""
        if not self.ready:
            return self.started + _START_S
        since = self.clock.reading_since  # read once: the worker may end its read at any moment
        if since:
            return since + self.limits.stall
        allowed = self.item_seconds or self.limits.seconds
        return self.clock.file_deadline or self.started + self.clock.waited + allowed

    def submit(self, index: int, item: object, timeout_s: float) -> None:
        """Let the process, which is ready and idle, work on an item."""
        self.index, self.started, self.item_seconds = index, time.monotonic(), timeout_s
        self.clock.reset()
        with contextlib.suppress(OSError):  # it has crashed: its pipe will be found closed
            self.pipe.send((item, timeout_s))

    def receive(self) -> bytes | DicomError:
        """The pickled result that the pipe announced, or the error of a process that crashed."""
        try:
            return self.pipe.recv_bytes()
        except (EOFError, OSError):
            return self._crashed()

    def wait(self) -> bytes | DicomError:
        """As `receive`, after waiting for the result. Where the process exceeds its limits of time,
        the error says which.
        """
        while True:
            pause = min(self.deadline - time.monotonic(), POLL_S)
            if self.pipe.poll(max(0.0, pause)):
                return self.receive()
            if time.monotonic() >= self.deadline:
                return self.too_slow()

    def too_slow(self) -> DicomError:
        """The error of an item whose deadline has passed."""
        if self.clock.reading_since:
            return LimitExceeded(
                f"Storage delivered nothing for {self.limits.stall:g} s, and the read was given "
                f"up. Check the disk or the network, and run again; or raise the limit with "
                f"--limit stall=N.",
                code="read_stalled",
            )
        seconds = self.limits.seconds if self.clock.file_deadline else self.item_seconds
        return LimitExceeded(
            f"Decoding took longer than {seconds:g} s and was stopped. Raise the limit with "
            f"--limit seconds=N.",
            code="time_limit",
        )

    def _crashed(self) -> DicomError:
        self.process.join()
        return DecodeFailed(
            f"The decoder crashed (exit code {self.process.exitcode}).", code="decoder_crashed"
        )

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def not_started(worker: Worker) -> DicomError:
    """The error of a process that ended before it was ready."""
    return DicomError(
        f"A decode worker did not start (exit code {worker.process.exitcode}). Check that enough "
        f"memory is free.",
        code="workers",
    )


def start_worker(function: Callable, limits: Limits) -> Worker:
    """Start a process that calls `function`, importable by name, with each item that it gets. Its
    first message, None, says that it is ready. Raises DicomError (code workers) in a process that
    may not start any.
    """
    if multiprocessing.current_process().daemon:
        raise DicomError(
            "This process is a daemon of multiprocessing, which may not start processes, so that "
            "no decode worker can be started. Decode in its parent; or, for files that you made "
            "yourself, open the model with isolate=False.",
            code="workers",
        )
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    cells = sharedctypes.RawArray(ctypes.c_double, StorageClock.CELLS)
    process = context.Process(
        target=_worker_main, args=(theirs, function, limits, cells), daemon=True
    )
    with _start_lock, _blank_main():
        process.start()
    theirs.close()
    return Worker(process, ours, StorageClock(cells), time.monotonic(), limits)


@contextlib.contextmanager
def _blank_main() -> Iterator[None]:
    """Keep `spawn` from running the user's script again in each worker: it imports __main__ unless
    __main__ has no file. One thread at a time.
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
        outcome = outcome_of(function, item)
        alarm(0)
        pipe.send(outcome)


def outcome_of(function: Callable[[Any], Any], item: object) -> Any:
    """The result of `function(item)`, or a DicomError: the one that it raised, or one with only the
    name of another exception, whose message may quote a patient's data.
    """
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


def count_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Isolated workers that stay for the next call: for a service that reads one file now and the next
one later, from any thread. A crash, a hang or a memory bomb costs one call (see worker_process.py).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from data_pipelines.errors import DicomError
from data_pipelines.runtime.limits import Limits, active_limits
from data_pipelines.runtime.worker_process import (
    Worker,
    count_processors,
    not_started,
    start_worker,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


class WarmWorkers:
    """Up to `size` worker processes (by default one per processor), each started by the first call
    that finds no idle one: calls that follow one another share a single worker.

    Several threads can share one object. A worker belongs to one call until its answer is there, so
    no call can get the answer of another.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size, self._pid = size or count_processors(), os.getpid()
        self._idle: list[Worker] = []
        self._count = 0  # of workers, idle or not
        self._generation = 0  # of workers; `close` ends one
        self._users = 0
        self._changed = threading.Condition()

    def call(
        self, function: Callable[[Item], Result], item: Item, *, timeout_s: float | None = None
    ) -> Result | DicomError:
        """The result of `function(item)`, computed in a worker, or the error that it gave.

        function: importable by name; errors and codes are those of `map_isolated`. timeout_s: for
            an item of several files; the other limits are those that apply here (see limits.py).
        Raises DicomError (code workers) if no worker can be started.
        """
        limits = active_limits()
        worker, generation = self._take(limits)
        answer: bytes | DicomError | None = None
        try:
            worker.submit(0, (function, item), timeout_s or limits.seconds)
            answer = worker.wait()
        finally:  # without an answer (Ctrl-C), the next call must not get the one that is to come
            self._give_back(worker, generation, usable=isinstance(answer, bytes))
        return pickle.loads(answer) if isinstance(answer, bytes) else answer

    def lease(self, user: object) -> weakref.finalize:
        """Keep the workers for `user`. They end when the finalizers of all users were called, which
        happens at the latest when a user is collected, and at exit.
        """
        with self._changed:
            self._users += 1
        return weakref.finalize(user, self._release)

    def close(self) -> None:
        """End the idle workers now, and each other one after its call. A later call starts anew."""
        if os.getpid() != self._pid:
            return  # a copy in a forked process: the workers are those of its parent
        with self._changed:
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            self._generation += 1
        for worker in idle:
            worker.end()

    def _release(self) -> None:
        with self._changed:
            self._users -= 1
            is_unused = self._users == 0
        if is_unused:
            self.close()

    def _take(self, limits: Limits) -> tuple[Worker, int]:
        """A ready worker with these limits, and the generation in which it was taken."""
        with self._changed:
            generation = self._generation  # a call that waits while they are closed keeps no worker
            while not self._idle and self._count >= self._size:
                self._changed.wait()
            worker = self._pop_idle(limits)
            if worker is None:
                self._count += 1
        try:
            if worker is not None and worker.limits == limits and worker.process.is_alive():
                return worker, generation
            if worker is not None:
                worker.end()
            return _ready(start_worker(_call, limits)), generation
        except BaseException:
            self._give_back(None, generation, usable=False)
            raise

    def _pop_idle(self, limits: Limits) -> Worker | None:
        """The idle worker that was used last, if possible one with these limits."""
        if not self._idle:
            return None
        fitting = [n for n, worker in enumerate(self._idle) if worker.limits == limits]
        if not fitting and self._count < self._size:
            return None
        return self._idle.pop(fitting[-1] if fitting else -1)

    def _give_back(self, worker: Worker | None, generation: int, *, usable: bool) -> None:
        """Keep a usable worker of the present generation for the next call, and end any other."""
        with self._changed:
            if worker is not None and usable and generation == self._generation:
                self._idle.append(worker)
                worker = None
            else:
                self._count -= 1
            self._changed.notify()
        if worker is not None:
            worker.end()


def shared_workers() -> WarmWorkers:
    """The workers of this process."""
    return _shared


def _forget() -> None:
    global _shared
    _shared = WarmWorkers()


_shared = WarmWorkers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # a forked process starts workers of its own


def _call(call: tuple[Callable[[Any], Any], Any]) -> Any:
    function, item = call
    return function(item)


def _ready(worker: Worker) -> Worker:
    """The worker, once it has said that it is ready. Raises DicomError (code workers)."""
    started = False
    with contextlib.suppress(EOFError, OSError):
        if worker.pipe.poll(max(0.0, worker.deadline - time.monotonic())):
            worker.pipe.recv_bytes()
            started = True
    if not started:
        worker.end()
        raise not_started(worker)
    worker.ready = True
    return worker

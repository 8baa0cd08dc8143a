"""Where the files of a predictor are decoded: in isolated workers, or in this process."""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from data_pipelines.errors import DicomError
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.warm_workers import WarmWorkers, shared_workers
from data_pipelines.runtime.worker_process import outcome_of

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # studies that are decoded while one is predicted


class Decoder:
    """Runs functions that decode files. isolate: in the workers that all predictors of the process
    share, which start at the first call; False: in this process.
    """

    def __init__(self, *, isolate: bool) -> None:
        self.isolate = isolate
        self._lease: tuple[WarmWorkers, weakref.finalize] | None = None
        self._lock = threading.Lock()

    def call(
        self, function: Callable[[Item], Result], item: Item, *, n_files: int = 1
    ) -> Result | DicomError:
        """The result of `function(item)`, or the error that it gave. n_files: that the item holds,
        each of which may take as long as the limit `seconds`.

        Raises DicomError (code workers) if no worker can be started.
        """
        if not self.isolate:
            return outcome_of(function, item)
        seconds = active_limits().seconds * max(1, n_files)
        return self._workers().call(function, item, timeout_s=seconds)

    def ahead(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """`function(item)` of each item, in order. In isolation the next ones are computed while
        the caller works with one. The limits are those of the first item.
        """
        if not self.isolate:
            yield from map(function, items)
            return
        context = contextvars.copy_context()
        pending: deque[Future[Result]] = deque()
        threads = ThreadPoolExecutor(AHEAD)
        try:
            for item in items:
                pending.append(threads.submit(context.copy().run, function, item))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """The workers are no longer needed, until the next call."""
        with self._lock:
            lease, self._lease = self._lease, None
        if lease is not None:
            lease[1]()

    def _workers(self) -> WarmWorkers:
        workers = shared_workers()
        with self._lock:
            if self._lease is None or self._lease[0] is not workers:
                self._lease = workers, workers.lease(self)
        return workers

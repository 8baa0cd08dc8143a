"""A cluster in this process: jobs and results are pickled, as between machines, and tasks end in
the reverse order.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from data_pipelines.runtime.engines.distributed import TaskLost, run_task


class FakeCluster:
    """lost: how often the first tasks are lost after their work is done, one number a task."""

    slots = 2

    def __init__(self, lost: Sequence[int] = ()) -> None:
        self.lost = list(lost)
        self.submitted: list[tuple[bytes, bytes]] = []
        self.cancelled: list[int] = []
        self._again: dict[bytes, int] = {}

    def share(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def submit(self, job: bytes, parts: Sequence[Any]) -> int:
        self.submitted.append((job, pickle.dumps(parts)))
        return len(self.submitted) - 1

    def wait(self, handles: Sequence[int]) -> list[int]:
        return [handles[-1]]

    def result(self, handle: int) -> Any:
        job, parts = self.submitted[handle]
        answer = pickle.dumps(run_task(pickle.loads(job), pickle.loads(parts)))
        if parts not in self._again:
            self._again[parts] = self.lost.pop(0) if self.lost else 0
        if self._again[parts]:
            self._again[parts] -= 1
            raise TaskLost("killed")
        return pickle.loads(answer)

    def cancel(self, handles: Sequence[int]) -> None:
        self.cancelled += handles

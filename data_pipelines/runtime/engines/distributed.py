"""Parts computed by tasks on other machines: cut into tasks, kept in order, and repeated where a
machine was lost. What runs the tasks is a `Cluster` (ray_cluster.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

from data_pipelines.errors import CodedError, EngineError
from data_pipelines.runtime.engines.engine import ComputeParts
from data_pipelines.runtime.engines.shared import code_versions, require_same_code
from data_pipelines.runtime.limits import Limits, active_limits, limited
from data_pipelines.runtime.worker_pool import ProgressCallback

ITEMS_PER_TASK = 2048  # at most, unless one part has more: a lost task costs no more
TASKS_PER_SLOT = 4  # at least, where there are so many parts: the load is balanced
TASKS_AHEAD = 2  # tasks per slot that are submitted at the same time
MAX_LOST = 3  # how often the machine of one task may be lost


class Job(NamedTuple):
    """What is the same for all tasks of a run."""

    compute: ComputeParts
    check: Callable[[Any], None] | None
    limits: Limits
    versions: dict[str, str]


class TaskLost(Exception):
    """The process or the machine of a task ended before its result was there."""


class Cluster(Protocol):
    """Runs tasks. A handle stands for a task that was submitted."""

    @property
    def slots(self) -> int:
        """How many tasks run at the same time."""
        ...

    def share(self, value: Any) -> Any:
        """Give a value to all machines once; returns what `submit` takes in its place."""
        ...

    def submit(self, job: Any, parts: Sequence[Any]) -> Any:
        """Start `run_task(job, parts)` on a machine; returns its handle. job: of `share`."""
        ...

    def wait(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Wait until at least one of the tasks has ended; returns those that have."""
        ...

    def result(self, handle: Any) -> list[Any] | Exception:
        """What `run_task` returned for a task that has ended. Raises TaskLost, or EngineError where
        the cluster cannot go on.
        """
        ...

    def cancel(self, handles: Sequence[Any]) -> None:
        """End tasks whose results nobody wants."""
        ...


def run_task(job: Job, parts: Sequence[Any]) -> list[Any] | Exception:
    """The results of some parts, or the error that ends the command. Runs on any machine, in one
    process that starts one decode worker: a crash of a decoder costs one file, not the task.
    """
    try:
        require_same_code(job.versions)
        if job.check is not None:
            for part in parts:
                job.check(part)
        with limited(**asdict(job.limits)):
            return list(job.compute(parts, workers=1, progress=None))
    except (CodedError, OSError) as error:  # such as a full disk
        return error


class _Task(NamedTuple):
    number: int
    parts: tuple[Any, ...]
    items: int
    lost: int = 0


class DistributedEngine:
    """Computes parts by the tasks of a cluster. A lost task is repeated, at most MAX_LOST times."""

    is_local = False

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

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
        """As `Engine.run`. workers: tasks at the same time, by default all slots of the cluster.

        Raises EngineError (task_lost) where the machine of one task is lost again and again, and
        the errors of `run_task` of any machine.
        """
        slots = min(workers or self._cluster.slots, self._cluster.slots)
        tasks = deque(_tasks(parts, sizes, slots))
        job = self._cluster.share(Job(compute, check, active_limits(), code_versions()))
        running: dict[Any, _Task] = {}
        results: dict[int, list[Any]] = {}
        ahead = slots if workers else TASKS_AHEAD * slots
        done, total, following = 0, sum(sizes), 0
        try:
            while tasks or running:
                while tasks and len(running) < ahead:
                    task = tasks.popleft()
                    running[self._cluster.submit(job, task.parts)] = task
                for handle in self._cluster.wait(list(running)):
                    task = running.pop(handle)
                    answer = self._answer(handle, task)
                    if answer is None:
                        tasks.appendleft(task._replace(lost=task.lost + 1))
                        continue
                    results[task.number] = answer
                    done += task.items
                    if progress is not None:
                        progress(done, total)
                while following in results:
                    yield from results.pop(following)
                    following += 1
        finally:
            self._cluster.cancel(list(running))

    def _answer(self, handle: Any, task: _Task) -> list[Any] | None:
        """The results of a task; None where it was lost and is to be repeated."""
        try:
            answer = self._cluster.result(handle)
        except TaskLost as error:
            if task.lost < MAX_LOST:
                return None
            raise EngineError(
                f"A task of {task.items} files was lost {MAX_LOST + 1} times ({error}). Check the "
                f"memory and the disks of the machines. The same command resumes after the parts "
                f"that are finished.",
                code="task_lost",
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _tasks(parts: Sequence[Any], sizes: Sequence[int], slots: int) -> list[_Task]:
    """Neighboring parts together, such that there are enough tasks for all slots."""
    most = min(ITEMS_PER_TASK, max(1, sum(sizes) // (TASKS_PER_SLOT * slots)))
    tasks: list[_Task] = []
    for part, size in zip(parts, sizes, strict=True):
        if tasks and tasks[-1].items + size <= most:
            last = tasks.pop()
            tasks.append(_Task(last.number, (*last.parts, part), last.items + size))
        else:
            tasks.append(_Task(len(tasks), (part,), size))
    return tasks

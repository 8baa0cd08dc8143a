"""Tasks: what a model answers, and every rule that follows from it.

A task is one row of `TASKS`. No other module compares the name of a task to decide what to do: it
reads a field here. Imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_pipelines.labels.task import LABEL_TASKS, LabelTask, TaskName
from medres.errors import ModelError

Pool = Literal["max", "mean", "noisy_or"]


@dataclass(frozen=True)
class Task(LabelTask):
    """One task of classification.

    activation: from logits to probabilities, in the artefact. loss: of training, masked.
    pool: how the probabilities of the images of a unit become the unit's.
    min_classes, max_classes: how many class names a model of it may have.
    """

    activation: Literal["sigmoid", "softmax"]
    loss: Literal["binary_crossentropy", "categorical_crossentropy"]
    pool: Pool
    min_classes: int
    max_classes: int | None

    def outputs(self, n_classes: int) -> int:
        """Logits of a model of so many classes: one for a single finding, else one per class.

        >>> task_named("binary").outputs(2), task_named("multiclass").outputs(4)
        (1, 4)
        """
        return 1 if self.single else n_classes


def _task(
    name: TaskName,
    activation: Literal["sigmoid", "softmax"],
    loss: Literal["binary_crossentropy", "categorical_crossentropy"],
    pool: Pool,
    limits: tuple[int, int | None],
) -> Task:
    labels = LABEL_TASKS[name]
    return Task(name, labels.exclusive, labels.single, activation, loss, pool, *limits)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task("binary", "sigmoid", "binary_crossentropy", "max", (1, 2)),
        _task("multilabel", "sigmoid", "binary_crossentropy", "max", (1, None)),
        _task("multiclass", "softmax", "categorical_crossentropy", "mean", (2, None)),
    )
}


def task_named(name: str) -> Task:
    """The task of that name. Raises ModelError for a name that is none."""
    if name not in TASKS:
        raise ModelError(f"unknown task {name!r}: write {', '.join(TASKS)}")
    return TASKS[name]


def default_task(n_classes: int) -> Task:
    """Binary for one class, else multi-class.

    >>> default_task(1).name, default_task(3).name
    ('binary', 'multiclass')
    """
    return TASKS["binary" if n_classes == 1 else "multiclass"]

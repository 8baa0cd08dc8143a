"""What the labels of an image look like, by task: one class of several, or 0/1 for each finding.

`medres.tasks.Task` adds what follows for models, losses and reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TaskName = Literal["binary", "multilabel", "multiclass"]


@dataclass(frozen=True)
class LabelTask:
    """How the labels of one task are written.

    name: as in manifests and cards. exclusive: each image has exactly one class, in a text column
    `class`; otherwise there is one column of 0, 1, -1 and empty cells per finding. single: there is
    one finding.
    """

    name: TaskName
    exclusive: bool
    single: bool


LABEL_TASKS: dict[str, LabelTask] = {
    task.name: task
    for task in (
        LabelTask("binary", exclusive=False, single=True),
        LabelTask("multilabel", exclusive=False, single=False),
        LabelTask("multiclass", exclusive=True, single=False),
    )
}


def label_task(n_findings: int, *, classes: bool = False) -> LabelTask:
    """The task of a labels table.

    >>> label_task(1).name, label_task(14).name, label_task(0, classes=True).name
    ('binary', 'multilabel', 'multiclass')
    """
    if classes:
        return LABEL_TASKS["multiclass"]
    return LABEL_TASKS["binary" if n_findings == 1 else "multilabel"]

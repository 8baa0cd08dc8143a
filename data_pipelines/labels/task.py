"""What the labels of an image look like, by task: one class of several, or 0/1 for each finding.

`medres.tasks.Task` adds what follows for models, losses and reports.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

TaskName = Literal["binary", "multilabel", "multiclass", "segmentation", "detection"]
SEGMENTATION: TaskName = "segmentation"
DETECTION: TaskName = "detection"
BACKGROUND = "background"  # the class of the label 0 of every label map


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


#: splits in which every class needs an image: a model learns from one, and is tuned on the other
TRAINING_SPLITS = ("train", "tune")
CLASS_WITHOUT_IMAGE = "class_without_image"
_MAX_LISTED = 12


def untrainable_classes(
    classes: Collection[str], present: Mapping[str, Collection[str]]
) -> str | None:
    """Why a model cannot be trained on these classes, and what to do; None where it can.

    The number of classes has no limit; each needs an image in train and in tune. Ingest warns of
    it, plan and train refuse it (code CLASS_WITHOUT_IMAGE). present: split -> the classes of its
    images.

    >>> untrainable_classes(["a", "b"], {"train": ["a", "b"], "tune": ["b", "a"]}) is None
    True
    """
    absent = {
        name: [split for split in TRAINING_SPLITS if name not in present.get(split, ())]
        for name in classes
    }
    lacking = [f"{name} ({', '.join(splits)})" for name, splits in absent.items() if splits]
    if not lacking:
        return None
    more = f" and {len(lacking) - _MAX_LISTED} more" if len(lacking) > _MAX_LISTED else ""
    return (
        f"{len(lacking)} of {len(classes)} classes have no image in the train or the tune "
        f"(validation) split, so that no model can be trained: {', '.join(lacking[:_MAX_LISTED])}"
        f"{more}. Ingest again and leave these classes out with --drop-class NAME, or join them "
        f"with --merge-classes NEW=NAME,NAME; or add patients"
    )

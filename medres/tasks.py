"""Tasks: what a model predicts, and every rule that follows from it.

A task is one row of `TASKS`. No other module compares the name of a task to decide what to do: it
reads a field here. This module imports neither Keras nor TensorFlow.

| task       | outputs         | activation | decision                      | label columns       |
|------------|-----------------|------------|-------------------------------|---------------------|
| binary     | one             | sigmoid    | probability >= threshold      | one, 0 or 1         |
| multilabel | one per finding | sigmoid    | each probability >= threshold | one per finding     |
| multiclass | one per class   | softmax    | the most probable class       | one, the class name |

`segmentation` has one output per class for each pixel or voxel, with a softmax; its labels are
label maps, and its first class is the background. `detection` has raw maps, of which
`medres.decode` makes boxes; its labels are boxes, and each class has a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_pipelines.labels.task import DETECTION, LABEL_TASKS, SEGMENTATION, LabelTask, TaskName
from medres.errors import ModelError

Activation = Literal["sigmoid", "softmax"]
LossName = Literal[
    "binary_crossentropy", "categorical_crossentropy", "dice_crossentropy", "detection"
]
#: what `medres.train(task=...)` and `medres train --task` may be
TaskOption = Literal["classification", "segmentation", "detection"]
Pool = Literal["max", "mean"]


@dataclass(frozen=True)
class Task(LabelTask):
    """One task. `name`, `exclusive` and `single` are those of `LabelTask`.

    activation: from logits to probabilities, in the saved model.
    loss: of training; cells without a label have weight 0. See medres.training.losses.
    pool: how the probabilities of a unit's images become the probability of the unit.
    min_classes, max_classes: how many class names a model of this task may have; None: no limit.
    has_uncertain_labels: whether a label may be -1 (uncertain), so that the recipe's `uncertain`
        policies apply.
    has_thresholds: whether a finding is positive from a threshold on, so that operating points are
        computed, frozen and reported; otherwise the most probable class is the decision.
    reports_confusion: whether the report has the confusion matrix with accuracy, kappa and
        Hand and Till's AUC (`multiclass` in report.json).
    is_dense: whether each pixel has a class, so that the labels are label maps.
    finds_boxes: whether the labels are boxes, and the outputs raw maps.
    block: of ingest.json, which a work folder with such annotations has; '' for labels.
    options: settings of a run (`RunOptions`) that are for this task alone.
    monitor, recipe, augmentation: defaults of a run; without an augmentation, that of the preset.
    """

    activation: Activation
    loss: LossName
    pool: Pool
    min_classes: int
    max_classes: int | None
    has_uncertain_labels: bool
    has_thresholds: bool
    reports_confusion: bool
    is_dense: bool = False
    finds_boxes: bool = False
    block: str = ""
    options: tuple[str, ...] = ("calibration", "operating_points", "views")
    monitor: str = "loss"
    recipe: str = "default"
    augmentation: str | None = None

    @property
    def is_annotated(self) -> bool:
        """Whether the labels are masks or boxes, and not columns of a table."""
        return self.is_dense or self.finds_boxes

    def outputs(self, n_classes: int) -> int:
        """The number of logits of a model with this number of class names.

        >>> task_named("binary").outputs(2), task_named("multiclass").outputs(4)
        (1, 4)
        """
        return 1 if self.single else n_classes

    def manifest_labels(self, names: Sequence[str]) -> list[str]:
        """The manifest's label columns.

        >>> task_named("multilabel").manifest_labels(["edema", "nodule"])
        ['label:edema', 'label:nodule']
        """
        return ["class"] if self.exclusive else [f"label:{name}" for name in names]

    def score_labels(self, names: Sequence[str]) -> list[str]:
        """The label columns of a table of scores, in the order of `manifest_labels`."""
        return [f"label:{name}" for name in names] if self.label_per_name else ["label"]

    def score_columns(self, names: Sequence[str]) -> list[str]:
        """The score columns of a table of scores, in the order of the model's outputs.

        >>> task_named("binary").score_columns(["nodule"])
        ['score']
        """
        return ["score"] if self.single else [f"score:{name}" for name in names]

    @property
    def label_per_name(self) -> bool:
        """Whether a table of scores has one label column per finding."""
        return not self.exclusive and not self.single


def _task(
    name: TaskName,
    *,
    activation: Activation,
    loss: LossName,
    pool: Pool,
    classes: tuple[int, int | None],
    decided_by_threshold: bool,
) -> Task:
    labels = LABEL_TASKS[name]
    return Task(
        name=name,
        exclusive=labels.exclusive,
        single=labels.single,
        activation=activation,
        loss=loss,
        pool=pool,
        min_classes=classes[0],
        max_classes=classes[1],
        has_uncertain_labels=not labels.exclusive,
        has_thresholds=decided_by_threshold,
        reports_confusion=labels.exclusive,
    )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task(
            "binary",
            activation="sigmoid",
            loss="binary_crossentropy",
            pool="max",
            classes=(1, 2),
            decided_by_threshold=True,
        ),
        _task(
            "multilabel",
            activation="sigmoid",
            loss="binary_crossentropy",
            pool="max",
            classes=(1, None),
            decided_by_threshold=True,
        ),
        _task(
            "multiclass",
            activation="softmax",
            loss="categorical_crossentropy",
            pool="mean",
            classes=(2, None),
            decided_by_threshold=False,
        ),
        Task(
            name=SEGMENTATION,
            exclusive=True,
            single=False,
            activation="softmax",
            loss="dice_crossentropy",
            pool="mean",
            min_classes=2,
            max_classes=None,
            has_uncertain_labels=False,
            has_thresholds=False,
            reports_confusion=False,
            is_dense=True,
            block="annotations",
            options=("decoder", "loss", "patch", "foreground", "deep_supervision", "flips"),
        ),
        Task(
            name=DETECTION,
            exclusive=False,
            single=False,
            activation="sigmoid",
            loss="detection",
            pool="max",
            min_classes=1,
            max_classes=None,
            has_uncertain_labels=False,
            has_thresholds=True,
            reports_confusion=False,
            finds_boxes=True,
            block="boxes",
            options=("levels", "channels", "head_depth", "fp_per_image"),
            monitor="ap50",
            recipe="detection",
            augmentation="detection",
        ),
    )
}


def task_named(name: str) -> Task:
    """The task with this name. Raises ModelError (code unknown_task) for any other name."""
    if name not in TASKS:
        raise ModelError(
            f"task {name!r} is unknown: choose one of {', '.join(TASKS)}", code="unknown_task"
        )
    return TASKS[name]


def annotated_task(option: str) -> Task | None:
    """The task of a run (`TaskOption`) that learns masks or boxes; None for a classifier.

    >>> annotated_task("classification") is None
    True
    """
    task = TASKS.get(option)
    return task if task is not None and task.is_annotated else None


def default_task(n_classes: int) -> Task:
    """Binary for one class, otherwise multi-class.

    >>> default_task(1).name, default_task(3).name
    ('binary', 'multiclass')
    """
    return TASKS["binary" if n_classes == 1 else "multiclass"]

"""What is refused before the first training step."""

from __future__ import annotations

import numpy as np

from data_pipelines.ingestion.manifest import Manifest
from medres.errors import TrainingError
from medres.training.config.recipe import Recipe
from medres.training.data import TrainingData
from medres.training.targets import class_order, training_targets


def check_classes(manifest: Manifest) -> None:
    """Raise TrainingError where an image's class is none of those that the manifest names."""
    if manifest.summary["task"] == "multiclass":
        names = list(manifest.summary["classes"])
        if not set(manifest.table["class"]) <= {"", *names}:
            raise TrainingError(
                f"the labels hold a class that is none of {', '.join(names)}: ingest again with "
                f"labels of these classes"
            )


def check_trainable(data: TrainingData, chosen: Recipe) -> None:
    """Every finding needs both classes, and every class an image, in train and in tune; and the
    recipe's names must be theirs.
    """
    class_order(data.targets, chosen.ordinal)
    training = training_targets(data.targets, data.table(), data.part("train")[0], chosen)
    for split, targets in (
        ("train", training.take(data.part("train")[0])),
        ("tune", data.part("tune")[1]),
    ):
        if len(targets.labels) == 0:
            raise TrainingError(
                f"the {split} split holds no image of preset {data.cache.spec.name}: ingest again "
                f"with more patients or another split"
            )
        for i, name in enumerate(targets.names):
            if targets.task == "multiclass":
                missing = not ((targets.labels == i) & (targets.weights > 0)).any()
                what = "no image"
            else:
                known = targets.labels[targets.weights[:, i] > 0, i]
                missing = len(np.unique(known)) < 2
                what = "one class only" if len(known) else "no label"
            if missing:
                raise TrainingError(
                    f"{name}: {what} in the {split} split; leave the finding out with --finding, "
                    f"or ingest with more patients"
                )
        if not (np.isfinite(targets.labels).all() and np.isfinite(targets.weights).all()):
            raise TrainingError(
                f"the labels of the {split} split hold values that are not finite: ingest again"
            )
    if data.targets.task == "multiclass" and len(data.targets.names) < 2:
        raise TrainingError("the labels hold one class: classification needs two or more")

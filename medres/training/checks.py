"""Checks of the data and of the recipe before the first training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.cache.tf_dataset import Targets
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.labels.task import CLASS_WITHOUT_IMAGE, untrainable_classes
from data_pipelines.runtime.plain_text import escaped, is_plain
from medres.artefact.card_fields import MAX_NAME, require_bounded
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.tasks import TASKS, task_named
from medres.training.config.recipe import RECIPES, Recipe
from medres.training.data import TrainingData
from medres.training.targets import class_order, training_targets


def check_classes(manifest: Manifest, kind: str) -> None:
    """Raise TrainingError where an image has a class that the manifest's summary does not name
    (unknown_class), or where images of `kind` lack a class in train or tune (class_without_image).
    """
    task = TASKS.get(manifest.summary["task"])
    if task is None or not task.exclusive:
        return
    names = list(manifest.summary["classes"])
    if unknown := sorted(set(manifest.table["class"]) - {"", *names}):
        raise TrainingError(
            f"the manifest has {len(unknown)} classes that are not among {', '.join(names)}: run "
            f"medres ingest again with labels of these classes",
            code="unknown_class",
        )
    table = manifest.table[manifest.table["kind"] == kind]
    present = {str(split): set(rows["class"]) for split, rows in table.groupby("split")}
    if reason := untrainable_classes(names, present):
        raise TrainingError(f"{kind} images: {reason}", code=CLASS_WITHOUT_IMAGE)


def check_card_texts(names: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Raise TrainingError where a name or a setting could not be written to a model file, before
    hours are spent on training.
    """
    for number, name in enumerate(names, start=1):
        if not (0 < len(name) <= MAX_NAME and is_plain(name)):
            raise TrainingError(
                f"name {number} of the findings or classes, {escaped(name)[:80]!r}, is empty, has "
                f"more than {MAX_NAME} characters, or has control or bidirectional characters: "
                f"rename it in the labels table and run medres ingest again",
                code="unsafe_text",
            )
    try:
        require_bounded(settings)
    except ValueError as error:
        raise TrainingError(
            f"the settings of the run cannot be written to a model file: a setting {error}",
            code="unsafe_text",
        ) from None


def without_stochastic_depth(recipe: Recipe, reporter: ProgressReporter) -> Recipe:
    """The recipe for a backbone of the user's own, whose branches medres cannot drop. What a named
    recipe brings along is switched off with a warning; raises TrainingError (code
    no_stochastic_depth) where it was asked for.
    """
    if not recipe.stochastic_depth:
        return recipe
    base = RECIPES.get(recipe.name)
    if base is None or base.stochastic_depth != recipe.stochastic_depth:
        raise TrainingError(
            f"stochastic_depth={recipe.stochastic_depth:g}: it needs a backbone that medres "
            f"builds, such as resnet18, and this run has its own: remove the setting, or build "
            f"the drops into the backbone (Dropout)",
            code="no_stochastic_depth",
        )
    reporter.line(
        f"warning no_stochastic_depth: the recipe {recipe.name} has stochastic depth "
        f"{recipe.stochastic_depth:g}, which a backbone of your own does not get; config.json has 0"
    )
    return recipe.model_copy(update={"stochastic_depth": 0.0})


def check_trainable(data: TrainingData, recipe: Recipe) -> None:
    """Raise TrainingError unless every finding has positive and negative images (and every class
    has images) in train and in tune, and the recipe names only findings and classes of the data.
    """
    class_order(data.targets, recipe.ordinal)
    training = training_targets(data.targets, data.table(), data.rows("train"), recipe)
    for split, targets in (
        ("train", training.take(data.rows("train"))),
        ("tune", data.split_targets("tune")),
    ):
        if len(targets.labels) == 0:
            raise TrainingError(
                f"the {split} split has no image for preset {data.cache.spec.name}: run medres "
                f"ingest again with more patients or with another split",
                code="empty_split",
            )
        _check_labels(targets, split)
    if data.task.exclusive and len(data.targets.names) < 2:
        raise TrainingError(
            f"the labels have a single class, {data.targets.names[0]}: classification needs two or "
            f"more",
            code="single_class",
        )


def _check_labels(targets: Targets, split: str) -> None:
    for i, name in enumerate(targets.names):
        if fault := _missing_class(targets, i):
            problem, code = fault
            raise TrainingError(
                f"{name}: {problem} in the {split} split; leave the finding out with --finding, or "
                f"ingest more patients",
                code=code,
            )
    if not (np.isfinite(targets.labels).all() and np.isfinite(targets.weights).all()):
        raise TrainingError(
            f"the labels of the {split} split have values that are not finite: run medres ingest "
            f"again",
            code="labels_not_finite",
        )


def _missing_class(targets: Targets, index: int) -> tuple[str, str] | None:
    """(what is missing, its code) for a finding or class by index; None where it is complete."""
    if task_named(targets.task).exclusive:
        present = ((targets.labels == index) & (targets.weights > 0)).any()
        return None if present else ("no image", "class_without_image")
    values = np.unique(targets.labels[targets.weights[:, index] > 0, index])
    if len(values) == 0:
        return "no label", "no_label"
    return ("one class only", "one_class") if len(values) == 1 else None

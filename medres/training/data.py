"""The data of a run: one cache with its targets, a model's scores for a split, and the tuning
patients that are set aside for conformal quantiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import tensorflow as tf

from data_pipelines.cache.plan import format_left_out
from data_pipelines.cache.store import Cache, ensure_cache
from data_pipelines.cache.tf_dataset import (
    Targets,
    eval_batches,
    join_boxes,
    join_masks,
    join_targets,
    rows_of,
)
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.splits.stratified import allocate, connected_groups, group_strata, row_strata
from medres.artefact.card import SERVED
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits, to_units
from medres.progress import ProgressReporter
from medres.tasks import Task, task_named

if TYPE_CHECKING:
    import keras

HOLDOUT_SHARE = 1 / 3  # of the tuning patients, for conformal quantiles


@dataclass(frozen=True)
class TrainingData:
    """A cache, the targets of all its rows, and the manifest that both come from."""

    cache: Cache
    targets: Targets
    manifest: Manifest

    @property
    def task(self) -> Task:
        return task_named(self.targets.task)

    def rows(self, split: str) -> np.ndarray:
        """(n,) cache rows of a split (train, tune or test), in ascending order."""
        return rows_of(self.cache, split)

    def split_targets(self, split: str) -> Targets:
        """The targets of a split, in the order of its `rows`."""
        return self.targets.take(self.rows(split))

    def table(self, split: str | None = None) -> pd.DataFrame:
        """The manifest's rows of a split (None: of all splits), in the order of its cache rows."""
        images = self.cache.images["image"]
        if split is not None:
            images = images.iloc[self.rows(split)]
        return self.manifest.table.set_index("image").loc[images].reset_index()

    @property
    def unit(self) -> str:
        """The level at which labels were given: image, series, study or patient."""
        return self.manifest.summary["label_level"]


@dataclass(frozen=True)
class ScoredImages:
    """A model's scores (n, outputs) for images with known labels, with their targets and their
    manifest rows.
    """

    scores: np.ndarray
    targets: Targets
    table: pd.DataFrame

    @property
    def task(self) -> Task:
        return task_named(self.targets.task)

    def take(self, mask: np.ndarray) -> ScoredImages:
        """The images where `mask` (n,) is True."""
        rows = np.flatnonzero(mask)
        return ScoredImages(
            self.scores[rows], self.targets.take(rows), self.table.iloc[rows].reset_index(drop=True)
        )

    def units(self, unit: str) -> AnalysisUnits:
        """Scores pooled to `unit` as in prediction: the largest score of a finding, the mean score
        of a class. A finding is present in a unit where any of its images has it.
        """
        names, targets, weighted = self.targets.names, self.targets, self.targets.weights > 0
        if self.task.exclusive:
            labels = {
                name: np.where(weighted, targets.labels == i, np.nan)
                for i, name in enumerate(names)
            }
        else:
            cells = np.where(weighted, targets.labels, np.nan).astype(np.float64)
            labels = {name: cells[:, i] for i, name in enumerate(names)}
        scores = {name: self.scores[:, i].astype(np.float64) for i, name in enumerate(names)}
        columns = self.table[["image", "series", "study", "patient"]].astype("object")
        status = np.full(len(columns), "scored")
        table = Table(self.task.name, names, labels, scores, status, columns, "", "tune")
        return to_units(table, unit, self.task.pool, "any")


class CompiledModel:
    """A model's forward pass, compiled once for all batch sizes. A model that was built in the
    scope of a tf.distribute strategy runs on all its devices.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model, strategy = model, _strategy_of(model)
        image = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)

        def forward(image: tf.Tensor) -> tf.Tensor:
            return model(image, training=False)

        self._strategy, self._forward = strategy, tf.function(forward).get_concrete_function(image)
        if strategy is not None:
            self._shared_forward = tf.function(
                lambda image: strategy.run(forward, args=(image,)), reduce_retracing=True
            )

    @property
    def devices(self) -> int:
        """The number of devices of this process, which share a batch."""
        return 1 if self._strategy is None else len(self._strategy.extended.worker_devices)

    def logits(self, image: tf.Tensor) -> np.ndarray:
        """The outputs, float32 (n, outputs), of images (n, ..., C) in model units."""
        if self._strategy is None or len(image) % self.devices:
            return self._forward(image).numpy()
        parts = tf.split(image, self.devices)
        shared = self._strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group % self.devices]
        )
        outputs = self._strategy.experimental_local_results(self._shared_forward(shared))
        return np.concatenate([part.numpy() for part in outputs])

    def score(self, data: TrainingData, split: str, batch_size: int = 32) -> ScoredImages:
        """The outputs for one split, in cache order. batch_size: images on each device."""
        batches = eval_batches(data.cache, data.targets, batch_size * self.devices, split)
        outputs = [self.logits(inputs["image"]) for inputs, _, _ in batches]
        return ScoredImages(np.concatenate(outputs), data.split_targets(split), data.table(split))


def _strategy_of(model: keras.Model) -> tf.distribute.Strategy | None:
    """The strategy whose devices share the weights of a model; None: it has one device in this
    process.
    """
    values = [getattr(weight.value, "distribute_strategy", None) for weight in model.weights[:1]]
    several = [s for s in values if s is not None and len(s.extended.worker_devices) > 1]
    return several[0] if several else None


def load_data(
    work: Path | str, spec: PreprocessSpec, manifest: Manifest, reporter: ProgressReporter
) -> TrainingData:
    """The cache of a work folder for `spec` (built where it is missing) with its targets."""
    with reporter.task(f"cache {spec.name}") as update:
        cache = ensure_cache(work, spec, progress=update)
    manifest, targets = join_targets(manifest, cache)
    return TrainingData(cache, targets, manifest)


def load_masks(
    work: Path | str, spec: PreprocessSpec, manifest: Manifest, reporter: ProgressReporter
) -> TrainingData:
    """The cache of a work folder with label maps, built where it is missing. Reports the samples
    that are left out, since they have no usable mask.
    """
    with reporter.task(f"cache {spec.name} with masks") as update:
        cache = ensure_cache(work, spec, masks=True, progress=update)
    if cache.left_out:
        reporter.line(f"left out of segmentation: {format_left_out(cache.left_out)}")
    manifest, targets = join_masks(manifest, cache)
    return TrainingData(cache, targets, manifest)


def load_boxes(
    work: Path | str, spec: PreprocessSpec, manifest: Manifest, reporter: ProgressReporter
) -> TrainingData:
    """The cache of a work folder with boxes, built where it is missing. Reports the samples that
    are left out, since nobody annotated them or their boxes cannot be used.
    """
    with reporter.task(f"cache {spec.name} with boxes") as update:
        cache = ensure_cache(work, spec, boxes=True, progress=update)
    if cache.left_out:
        reporter.line(f"left out of detection: {format_left_out(cache.left_out)}")
    manifest, targets = join_boxes(manifest, cache)
    return TrainingData(cache, targets, manifest)


def tuning_holdout(data: TrainingData, alpha: float) -> np.ndarray:
    """(n,) bool: tuning images, in cache order, that are set aside for conformal quantiles. Early
    stopping, calibration and thresholds do not use them.

    The same in every run on these data; see `conformal_holdout`.
    """
    table, targets = data.table("tune"), data.split_targets("tune")
    scores = np.zeros((len(table), len(targets.names)))
    return conformal_holdout(ScoredImages(scores, targets, table), alpha)


def conformal_holdout(images: ScoredImages, alpha: float) -> np.ndarray:
    """(n,) bool: the images of a third of the patients, drawn by stratum, for conformal quantiles.

    All False where sets could not be offered, so that no patient is spent on them: where no finding
    has `min_patients_for_sets` patients of both labels (for exclusive classes: of every class), or
    where the third, by chance, lacks them. All False also where the remaining patients would lack a
    class that the whole split has.
    """
    table = images.table
    empty = np.zeros(len(table), dtype=bool)
    if alpha == 0 or len(table) == 0:
        return empty
    groups = connected_groups(list(table["patient"]), [list(table["pixel_sha256"])])
    strata = group_strata(groups, row_strata(table))
    holdout = allocate(strata, [1 - HOLDOUT_SHARE, HOLDOUT_SHARE], 0)[groups] == 1
    held_out, remaining, everything = (
        part.units(SERVED) for part in (images.take(holdout), images.take(~holdout), images)
    )
    enough = any(
        all(
            patients_with(everything, finding, label) >= min_patients_for_sets(alpha)
            and patients_with(held_out, finding, label) >= min_patients_for_quantile(alpha)
            for finding, _, label in cells
        )
        for cells in set_cells(images)
    )
    complete = all(
        patients_with(remaining, name, label) > 0 or patients_with(everything, name, label) == 0
        for name in remaining.names
        for label in (0.0, 1.0)
    )
    return holdout if enough and complete else empty


def set_cells(images: ScoredImages) -> list[list[tuple[str, int | str, int]]]:
    """The labels that share a conformal set: for each finding its two labels, or once all exclusive
    classes. A label is (name of the finding or class, label in the card, label of the units).
    """
    names = images.targets.names
    if images.task.exclusive:
        return [[(name, name, 1) for name in names]]
    return [[(name, 0, 0), (name, 1, 1)] for name in names]


def min_patients_for_sets(alpha: float) -> int:
    """The number of tuning patients of each class below which no patient is spent on conformal
    sets: a third of them must be enough for a quantile.

    >>> min_patients_for_sets(0.1), min_patients_for_sets(0.05)
    (27, 57)
    """
    return round(min_patients_for_quantile(alpha) / HOLDOUT_SHARE)


def too_few_for_sets(alpha: float) -> str:
    """Why there are no conformal sets, in a sentence."""
    return (
        f"too few tuning patients for conformal sets: {min_patients_for_sets(alpha)} of each class "
        f"are needed at alpha {alpha:g}, so all patients are used for early stopping, calibration "
        f"and thresholds"
    )


def min_patients_for_quantile(alpha: float) -> int:
    """The number of patients that a finite conformal quantile needs: ceil(1 / alpha) - 1.

    >>> min_patients_for_quantile(0.1), min_patients_for_quantile(0.05)
    (9, 19)
    """
    return math.ceil(1 / alpha - 1e-9) - 1


def patients_with(units: AnalysisUnits, name: str, label: float) -> int:
    """The number of patients with a unit of this label of a finding (or class)."""
    return len(np.unique(units.patient[units.label[name] == label]))

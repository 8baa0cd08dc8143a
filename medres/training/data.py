"""The data of a run: one cache with its targets, what a net says about a split, and the tuning
patients kept for conformal sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import tensorflow as tf

from data_pipelines.cache.store import Cache, ensure_cache
from data_pipelines.cache.tf_dataset import Targets, eval_batches, join_targets, rows_of
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.splits.stratified import allocate, connected_groups, group_strata, row_strata
from medres.artefact.card import SERVED
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits, to_units
from medres.progress import ProgressReporter

if TYPE_CHECKING:
    import keras

POOL = {"binary": "max", "multilabel": "max", "multiclass": "mean"}
HELD_OUT = 1 / 3  # of the tuning patients, for conformal quantiles


@dataclass(frozen=True)
class TrainingData:
    """A cache, the targets of all its rows, and the manifest that both come from."""

    cache: Cache
    targets: Targets
    manifest: Manifest

    def part(self, split: str) -> tuple[np.ndarray, Targets]:
        """Cache rows of a split and their targets."""
        rows = rows_of(self.cache, split)
        return rows, self.targets.take(rows)

    def table(self, split: str | None = None) -> pd.DataFrame:
        """The manifest's rows of a split (or of all), in the order of its cache rows."""
        images = self.cache.images["image"]
        if split is not None:
            images = images.iloc[rows_of(self.cache, split)]
        return self.manifest.table.set_index("image").loc[images].reset_index()

    @property
    def unit(self) -> str:
        """The level at which labels were given."""
        return self.manifest.summary["label_level"]


@dataclass(frozen=True)
class ScoredImages:
    """What a net says about images whose labels are known: scores (n, outputs), their targets and
    manifest rows.
    """

    scores: np.ndarray
    targets: Targets
    table: pd.DataFrame

    def take(self, chosen: np.ndarray) -> ScoredImages:
        """The images where `chosen` (n,) is True."""
        rows = np.flatnonzero(chosen)
        return ScoredImages(
            self.scores[rows], self.targets.take(rows), self.table.iloc[rows].reset_index(drop=True)
        )

    def units(self, unit: str) -> AnalysisUnits:
        """Pooled as a study is served: the largest score of a finding, the mean of a class; a
        finding is there if any image has it.
        """
        names, task = self.targets.names, self.targets.task
        if task == "multiclass":
            known = self.targets.weights > 0
            label = {
                n: np.where(known, self.targets.labels == i, np.nan) for i, n in enumerate(names)
            }
        else:
            cells = np.where(self.targets.weights > 0, self.targets.labels, np.nan).astype(
                np.float64
            )
            label = {n: cells[:, i] for i, n in enumerate(names)}
        score = {n: self.scores[:, i].astype(np.float64) for i, n in enumerate(names)}
        columns = self.table[["image", "series", "study", "patient"]].astype("object")
        status = np.full(len(columns), "scored")
        return to_units(
            Table(task, names, label, score, status, columns, "", "tune"), unit, POOL[task], "any"
        )


class CompiledModel:
    """A model's forward pass, compiled once for all batch sizes."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        image = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
        self._forward = tf.function(
            lambda image: model(image, training=False)
        ).get_concrete_function(image)

    def logits(self, image: tf.Tensor) -> np.ndarray:
        """Outputs (n, outputs) of images in model units."""
        return self._forward(image).numpy()

    def score(self, data: TrainingData, split: str, batch_size: int = 32) -> ScoredImages:
        """Outputs for one split, in cache order."""
        batches = eval_batches(data.cache, data.targets, batch_size, split)
        found = [self.logits(inputs["image"]) for inputs, _, _ in batches]
        return ScoredImages(np.concatenate(found), data.part(split)[1], data.table(split))


def load_data(
    work: Path | str, spec: PreprocessSpec, manifest: Manifest, reporter: ProgressReporter
) -> TrainingData:
    with reporter.task(f"cache {spec.name}") as update:
        cache = ensure_cache(work, spec, progress=update)
    manifest, targets = join_targets(manifest, cache)
    return TrainingData(cache, targets, manifest)


def tuning_holdout(data: TrainingData, alpha: float) -> np.ndarray:
    """(n,) tuning images, in cache order, kept for conformal quantiles and out of early stopping,
    calibration and thresholds.

    The same in every run on these data; see `conformal_holdout`.
    """
    table, targets = data.table("tune"), data.part("tune")[1]
    return conformal_holdout(
        ScoredImages(np.zeros((len(table), len(targets.names))), targets, table), alpha
    )


def conformal_holdout(whole: ScoredImages, alpha: float) -> np.ndarray:
    """(n,) images of a third of the patients, drawn by stratum, for conformal quantiles.

    None (all False) where that third could give no quantile, or where the rest would lack a class
    that the whole has.
    """
    table = whole.table
    none = np.zeros(len(table), dtype=bool)
    if alpha == 0 or len(table) == 0:
        return none
    groups = connected_groups(list(table["patient"]), [list(table["pixel_sha256"])])
    strata = group_strata(groups, row_strata(table))
    held = allocate(strata, [1 - HELD_OUT, HELD_OUT], 0)[groups] == 1
    kept, rest, everything = (
        part.units(SERVED) for part in (whole.take(held), whole.take(~held), whole)
    )
    enough = any(
        patients_with(kept, name, label) >= fewest(alpha)
        for name in kept.names
        for label in (0.0, 1.0)
    )
    complete = all(
        patients_with(rest, name, label) > 0 or patients_with(everything, name, label) == 0
        for name in rest.names
        for label in (0.0, 1.0)
    )
    return held if enough and complete else none


def fewest(alpha: float) -> int:
    """Patients that a finite conformal quantile needs: ceil(1 / alpha) - 1."""
    return math.ceil(1 / alpha - 1e-9) - 1


def patients_with(units: AnalysisUnits, name: str, label: float) -> int:
    """Patients with a unit of that label of a finding (or class)."""
    return len(np.unique(units.patient[units.label[name] == label]))

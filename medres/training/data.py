"""The data of a run: one cache with its targets, and what a model says about one split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data_pipelines.cache import Cache, ensure_cache
from data_pipelines.dataset import Targets, eval_batches, rows_of, targets_of
from data_pipelines.manifest import Manifest
from data_pipelines.preprocess import PreprocessSpec
from data_pipelines.records import by_record
from medres.evaluate.roc import auc_from_counts, rank_counts
from medres.progress import Progress
from medres.training.losses import class_balance

if TYPE_CHECKING:
    import keras


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

    def table(self, split: str) -> pd.DataFrame:
        """The manifest's rows of a split, in the order of its cache rows."""
        images = self.cache.images["image"].iloc[rows_of(self.cache, split)]
        return self.manifest.table.set_index("image").loc[images].reset_index()


def load_data(work: Path | str, spec: PreprocessSpec, manifest: Manifest, reporter: Progress) -> TrainingData:
    with reporter.task(f"cache {spec.name}") as update:
        cache = ensure_cache(work, spec, progress=update)
    manifest = by_record(manifest, cache)
    return TrainingData(cache, targets_of(manifest, cache.images["image"]), manifest)


def balanced_over(targets: Targets, rows: np.ndarray) -> Targets:
    """The targets with the rows' weights balanced over those rows; the others keep theirs."""
    weights = targets.weights.copy()
    weights[rows] = class_balance(targets.take(rows)).weights
    return Targets(targets.task, targets.names, targets.labels, weights)


def predict_logits(
    core: keras.Model, data: TrainingData, split: str, batch_size: int = 32
) -> tuple[np.ndarray, Targets]:
    """Logits (n, outputs) of one split in cache order, and its targets."""
    targets = data.part(split)[1]
    batches = eval_batches(data.cache, data.targets, batch_size, split).map(
        lambda inputs, label, weight: inputs["image"]
    )
    return core.predict(batches, verbose=0), targets


def mean_auc(logits: np.ndarray, targets: Targets) -> float | None:
    """Mean over findings of the exact AUC of labelled images (classes: one against the rest); None where no finding has both classes."""
    found = []
    for i in range(logits.shape[1]):
        if targets.task == "multiclass":
            known, label = targets.weights > 0, targets.labels == i
        else:
            known, label = targets.weights[:, i] > 0, targets.labels[:, i] == 1
        if 0 < label[known].sum() < known.sum():
            found.append(auc_from_counts(rank_counts(label[known], logits[known, i].astype(np.float64))))
    return float(np.mean(found)) if found else None

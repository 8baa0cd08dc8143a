"""`medres.worst`: the images on which a model is most wrong; their labels should be checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.cache.tf_dataset import eval_batches
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.runtime.atomic_files import write_atomic
from medres.artefact.archive import read_contents
from medres.errors import TrainingError
from medres.inference.scoring import score_split
from medres.progress import Bars, ProgressReporter
from medres.training.data import TrainingData, load_data
from medres.training.loggers.html import WorstImage, embedded, figure_page, gallery, thumbnail
from medres.training.run import Run

SMALLEST = 1e-7  # probability: a loss is at most 16.1


@dataclass(frozen=True)
class WorstLosses:
    """The images with the highest loss, highest first. A notebook shows them; `save(path)` writes a
    page with their thumbnails.

    table: columns image (its key), finding, label, probability, loss. Of findings, label is 0 or 1
    and probability that of the finding; of classes, finding is the class with the highest
    probability, label the true class, and probability that of the true class.
    """

    table: pd.DataFrame
    html: str

    def _repr_html_(self) -> str:
        return embedded(self.html)

    def __repr__(self) -> str:
        return f"WorstLosses({len(self.table)} images; .table, .save(path))\n{self.table}"

    def save(self, path: Path | str) -> Path:
        """Write the page, which works offline, and return its path."""
        write_atomic(Path(path), figure_page("Highest losses", self._repr_html_()).encode())
        return Path(path)


def worst(
    run: Run | Path | str,
    work: Path | str,
    split: str = "tune",
    n: int = 16,
    *,
    progress: ProgressReporter | None = None,
) -> WorstLosses:
    """The `n` images of a split with the highest loss under a model: the cross-entropy of its
    calibrated probabilities. An image with several findings counts with its worst one; images
    without a label are left out.

    run: what `medres.train` returned, its folder, or a medres file. split: "tune" (validation) or
    "train"; "test" is possible, and each access is logged in the work folder.
    Raises TrainingError (codes not_a_medres_file, bad_setting), and as `medres.score` does.
    """
    if n < 1:
        raise TrainingError(f"worst: n must be 1 or more, received {n}", code="bad_setting")
    file, reporter = _model_file(run), progress or Bars()
    spec = read_contents(file).card.preprocess
    data = load_data(work, spec, Manifest.load(work), reporter)
    scores, _ = score_split(file, work, split, progress=reporter)
    table = losses_table(scores, data).head(n).reset_index(drop=True)
    tiles = _tiles(data, split, set(table["image"]))
    images = [_captioned(row, data.task.exclusive, tiles) for row in table.to_dict("records")]
    return WorstLosses(table, gallery(split, images))


def _captioned(row: dict[Any, Any], exclusive: bool, tiles: dict[str, bytes]) -> WorstImage:
    finding, label, chance = row["finding"], row["label"], row["probability"]
    return WorstImage(
        id=row["image"][:12],
        label=str(label) if exclusive else f"{finding} {label:g}",
        predicted=f"{finding} ({label} {chance:.3f})" if exclusive else f"{finding} {chance:.3f}",
        loss=float(row["loss"]),
        png=tiles[row["image"]],
    )


def losses_table(scores: pd.DataFrame, data: TrainingData) -> pd.DataFrame:
    """All labeled images, each with its worst finding, highest loss first. scores: of `score`."""
    names, task = list(data.targets.names), data.task
    chances = scores[task.score_columns(names)].to_numpy(np.float64)
    if task.exclusive:
        rows = _class_losses(scores["label"].astype(str).to_numpy(), chances, names)
    else:
        labels = scores[task.score_labels(names)].to_numpy(np.float64)
        rows = _finding_losses(labels, chances, names)
    table = rows.assign(image=scores["image"].astype(str).to_numpy())
    table = table.dropna(subset=["loss"]).sort_values("loss", ascending=False, kind="stable")
    return table[["image", "finding", "label", "probability", "loss"]]


def _finding_losses(labels: np.ndarray, chances: np.ndarray, names: list[str]) -> pd.DataFrame:
    """labels (n, findings): 0, 1, or missing (-1, NaN)."""
    labeled = np.isin(labels, (0.0, 1.0))
    of_label = np.where(labels == 1, chances, 1 - chances)
    losses = np.where(labeled, -np.log(np.clip(of_label, SMALLEST, 1)), -1.0)
    worst_one = losses.argmax(axis=1)
    pick = (np.arange(len(labels)), worst_one)
    return pd.DataFrame(
        {
            "finding": [names[i] for i in worst_one],
            "label": labels[pick],
            "probability": chances[pick],
            "loss": np.where(labeled.any(axis=1), losses[pick], np.nan),
        }
    )


def _class_losses(labels: np.ndarray, chances: np.ndarray, names: list[str]) -> pd.DataFrame:
    index = np.array([names.index(label) if label in names else -1 for label in labels])
    of_label = chances[np.arange(len(labels)), index]
    losses = -np.log(np.clip(of_label, SMALLEST, 1))
    return pd.DataFrame(
        {
            "finding": [names[i] for i in chances.argmax(axis=1)],
            "label": labels,
            "probability": of_label,
            "loss": np.where(index >= 0, losses, np.nan),
        }
    )


def _tiles(data: TrainingData, split: str, keys: set[str]) -> dict[str, bytes]:
    """A thumbnail for each of some images of a split, by key."""
    tiles: dict[str, bytes] = {}
    names, start = data.cache.images["image"].astype(str).iloc[data.rows(split)].tolist(), 0
    for inputs, _, _ in eval_batches(data.cache, data.targets, 32, split):
        for i, name in enumerate(names[start : start + len(inputs["image"])]):
            if name in keys:
                tiles[name] = thumbnail(inputs["image"][i].numpy(), data.cache.spec)
        start += len(inputs["image"])
    return tiles


def _model_file(run: Any) -> Path:
    if isinstance(run, Run):
        return run.artefact
    if not isinstance(run, Path | str):
        raise TrainingError(
            f"worst: give the result of medres.train, its folder or a medres file, received "
            f"{type(run).__name__}; medres.save writes a fitted model as a medres file",
            code="not_a_medres_file",
        )
    return Path(run) / "model.keras" if Path(run).is_dir() else Path(run)

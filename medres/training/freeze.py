"""After the fit, on the tuning split alone: calibration and operating points, at the unit that is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from data_pipelines.dataset import Targets
from medres.artefact import SERVED, Card, OperatingPoint, summary_hash, versions, with_probability
from medres.evaluate.roc import rank_counts
from medres.training.calibrate import Calibration, identity, platt, temperature
from medres.training.data import TrainingData, predict_logits

if TYPE_CHECKING:
    import keras

POOLING: dict[str, Literal["max", "mean"]] = {"binary": "max", "multilabel": "max", "multiclass": "mean"}


def frozen(
    core: keras.Model, data: TrainingData, config: dict[str, Any], best: dict[str, Any]
) -> tuple[keras.Model, Card]:
    """The served model and its card, from the weights that `core` holds now. best: the state of the kept epoch."""
    logits, targets = predict_logits(core, data, "tune")
    ids, unit = data.table("tune"), data.manifest.summary["label_level"]
    calibration = calibrate(logits, targets, ids)
    served = with_probability(core, calibration, targets.task)
    probabilities, _ = predict_logits(served, data, "tune")
    card = Card(
        task=targets.task,
        names=list(targets.names),
        preprocess=data.cache.spec,
        unit=unit,
        pooling=POOLING[targets.task],
        calibration=vars(calibration),
        operating_points=operating_points(probabilities, targets, ids, unit),
        training={"config": config, "kept_epoch": best["epoch"], "splits": data.manifest.summary["splits"]},
        versions=versions(),
    )
    return served, card


def calibrate(logits: np.ndarray, targets: Targets, ids: pd.DataFrame) -> Calibration:
    """Platt scaling of each finding at study level (the largest logit of a study, which a monotone map leaves the largest),
    or one temperature for the classes of an image.

    logits (n, outputs); targets and ids (columns study, patient) of the same n images. A finding whose tuning studies are all of
    one class stays as it is.
    """
    if targets.task == "multiclass":
        known = targets.weights > 0
        scale = temperature(logits[known], targets.labels[known])
        count = np.bincount(targets.labels[known], minlength=len(targets.names)).tolist()
        return Calibration(
            "temperature",
            [scale] * len(targets.names),
            [0.0] * len(targets.names),
            [int(known.sum())] * len(count),
            count,
        )
    result = identity(len(targets.names))
    for i in range(len(targets.names)):
        units = pooled(logits[:, i], targets, i, ids, SERVED)
        positive = int(units["label"].sum())
        result.n[i], result.n_positive[i] = len(units), positive
        if 0 < positive < len(units):
            result.scale[i], result.offset[i] = platt(units["score"].to_numpy(), units["label"].to_numpy())
    return Calibration("platt", result.scale, result.offset, result.n, result.n_positive)


def operating_points(probabilities: np.ndarray, targets: Targets, ids: pd.DataFrame, unit: str) -> list[OperatingPoint]:
    """The point `default` (Youden's) of every finding, at `unit` and at the served unit; none for multiclass.

    probabilities (n, findings) as served. The threshold lies midway between two neighbouring tuning scores, so that a last-digit
    difference on another machine changes no decision of the tuning split.
    """
    points = []
    for i, finding in enumerate(targets.names if targets.task != "multiclass" else ()):
        for level in dict.fromkeys((unit, SERVED)):
            units = pooled(probabilities[:, i], targets, i, ids, level)
            if not 0 < units["label"].sum() < len(units):
                continue
            points.append(
                OperatingPoint(
                    finding=finding,
                    name="default",
                    threshold=midway_youden(units["label"].to_numpy(), units["score"].to_numpy()),
                    criterion="youden",
                    unit=level,
                    split="tune",
                    n_patients=int(units["patient"].nunique()),
                    sha256=summary_hash([units["label"].tolist(), units["score"].tolist()]),
                )
            )
    return points


def midway_youden(label: np.ndarray, score: np.ndarray) -> float:
    """Youden's threshold, moved half-way to the next lower score (or to 0 below the lowest)."""
    counts = rank_counts(label == 1, score.astype(np.float64))
    best = int(np.argmax(counts.tp / counts.n_positive - counts.fp / counts.n_negative))
    lower = counts.threshold[best + 1] if best + 1 < len(counts.threshold) else 0.0
    return float((counts.threshold[best] + lower) / 2)


def pooled(scores: np.ndarray, targets: Targets, output: int, ids: pd.DataFrame, unit: str) -> pd.DataFrame:
    """One row a unit with a known label: score (largest), label (any positive), patient."""
    known = targets.weights[:, output] > 0
    table = pd.DataFrame(
        {
            "unit": ids[unit].to_numpy()[known],
            "patient": ids["patient"].to_numpy()[known],
            "score": scores[known].astype(np.float64),
            "label": targets.labels[known, output],
        }
    )
    return table.groupby("unit", sort=True).agg(
        score=("score", "max"), label=("label", "max"), patient=("patient", "first")
    )

"""After training, on the tuning (validation) split: which components of each class are kept, how
far its volume may be off, and the card with both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from medres.artefact.archive import versions, with_probability
from medres.artefact.card import Card
from medres.artefact.masks import (
    ComponentRule,
    SegmentationFields,
    class_colors,
    components,
    kept_components,
)
from medres.evaluate.statistics.patient_means import patient_means
from medres.training.calibration.conformal import conformal_quantile
from medres.training.calibration.scaling import identity
from medres.training.data import CompiledModel, TrainingData, min_patients_for_quantile
from medres.training.segmentation.tuning import OVERLAP, mask_batches

#: rules that are tried, the simplest first
CANDIDATES: tuple[dict[str, Any], ...] = (
    {},
    {"min_voxels": 8},
    {"min_voxels": 32},
    {"min_voxels": 128},
    {"min_voxels": 512},
    {"largest": True},
)
MIN_GAIN = 1e-3  # in Dice, below which the simpler rule stays


def finalized_segmenter(
    logit_model: keras.Model, data: TrainingData, config: dict[str, Any], best_epoch: int
) -> tuple[keras.Model, Card]:
    """The served model (images in model units to the probabilities of each pixel) and its card.

    logit_model: float32, with the weights of the best epoch. config: as in config.json.
    """
    names = list(data.targets.names)
    calibration = identity(len(names))
    served = with_probability(logit_model, calibration, data.task.name)
    flips = [list(axes) for axes in config["segmentation"].get("flips", ())]
    rules = component_rules(CompiledModel(served), data, config["after"]["alpha"], flips)
    card = Card(
        task=data.task.name,
        names=names,
        preprocess=data.cache.spec,
        unit="series" if data.cache.spec.layout == "volume" else "image",
        pooling=data.task.pool,
        calibration=vars(calibration),
        operating_points=[],
        segmentation=SegmentationFields(
            patch=config["model"]["patch"],
            overlap=OVERLAP,
            flips=flips,
            colors=class_colors(len(names)),
            postprocess=rules,
        ),
        training={
            "config": config,
            "kept_epoch": best_epoch,
            "splits": data.manifest.summary["splits"],
            "left_out": [],
            "notes": _notes(rules),
        },
        versions=versions(),
    )
    return served, card


def component_rules(
    model: CompiledModel, data: TrainingData, alpha: float, flips: Sequence[Sequence[int]] = ()
) -> list[ComponentRule]:
    """The rule of each class with the highest mean Dice over the tuning patients; a rule that gains
    less than MIN_GAIN over a simpler one is not taken. model: gives probabilities, as it is served.
    """
    names = data.targets.names[1:]
    trials = [ComponentRule(name="trial", **candidate) for candidate in CANDIDATES]
    sizes = np.zeros((len(names), len(data.rows("tune")), 1 + 2 * len(trials)))
    case = 0
    for batch in mask_batches(model, data, "tune", flips):
        for label, logits in zip(batch.label, batch.logits, strict=True):
            predicted = logits.argmax(axis=-1)
            for i in range(len(names)):
                sizes[i, case] = _sizes(label == i + 1, predicted == i + 1, trials)
            case += 1
    patient = data.table("tune")["patient"].to_numpy()
    return [_best_rule(name, sizes[i], trials, patient, alpha) for i, name in enumerate(names)]


def _sizes(truth: np.ndarray, answer: np.ndarray, trials: list[ComponentRule]) -> list[int]:
    """Voxels of the truth; for each rule those of the prediction, and of both."""
    number, size = components(answer)
    hits = np.bincount(number[truth], minlength=len(size) + 1)[1:]
    row = [int(np.count_nonzero(truth))]
    for rule in trials:
        kept = kept_components(size, rule)
        row += [int(size[kept].sum()), int(hits[kept].sum())]
    return row


def _best_rule(
    name: str, sizes: np.ndarray, trials: list[ComponentRule], patient: np.ndarray, alpha: float
) -> ComponentRule:
    """sizes: of each case, as `_sizes` gives them."""
    present = sizes[:, 0] > 0
    scores = []
    for i in range(len(trials)):
        predicted, both = sizes[:, 1 + 2 * i], sizes[:, 2 + 2 * i]
        dice = np.where(present, 2 * both / np.maximum(sizes[:, 0] + predicted, 1), np.nan)
        means = patient_means(dice, patient)
        scores.append(float(means.mean()) if len(means) else 0.0)
    best = 0
    for i, score in enumerate(scores):
        best = i if score > scores[best] + MIN_GAIN else best
    error = volume_error(sizes[:, 0], sizes[:, 1 + 2 * best], patient, alpha)
    has_case = bool(present.any())
    return trials[best].model_copy(
        update={
            "name": name,
            "dice_before": scores[0] if has_case else None,
            "dice_after": scores[best] if has_case else None,
            "n_patients": len(np.unique(patient[present])),
            "volume_error": error,
            "alpha": None if error is None else alpha,
        }
    )


def volume_error(
    truth: np.ndarray, predicted: np.ndarray, patient: np.ndarray, alpha: float
) -> float | None:
    """The split-conformal quantile of |truth - predicted| / predicted over patients, each with its
    largest value; None for fewer patients than a finite quantile needs, and where that of a class
    that was missed is in it. Cases without the class in truth and prediction do not count.
    """
    counted = (truth > 0) | (predicted > 0)
    if alpha == 0 or len(np.unique(patient[counted])) < min_patients_for_quantile(alpha):
        return None
    off = np.abs(truth - predicted)[counted] / np.maximum(predicted[counted], 1e-9)
    off = np.where(predicted[counted] > 0, off, np.inf)
    quantile = conformal_quantile(off, patient[counted], alpha)
    return None if quantile is None or not np.isfinite(quantile) else float(quantile)


def _notes(rules: list[ComponentRule]) -> list[str]:
    """The post-processing, a line for each class."""
    lines = []
    for rule in rules:
        kept = "all components are kept"
        if not rule.keeps_all:
            kept = (
                "the largest component is kept"
                if rule.largest
                else (f"components of at least {rule.min_voxels} voxels are kept")
            )
        dice = "" if rule.dice_after is None else f" (tuning Dice {rule.dice_after:.3f})"
        lines.append(f"{rule.name}: {kept}{dice}")
    return lines

"""The metrics of an epoch on the tuning (validation) split: its loss, and the exact AUC with an
interval that is clustered by patient.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.calibration import expit
from medres.evaluate.metrics.macro import macro_auc
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.estimate import Estimate
from medres.training.data import ScoredImages
from medres.training.losses import mean_loss

LEVEL = 0.95  # of confidence


def tuning_row(logits: ScoredImages, unit: str) -> dict[str, float | None]:
    """tune_loss, and tune_auc with its 95 % limits at `unit`: of the finding, or the mean over
    findings (over classes: each against the rest).

    The AUC is exact and its interval counts patients (medres.evaluate); None where it is undefined.
    """
    auc = tuning_auc(logits, unit)
    return {
        "tune_loss": mean_loss(logits.scores, logits.targets),
        "tune_auc": auc.estimate,
        "tune_auc_low": auc.ci_low,
        "tune_auc_high": auc.ci_high,
    }


def tuning_auc(logits: ScoredImages, unit: str) -> Estimate:
    """The AUC at `unit` from logits of images."""
    if logits.task.exclusive:  # softmax changes the ranking of images by one class
        logits = dataclasses.replace(logits, scores=probabilities(logits))
    return units_auc(logits.units(unit))


def units_auc(units: AnalysisUnits) -> Estimate:
    """The AUC of the finding, or the mean AUC over findings or classes."""
    if len(units.names) == 1:
        return auc_estimates(units.sample(units.names[0]), LEVEL).auc
    return macro_auc(units, LEVEL).auc


def probabilities(logits: ScoredImages) -> np.ndarray:
    """float64 (n, outputs): the softmax for classes, the sigmoid for findings."""
    z = logits.scores.astype(np.float64)
    if not logits.task.exclusive:
        return expit(z)
    shifted = np.exp(z - z.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)

"""What the tuning split says about an epoch: its loss, and the exact AUC with an interval that
knows patients.
"""

from __future__ import annotations

import numpy as np

from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.calibration import expit
from medres.evaluate.metrics.macro import macro_auc
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.estimate import Estimate
from medres.training.data import ScoredImages
from medres.training.losses import mean_loss

LEVEL = 0.95


def tuning_row(logits: ScoredImages, unit: str) -> dict[str, float | None]:
    """tune_loss, and tune_auc with its 95 % limits at `unit`: of the finding, or the mean over
    findings (classes: one against the rest).

    The AUC is exact and its interval counts patients (medres.evaluate); None where it is not
    defined.
    """
    auc = tuning_auc(logits, unit)
    return {
        "tune_loss": mean_loss(logits.scores, logits.targets),
        "tune_auc": auc.estimate,
        "tune_auc_low": auc.ci_low,
        "tune_auc_high": auc.ci_high,
    }


def tuning_auc(logits: ScoredImages, unit: str) -> Estimate:
    if logits.targets.task == "multiclass":
        logits = ScoredImages(probabilities(logits), logits.targets, logits.table)
    return units_auc(logits.units(unit))


def units_auc(units: AnalysisUnits) -> Estimate:
    """Of the finding, or the mean over findings or classes."""
    if len(units.names) == 1:
        return auc_estimates(units.sample(units.names[0]), LEVEL).auc
    return macro_auc(units, LEVEL).auc


def probabilities(logits: ScoredImages) -> np.ndarray:
    """Softmax for classes, else the sigmoid; float64 (n, outputs)."""
    z = logits.scores.astype(np.float64)
    if logits.targets.task != "multiclass":
        return expit(z)
    shifted = np.exp(z - z.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)

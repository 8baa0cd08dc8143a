"""Decision curves (Vickers & Elkin 2006): net benefit of acting on the model, on everyone, on no one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.estimates import Estimate
from medres.evaluate.intervals import t_quantile
from medres.evaluate.roc import Ints, Sample

GRID = tuple(round(0.01 + 0.02 * i, 2) for i in range(50))


def decision_curve(sample: Sample, prevalence: float | None, level: float) -> dict[str, Any]:
    """Net benefit per unit at threshold probabilities .01 to .99, for probabilities as scores and both classes.

    `prevalence` reweighs the classes to a stated prevalence; None takes the sample's own. `interventions_avoided`:
    net reduction per unit against acting on everyone, without missing more.
    """
    model, everyone, avoided = [], [], []
    everybody = np.ones(sample.label.size, dtype=bool)
    for threshold in GRID:
        weight = threshold / (1.0 - threshold)
        model.append(net_benefit(sample, sample.score >= threshold, weight, prevalence, level))
        everyone.append(net_benefit(sample, everybody, weight, prevalence, level))
        avoided.append((float(model[-1].estimate or 0.0) - float(everyone[-1].estimate or 0.0)) / weight)
    share = sample.n_positive / sample.label.size if prevalence is None else prevalence
    return {
        "prevalence": share, "threshold": list(GRID), "model": model, "all": everyone, "interventions_avoided": avoided
    }  # fmt: skip


def net_benefit(
    sample: Sample, acted: NDArray[np.bool_], weight: float, prevalence: float | None, level: float
) -> Estimate:
    """True positives less `weight` (odds of the threshold) times false positives, per unit; patient sandwich, t."""
    n = sample.label.size
    share = sample.n_positive / n if prevalence is None else prevalence
    tpr = float(acted[sample.label].mean())
    fpr = float(acted[~sample.label].mean())
    value = tpr * share - fpr * (1.0 - share) * weight
    if prevalence is None:
        influence = (acted * np.where(sample.label, 1.0, -weight) - value) / n
    else:
        hit = np.where(sample.label, (acted - tpr) * share / sample.n_positive, 0.0)
        false = np.where(sample.label, 0.0, (acted - fpr) * (1.0 - share) * weight / sample.n_negative)
        influence = hit - false
    return _wald(value, influence, sample.patient, level)


def _wald(value: float, influence: NDArray[np.float64], patient: Ints, level: float) -> Estimate:
    by_patient = np.bincount(patient, influence)
    groups = int(np.count_nonzero(np.bincount(patient)))
    variance = groups / (groups - 1) * float(by_patient @ by_patient) if groups > 1 else 0.0
    if variance < 1e-24:
        return Estimate(value, why="the estimated variance is zero: no interval of this kind", n=influence.size)
    half = t_quantile(level, groups - 1) * math.sqrt(variance)
    return Estimate(
        value, value - half, value + half, level, "two", "net benefit, patient sandwich, t", n=influence.size
    )

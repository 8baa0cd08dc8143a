"""Decision curves (Vickers & Elkin 2006): net benefit of acting on the model, on everyone, on no
one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.results import DecisionCurve
from medres.evaluate.scores.sample import Float64Array, Sample
from medres.evaluate.statistics.clusters import ClusteredVariance, Clusters
from medres.evaluate.statistics.estimate import Estimate

ZERO_VARIANCE = "the estimated variance is zero: no interval of this kind"
GRID = tuple(round(0.01 + 0.02 * i, 2) for i in range(50))


def decision_curve_report(
    sample: Sample, prevalence: float | None, level: float, prior: float | None = None
) -> DecisionCurve:
    """Net benefit per unit at threshold probabilities .01 to .99, for probabilities as scores and
    both classes.

    `prevalence` reweighs the classes to a stated prevalence; None takes the sample's own.
    `interventions_avoided`: net reduction per unit against acting on everyone, without missing
    more. prior: the prevalence at which the scores are risks; then `recalibrated` acts on the risks
    moved to the stated prevalence.
    """
    model, everyone, avoided = [], [], []
    moved: Float64Array | None = None
    if prevalence is not None and prior is not None:
        moved = at_prevalence(sample.score, prior, prevalence)
    recalibrated: list[Estimate] | None = None if moved is None else []
    everybody = np.ones(sample.label.size, dtype=bool)
    all_acted = _acted(sample, everybody)
    for threshold in GRID:
        weight = threshold / (1.0 - threshold)
        model.append(
            _net_benefit(
                sample,
                _part(sample, sample.score >= threshold, all_acted),
                weight,
                prevalence,
                level,
            )
        )
        everyone.append(_net_benefit(sample, all_acted, weight, prevalence, level))
        if moved is not None and recalibrated is not None:
            acted = _part(sample, moved >= threshold, all_acted)
            recalibrated.append(_net_benefit(sample, acted, weight, prevalence, level))
        avoided.append(
            (float(model[-1].estimate or 0.0) - float(everyone[-1].estimate or 0.0)) / weight
        )
    share = sample.n_positive / sample.label.size if prevalence is None else prevalence
    return DecisionCurve(
        share,
        list(GRID),
        model,
        everyone,
        interventions_avoided=avoided,
        recalibrated=recalibrated,
        prevalence_source="sample" if prevalence is None else "stated",
    )


def at_prevalence(risk: Float64Array, prior: float, prevalence: float) -> Float64Array:
    """Risks (n,) that hold at one prevalence, moved to another one by the ratio of the prior odds
    (Bayes; Saerens, Latinne & Decaestecker 2002).

    >>> at_prevalence(np.array([0.0, 0.5, 1.0]), 0.5, 0.1).tolist()
    [0.0, 0.1, 1.0]
    """
    yes, no = risk * (prevalence / prior), (1.0 - risk) * ((1.0 - prevalence) / (1.0 - prior))
    return yes / (yes + no)


def net_benefit(
    sample: Sample, acted: NDArray[np.bool_], weight: float, prevalence: float | None, level: float
) -> Estimate:
    """True positives less `weight` (odds of the threshold) times false positives, per unit; patient
    sandwich, t.
    """
    return _net_benefit(sample, _acted(sample, acted), weight, prevalence, level)


@dataclass(frozen=True)
class _Acted:
    """By patient code: true and false positives, units with and without the finding. clusters:
    for figures at the prevalence of the sample, and at a stated one.
    """

    tp: Float64Array
    fp: Float64Array
    positive: Float64Array
    negative: Float64Array
    clusters: tuple[Clusters, Clusters]


def _acted(sample: Sample, acted: NDArray[np.bool_]) -> _Acted:
    positive, negative = _by_patient(sample, sample.label), _by_patient(sample, ~sample.label)
    sizes = [positive, negative] if sample.unequal else [np.ones(sample.n_patients)]
    clusters = Clusters(sizes, of_all=True), Clusters(sizes)
    return _part(sample, acted, _Acted(positive, negative, positive, negative, clusters))


def _part(sample: Sample, acted: NDArray[np.bool_], everybody: _Acted) -> _Acted:
    return replace(
        everybody,
        tp=_by_patient(sample, acted & sample.label),
        fp=_by_patient(sample, acted & ~sample.label),
    )


def _by_patient(sample: Sample, chosen: NDArray[np.bool_]) -> Float64Array:
    if not sample.clustered:
        return chosen.astype(np.float64)
    groups = int(sample.patient.max()) + 1
    return np.bincount(sample.patient[chosen], minlength=groups).astype(np.float64)


def _net_benefit(
    sample: Sample, acted: _Acted, weight: float, prevalence: float | None, level: float
) -> Estimate:
    n, n1, n0 = sample.label.size, sample.n_positive, sample.n_negative
    tp, fp = float(acted.tp.sum()), float(acted.fp.sum())
    if prevalence is None:
        value = (tp - weight * fp) / n
        parts = [
            (acted.tp - value * acted.positive) / n,
            (-weight * acted.fp - value * acted.negative) / n,
        ]
    else:
        harm = (1.0 - prevalence) * weight
        value = tp / n1 * prevalence - fp / n0 * harm
        parts = [
            (acted.tp - tp / n1 * acted.positive) * prevalence / n1,
            (fp / n0 * acted.negative - acted.fp) * harm / n0,
        ]
    if sample.n_patients < 2:
        return Estimate(value, why=ZERO_VARIANCE, n=n)
    clusters = acted.clusters[0 if prevalence is None else 1]
    found = clusters.variance(parts if sample.unequal else [parts[0] + parts[1]])
    return _wald(value, found, n, level)


def _wald(value: float, found: ClusteredVariance, n: int, level: float) -> Estimate:
    variance = found.variance
    if variance is None:
        return Estimate(value, why=found.why, n=n)
    if variance < 1e-24:
        return Estimate(value, why=ZERO_VARIANCE, n=n)
    half = found.quantile(level) * math.sqrt(variance)
    return Estimate(
        value,
        value - half,
        value + half,
        level,
        "two",
        "net benefit, sandwich variance clustered by patient, t",
        n=n,
        effective_patients=found.effective_patients,
        flag=found.flag,
    )

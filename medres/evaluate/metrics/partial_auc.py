"""Parts of the ROC curve: partial areas, and sensitivity at a fixed specificity (and the
reverse).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from medres.evaluate.results import PartialAuc, RateAtFixed
from medres.evaluate.scores.sample import Counts, Int64Array, Sample, rank_counts
from medres.evaluate.statistics.bootstrap import Statistic, percentile_estimate, resampled
from medres.evaluate.statistics.estimate import Estimate, undefined

RANGES = (("specificity", 0.8, 1.0), ("sensitivity", 0.8, 1.0))
FIXED = (("specificity", 0.9), ("sensitivity", 0.9))


def partial_auc(counts: Counts, axis: str, low: float, high: float) -> float:
    """Area over `low`..`high` of one axis: of sensitivity over 1 - specificity, or of specificity
    over sensitivity.
    """
    if axis == "specificity":
        return _area(
            counts.fp, counts.tp, counts.n_negative, counts.n_positive, 1.0 - high, 1.0 - low
        )
    return (high - low) - _area(
        counts.tp, counts.fp, counts.n_positive, counts.n_negative, low, high
    )


def standardised(area: float, low: float, high: float) -> float:
    """McClish 1989: .5 is chance, 1 is perfect, on the same range of either axis."""
    chance = (high - low) - (high**2 - low**2) / 2.0
    return 0.5 * (1.0 + (area - chance) / ((high - low) - chance))


def sensitivity_at(counts: Counts, specificity: float) -> float:
    """The highest sensitivity of any threshold whose specificity is at least the given one."""
    allowed = counts.fp <= (1.0 - specificity) * counts.n_negative + 1e-9
    return float(counts.tp[allowed].max(initial=0)) / counts.n_positive


def specificity_at(counts: Counts, sensitivity: float) -> float:
    """The highest specificity of any threshold whose sensitivity is at least the given one."""
    allowed = counts.tp >= sensitivity * counts.n_positive - 1e-9
    return 1.0 - float(counts.fp[allowed].min()) / counts.n_negative


def partial_auc_report(
    sample: Sample, level: float, replicates: int
) -> tuple[list[PartialAuc], list[RateAtFixed]]:
    """Partial areas (RANGES), and rates at a fixed value of the other (FIXED), with percentile
    intervals over patients.
    """
    if sample.n_positive == 0 or sample.n_negative == 0:
        null = undefined("one class only", n=sample.label.size)
        return _shaped(dict.fromkeys(_statistics(), null))
    counts = rank_counts(sample.label, sample.score)
    statistics = _statistics()
    draws = resampled(sample, statistics, replicates)
    estimates = {}
    for name, statistic in statistics.items():
        estimates[name] = percentile_estimate(
            statistic(counts),
            draws[name],
            level,
            "percentile bootstrap of patients",
            sample.label.size,
            sample.n_patients,
        )
    return _shaped(estimates)


def _statistics() -> dict[str, Statistic]:
    statistics: dict[str, Statistic] = {
        f"area {axis}": partial(partial_auc, axis=axis, low=low, high=high)
        for axis, low, high in RANGES
    }
    for axis, value in FIXED:
        rate = sensitivity_at if axis == "specificity" else specificity_at
        statistics[f"fixed {axis}"] = partial(_at, rate=rate, value=value)
    return statistics


def _at(counts: Counts, rate: Callable[[Counts, float], float], value: float) -> float:
    return rate(counts, value)


def _shaped(estimates: dict[str, Estimate]) -> tuple[list[PartialAuc], list[RateAtFixed]]:
    areas = [
        PartialAuc(axis, low, high, raw, _standardised(raw, low, high))
        for axis, low, high in RANGES
        for raw in (estimates[f"area {axis}"],)
    ]
    rates = []
    for axis, value in FIXED:
        rate = estimates[f"fixed {axis}"]
        if axis == "specificity":
            rates.append(RateAtFixed(axis, value, sensitivity=rate))
        else:
            rates.append(RateAtFixed(axis, value, specificity=rate))
    return areas, rates


def _standardised(raw: Estimate, low: float, high: float) -> Estimate:
    def rescaled(value: float | None) -> float | None:
        return None if value is None else standardised(value, low, high)

    return replace(
        raw,
        estimate=rescaled(raw.estimate),
        ci_low=rescaled(raw.ci_low),
        ci_high=rescaled(raw.ci_high),
    )


def _area(
    along: Int64Array, up: Int64Array, n_along: int, n_up: int, low: float, high: float
) -> float:
    """Trapezoidal area under up / n_up over along / n_along (cumulative counts) between two values
    of the latter.
    """
    start = max(0, int(np.searchsorted(along, low * n_along, "right")) - 1)
    stop = int(np.searchsorted(along, high * n_along, "right")) + 1
    x, y = along[start:stop] / n_along, up[start:stop] / n_up
    if start == 0:
        x, y = np.concatenate([[0.0], x]), np.concatenate([[0.0], y])
    inside = (x > low) & (x <= high)
    ends = np.interp([low, high], x, y)
    xs = np.concatenate([[low], x[inside], [high]])
    ys = np.concatenate([[ends[0]], y[inside], [ends[1]]])
    return float(np.sum(np.diff(xs) * (ys[1:] + ys[:-1]))) / 2.0

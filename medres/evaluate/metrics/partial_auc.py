"""Parts of the ROC curve: partial areas, and sensitivity at a fixed specificity (and the
reverse).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from medres.evaluate.results import PartialAuc, RateAtFixed
from medres.evaluate.scores.sample import Counts, Float64Array, Int64Array, Sample
from medres.evaluate.statistics.bootstrap import (
    ENOUGH_FOR_PERCENTILES,
    Statistic,
    coarsened,
    percentile_estimate,
    resampled,
    score_limits,
)
from medres.evaluate.statistics.clusters import degrees, t_quantile
from medres.evaluate.statistics.estimate import Estimate, undefined

Range = tuple[str, float, float]  # axis ("specificity" or "sensitivity"), low, high
RANGES: tuple[Range, ...] = (("specificity", 0.8, 1.0), ("sensitivity", 0.8, 1.0))
FIXED = (("specificity", 0.9), ("sensitivity", 0.9))
PERCENTILE = "percentile bootstrap of patients"
SCORE = "score interval on the variance of the bootstrap of patients, t"


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


def bootstrap_statistics(
    sample: Sample, ranges: tuple[Range, ...] = RANGES
) -> dict[str, Statistic]:
    """What the bootstrap of `partial_auc_report` computes of each draw."""
    smaller = min(sample.effective_patients(True), sample.effective_patients(False))
    plotted = _plotted_statistics(sample, ranges) if smaller < ENOUGH_FOR_PERCENTILES else {}
    return {**_statistics(ranges), **plotted}


def partial_auc_report(
    sample: Sample,
    level: float,
    replicates: int,
    ranges: tuple[Range, ...] = RANGES,
    draws: Mapping[str, Float64Array] | None = None,
) -> tuple[list[PartialAuc], list[RateAtFixed]]:
    """Partial areas over `ranges`, and rates at a fixed value of the other (FIXED), with percentile
    intervals over patients, or score intervals if the smaller class has few of them. draws: of
    `bootstrap_statistics`, if they exist already.
    """
    if sample.n_positive == 0 or sample.n_negative == 0:
        null = undefined("one class only", n=sample.label.size)
        return _shaped(dict.fromkeys(_statistics(ranges), null), ranges)
    counts = sample.counts
    smaller = min(sample.effective_patients(True), sample.effective_patients(False))
    statistics = _statistics(ranges)
    plotted = _plotted_statistics(sample, ranges) if smaller < ENOUGH_FOR_PERCENTILES else {}
    if draws is None:
        draws = resampled(coarsened(sample), {**statistics, **plotted}, replicates)
    quantile = t_quantile(level, degrees(smaller))
    estimates = {}
    for name, statistic in statistics.items():
        estimate = percentile_estimate(
            statistic(counts), draws[name], level, PERCENTILE, sample.label.size, sample.n_patients
        )
        if plotted and estimate.bounds is not None:
            smooth = f"plotted {name}"
            error = max(float(np.nanstd(draws[key], ddof=1)) for key in (name, smooth))
            low, high = _score_limits(
                name, estimate.estimate or 0.0, plotted[smooth](counts), error, sample, quantile
            )
            estimate = replace(estimate, ci_low=low, ci_high=high, method=SCORE)
        estimates[name] = estimate
    return _shaped(estimates, ranges)


def _score_limits(
    name: str, value: float, plotted: float, error: float, sample: Sample, quantile: float
) -> tuple[float, float]:
    """Limits for few patients: the lower one from plotting positions, which allow for scores beyond
    those of the sample."""
    slope, intercept = _scale(name)
    centers = [min(1.0, max(0.0, slope * x + intercept)) for x in (plotted, value)]
    most = sample.effective_patients(True) + sample.effective_patients(False)
    low, high = (
        (limit - intercept) / slope
        for limit in score_limits(min(centers), max(centers), slope * error, most, quantile)
    )
    return min(max(0.0, low), value), max(high, value)


def _scale(name: str) -> tuple[float, float]:
    """Slope and intercept that map a figure to 0..1: McClish's for an area."""
    kind, _, *limits = name.split(" ")
    if kind != "area":
        return 1.0, 0.0
    low, high = (float(limit) for limit in limits)
    intercept = standardised(0.0, low, high)
    return (standardised(high - low, low, high) - intercept) / (high - low), intercept


def _area_name(axis: str, low: float, high: float) -> str:
    return f"area {axis} {low!r} {high!r}"


def _plotted_statistics(sample: Sample, ranges: tuple[Range, ...]) -> dict[str, Statistic]:
    """The same figures from plotting positions: of k patients, each gap between neighboring scores
    of a class, and beyond the outermost, holds 1 / (k + 1) of the class.
    """
    patients = {axis: sample.effective_patients(axis == "sensitivity") for axis, _ in FIXED}
    statistics: dict[str, Statistic] = {
        f"plotted {_area_name(axis, low, high)}": partial(
            _plotted_area, axis=axis, low=low, high=high, patients=patients[axis]
        )
        for axis, low, high in ranges
    }
    for axis, value in FIXED:
        statistics[f"plotted fixed {axis}"] = partial(
            _plotted_at, axis=axis, value=value, patients=patients[axis]
        )
    return statistics


def _plotted(counts: Counts, axis: str, patients: float) -> tuple[Float64Array, Float64Array]:
    """(x, y) of the ROC curve along 1 - specificity or along sensitivity, at the scores of the
    class of that axis."""
    along, up, n_along, n_up = counts.tp, counts.fp, counts.n_positive, counts.n_negative
    if axis == "specificity":
        along, up, n_along, n_up = up, along, n_up, n_along
    rises = np.diff(along, prepend=0) > 0
    x = along[rises] / n_along * (patients / (patients + 1.0))
    y = up[rises] / n_up
    return np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]])


def _plotted_area(counts: Counts, axis: str, low: float, high: float, patients: float) -> float:
    x, y = _plotted(counts, axis, patients)
    if axis == "specificity":
        return _trapezoid(x, y, 1.0 - high, 1.0 - low)
    return (high - low) - _trapezoid(x, y, low, high)


def _plotted_at(counts: Counts, axis: str, value: float, patients: float) -> float:
    x, y = _plotted(counts, axis, patients)
    if axis == "specificity":
        return float(np.interp(1.0 - value, x, y))
    return 1.0 - float(np.interp(value, x, y))


def _statistics(ranges: tuple[Range, ...]) -> dict[str, Statistic]:
    statistics: dict[str, Statistic] = {
        _area_name(axis, low, high): partial(partial_auc, axis=axis, low=low, high=high)
        for axis, low, high in ranges
    }
    for axis, value in FIXED:
        rate = sensitivity_at if axis == "specificity" else specificity_at
        statistics[f"fixed {axis}"] = partial(_at, rate=rate, value=value)
    return statistics


def _at(counts: Counts, rate: Callable[[Counts, float], float], value: float) -> float:
    return rate(counts, value)


def _shaped(
    estimates: dict[str, Estimate], ranges: tuple[Range, ...]
) -> tuple[list[PartialAuc], list[RateAtFixed]]:
    areas = [
        PartialAuc(axis, low, high, raw, _standardised(raw, low, high))
        for axis, low, high in ranges
        for raw in (estimates[_area_name(axis, low, high)],)
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
    return _trapezoid(x, y, low, high)


def _trapezoid(x: Float64Array, y: Float64Array, low: float, high: float) -> float:
    """Area under the polygon through (x, y), x rising, between two values of x."""
    inside = (x > low) & (x <= high)
    ends = np.interp([low, high], x, y)
    xs = np.concatenate([[low], x[inside], [high]])
    ys = np.concatenate([[ends[0]], y[inside], [ends[1]]])
    return float(np.sum(np.diff(xs) * (ys[1:] + ys[:-1]))) / 2.0

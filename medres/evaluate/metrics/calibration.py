"""Calibration of probabilities: in-the-large, slope and intercept, O:E, Brier, ECE, the reliability
curve.

Weak calibration follows Cox 1958 with a sandwich variance by patient. Scores must lie in 0..1; for
the logit they are clipped to 1e-6 .. 1 - 1e-6, and the page says how many were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from medres.evaluate.results import BrierDecomposition, ReliabilityBin
from medres.evaluate.scores.sample import Float64Array, Int64Array, Sample, compact_codes
from medres.evaluate.statistics.clusters import by_class_and_patient, clustered_variance
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import (
    MAX_LOG_HALF_WIDTH,
    mean_in_unit_range,
    normal_quantile,
    proportion_estimate,
)

CLIP = 1e-6
SLOPE_COVERAGE = 88  # %: the lowest of the Cox slope (not few patients) in benchmarks/RESULTS.md
ECE_BINS = 10


@dataclass(frozen=True)
class CalibrationEstimates:
    """What calibration.py itself estimates; the ICI comes from calibration_curve.py."""

    slope: Estimate
    intercept: Estimate
    in_the_large: Estimate
    oe_ratio: Estimate
    ece: Estimate


def calibration_estimates(sample: Sample, level: float) -> CalibrationEstimates:
    """Slope, intercept, calibration in the large, O:E ratio and ECE of probabilities; without a
    number, and with the reason, if one is undefined.
    """
    logit, groups = clipped_logit(sample.score), _cluster(sample)
    intercept, slope = _cox(sample, logit, groups, level)
    return CalibrationEstimates(
        slope=slope,
        intercept=intercept,
        in_the_large=_in_the_large(sample, logit, groups, level),
        oe_ratio=_observed_over_expected(sample, groups, level),
        ece=Estimate(
            expected_calibration_error(sample.label, sample.score),
            method=f"{ECE_BINS} bins of equal width",
            n=sample.label.size,
            why="no interval: the resampled error is biased away from zero",
        ),
    )


def brier_estimate(sample: Sample, level: float) -> Estimate:
    """Mean squared distance of probability and label."""
    squared = (sample.score - sample.label) ** 2
    return mean_in_unit_range(
        squared,
        sample.patient,
        level,
        "mean, sandwich variance clustered by patient, logit",
        sample.label,
    )


def brier_decomposition(sample: Sample) -> BrierDecomposition:
    """CORP (Dimitriadis, Gneiting & Jordan 2021): Brier = miscalibration - discrimination +
    uncertainty.
    """
    label = sample.label.astype(np.float64)
    order = np.lexsort((-label, sample.score))
    fitted = np.empty(label.size)
    fitted[order] = _pooled(label[order], sample.score[order])
    score, recalibrated = (
        float(np.mean((sample.score - label) ** 2)),
        float(np.mean((fitted - label) ** 2)),
    )
    uncertainty = float(label.mean() * (1.0 - label.mean()))
    return BrierDecomposition(
        miscalibration=score - recalibrated,
        discrimination=uncertainty - recalibrated,
        uncertainty=uncertainty,
    )


def expected_calibration_error(label: Int64Array | np.ndarray, score: Float64Array) -> float:
    """Mean |observed - predicted| over equal-width bins [0, .1), ... [.9, 1]; 0 and 1 fall into
    real bins.
    """
    bin_of = np.minimum((score * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    observed = np.bincount(bin_of, label, minlength=ECE_BINS)
    expected = np.bincount(bin_of, score, minlength=ECE_BINS)
    return float(np.abs(observed - expected).sum() / score.size)


def reliability(sample: Sample, level: float, bins: int = 10) -> list[ReliabilityBin]:
    """Bins with about as many units each, ties kept together: mean probability, observed share with
    its interval.
    """
    cuts = sample.score[sample.ascending][(np.arange(1, bins) * sample.score.size) // bins]
    bin_of = np.searchsorted(np.unique(cuts), sample.score, "right")
    curve = []
    for i in np.unique(bin_of):
        inside = bin_of == i
        observed = proportion_estimate(sample.label[inside], sample.patient[inside], level)
        curve.append(ReliabilityBin(float(sample.score[inside].mean()), observed))
    return curve


def clipped_logit(score: Float64Array) -> Float64Array:
    p = np.clip(score, CLIP, 1.0 - CLIP)
    return np.log(p / (1.0 - p))


def n_clipped(score: Float64Array) -> int:
    return int(np.count_nonzero((score < CLIP) | (score > 1.0 - CLIP)))


def logistic(
    design: Float64Array,
    successes: NDArray[Any],
    offset: Float64Array,
    trials: Float64Array | None = None,
) -> Float64Array | None:
    """Maximum-likelihood coefficients by Newton's method with halved steps; None if they do not
    exist (separation).

    successes (n,): labels, or numbers of positives among `trials` (n,).
    """
    total = np.ones(design.shape[0]) if trials is None else trials
    beta = np.zeros(design.shape[1])
    now = _log_likelihood(design, successes, total, offset, beta)
    for _ in range(50):
        mean = expit(design @ beta + offset)
        information = design.T @ (design * (total * mean * (1.0 - mean))[:, None])
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, design.T @ (successes - total * mean))
        after = _log_likelihood(design, successes, total, offset, beta + step)
        while after < now - 1e-9 and np.abs(step).max() > 1e-12:
            step = step / 2.0
            after = _log_likelihood(design, successes, total, offset, beta + step)
        beta, now = beta + step, after
        if np.abs(step).max() < 1e-10:
            return beta
    return None


def coefficient_influence(
    design: Float64Array, label: np.ndarray, offset: Float64Array, beta: Float64Array
) -> Float64Array:
    """(n, k) what each unit adds to the coefficients; squares of sums over a patient make the
    sandwich variance."""
    mean = expit(design @ beta + offset)
    bread = np.linalg.inv(design.T @ (design * (mean * (1.0 - mean))[:, None]))
    return np.asarray(design * (label - mean)[:, None] @ bread)


class _Coefficient(NamedTuple):
    """coverage: % of its 95% intervals in simulations of very unequal patients, if it was low."""

    text: str
    coverage: int | None = None


def _cox(
    sample: Sample, logit: Float64Array, groups: Int64Array, level: float
) -> tuple[Estimate, Estimate]:
    """(intercept, slope) of the logistic regression of the label on the logit."""
    if np.ptp(logit) < 1e-12:
        null = undefined("all probabilities are equal: the slope is undefined")
        return null, null
    # fitted on a standard scale, because the logits of a dead model hardly differ
    center, spread = float(logit.mean()), float(logit.std())
    design = np.column_stack([np.ones(logit.size), (logit - center) / spread])
    back = np.array([[1.0, -center / spread], [0.0, 1.0 / spread]])
    names = (_Coefficient("Cox intercept"), _Coefficient("Cox slope", SLOPE_COVERAGE))
    intercept, slope = _fit(sample, design, np.zeros(logit.size), groups, level, names, back)
    return intercept, slope


def _in_the_large(
    sample: Sample, logit: Float64Array, groups: Int64Array, level: float
) -> Estimate:
    design = np.ones((logit.size, 1))
    names = (_Coefficient("intercept with the slope fixed at 1"),)
    return _fit(sample, design, logit, groups, level, names, np.eye(1))[0]


def _fit(
    sample: Sample,
    design: Float64Array,
    offset: Float64Array,
    groups: Int64Array,
    level: float,
    names: tuple[_Coefficient, ...],
    back: Float64Array,
) -> tuple[Estimate, ...]:
    """One estimate per name: the coefficients of the logistic regression, transformed by the matrix
    `back`.
    """
    if sample.n_positive == 0 or sample.n_negative == 0:
        return (undefined("one class only"),) * len(names)
    beta = logistic(design, sample.label, offset)
    if beta is None:
        return (
            undefined("the classes are perfectly separated: no maximum-likelihood estimate exists"),
        ) * len(names)
    g, n = int(groups.max()) + 1, sample.label.size
    coefficients = back @ beta
    if g < 3:
        return tuple(
            Estimate(float(b), why="fewer than three patients: no interval", n=n)
            for b in coefficients
        )
    influence = coefficient_influence(design, sample.label, offset, beta) @ back.T
    return tuple(
        _wald(float(b), by_class_and_patient(sample.label, groups, column), name, level, n)
        for b, column, name in zip(coefficients, influence.T, names, strict=True)
    )


def _wald(
    value: float,
    parts_and_sizes: tuple[list[Float64Array], list[Int64Array]],
    name: _Coefficient,
    level: float,
    n: int,
) -> Estimate:
    found = clustered_variance(*parts_and_sizes, of_all=True)
    estimate = partial(
        Estimate,
        value,
        n=n,
        n_clusters=parts_and_sizes[0][0].size,
        effective_patients=found.effective_patients,
        flag=found.flag_if_unequal(name.coverage),
    )
    if found.variance is None:
        return estimate(why=found.why)
    half = found.quantile(level) * math.sqrt(found.variance)
    method = f"{name.text}, sandwich variance clustered by patient, t"
    return estimate(value - half, value + half, level, "two", method)


def _observed_over_expected(sample: Sample, groups: Int64Array, level: float) -> Estimate:
    """Observed over expected positives; log method on the patients' (observed - ratio x
    expected).
    """
    observed, expected = float(sample.n_positive), float(sample.score.sum())
    n = sample.label.size
    if expected < CLIP:
        why = "the probabilities add up to nearly zero"
        return undefined(why, n=n, numerator=observed, denominator=expected)
    ratio, g = observed / expected, int(groups.max()) + 1
    estimate = partial(Estimate, ratio, n=n, numerator=observed, denominator=expected)
    if observed == 0.0 or g < 2:
        return estimate(why="the log method needs a positive unit and two patients")
    parts = (sample.label - ratio * sample.score) / observed
    found = clustered_variance(*by_class_and_patient(sample.label, groups, parts), of_all=True)
    estimate = partial(estimate, effective_patients=found.effective_patients, flag=found.flag)
    if found.variance is None:
        return estimate(why=found.why)
    error = math.sqrt(found.variance)
    if error < 1e-12:
        return estimate(why="the estimated variance is zero: no interval of this kind")
    half = found.quantile(level) * error if sample.clustered else normal_quantile(level) * error
    if half > MAX_LOG_HALF_WIDTH:
        return estimate(why="the interval is too wide to be meaningful")
    low, high = ratio * math.exp(-half), ratio * math.exp(half)
    return estimate(low, high, level, "two", "log method by patient", n_clusters=g)


def _cluster(sample: Sample) -> Int64Array:
    return compact_codes(sample.patient)[0]


def _pooled(label: Float64Array, score: Float64Array) -> Float64Array:
    """Isotonic fit of the labels on the scores; equal scores get one value."""
    first = np.flatnonzero(np.append(True, score[1:] != score[:-1]))
    size = np.diff(np.append(first, score.size)).astype(np.float64)
    means = np.add.reduceat(label, first) / size
    fit = optimize.isotonic_regression(means, weights=size).x
    return np.repeat(fit, size.astype(np.int64))


def expit(x: Float64Array) -> Float64Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _log_likelihood(
    design: Float64Array,
    successes: NDArray[Any],
    trials: Float64Array,
    offset: Float64Array,
    beta: Float64Array,
) -> float:
    eta = design @ beta + offset
    return float(np.sum(successes * eta - trials * np.logaddexp(0.0, eta)))

"""The flexible calibration curve and its index ICI (Austin & Steyerberg 2019).

A logistic regression of the label on a restricted cubic spline of the logit (four knots at the .05,
.35, .65 and .95 quantiles, Harrell 2015); ICI is the mean distance of its curve from the diagonal.
Resampling moves the ICI away from zero, so only an upper bound is given. Units with the same (or
nearly the same) probability are grouped for speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from medres.evaluate.metrics.calibration import clipped_logit, expit, logistic
from medres.evaluate.metrics.roc import by_group
from medres.evaluate.results import FlexibleCurve
from medres.evaluate.scores.sample import (
    Float64Array,
    Int64Array,
    Sample,
    compact_codes,
    effective_number,
)
from medres.evaluate.statistics.bootstrap import LARGE
from medres.evaluate.statistics.clusters import few_effective
from medres.evaluate.statistics.estimate import Estimate, undefined

KNOTS = (0.05, 0.35, 0.65, 0.95)
MAX_GROUPS = 1000
ICI_REPLICATES = 200
MAX_WORK = 50_000_000  # units x replicates; above it there are fewer, but at least MIN_REPLICATES
MIN_REPLICATES = 100
MIN_FOR_CURVE = 200
SEED = 20240301
CURVE_POINTS = 60
TOO_FEW_VALUES = "too few different probabilities for a curve"
SEPARATED = "the classes are perfectly separated: the curve does not exist"
MIN_GAP = 1e-4  # between two knots, in logits: below it there is no useful curve


@dataclass(frozen=True)
class Grouped:
    """Units by probability: group (n,) of each unit; probability (k,), the mean in each group;
    basis (k, 4) of the spline.
    """

    group: Int64Array
    probability: Float64Array
    basis: Float64Array
    knots: Float64Array


def ici_estimate(sample: Sample, level: float) -> Estimate:
    """Mean |predicted - smoothed observed|, with a one-sided upper bound from a bootstrap of
    patients.
    """
    n = sample.label.size
    if sample.n_positive == 0 or sample.n_negative == 0:
        return undefined("one class only", n=n)
    grouped = grouped_spline(sample.score)
    if grouped is None:
        return undefined(TOO_FEW_VALUES, n=n)
    value = _ici(grouped, *_trials(grouped, sample.label.astype(np.float64), np.ones(n)))
    if value is None:
        return undefined(SEPARATED, n=n)
    draws = _draws(grouped, sample)
    defined = draws[~np.isnan(draws)]
    estimate = partial(
        Estimate,
        value,
        replicates=draws.size,
        replicates_undefined=draws.size - defined.size,
        n=n,
    )
    if defined.size < 0.9 * draws.size:
        return estimate(
            why="in more than 10% of the bootstrap samples the curve does not exist: no bound"
        )
    high = max(value, float(np.quantile(defined, (1.0 + level) / 2.0)))
    method = "spline of four knots; upper bound by bootstrap of patients"
    patients = effective_number(np.bincount(sample.patient)) if sample.clustered else None
    flag = None if patients is None else few_effective(patients)
    return estimate(0.0, high, level, "one", method, n_clusters=sample.n_patients, flag=flag)


def flexible_curve(sample: Sample) -> FlexibleCurve | None:
    """As `curve_or_why`, with None for the reason."""
    curve = curve_or_why(sample)
    return None if isinstance(curve, str) else curve


def curve_or_why(sample: Sample) -> FlexibleCurve | str:
    """The curve at CURVE_POINTS quantiles of the probability; or why there is none: a class has
    fewer than 200 units, or the curve does not exist.
    """
    if min(sample.n_positive, sample.n_negative) < MIN_FOR_CURVE:
        return (
            f"it needs at least {MIN_FOR_CURVE} with and {MIN_FOR_CURVE} without the finding, and "
            f"there are {sample.n_positive} and {sample.n_negative}"
        )
    grouped = grouped_spline(sample.score)
    beta = (
        None
        if grouped is None
        else _fit(
            grouped,
            *_trials(grouped, sample.label.astype(np.float64), np.ones(sample.label.size)),
        )
    )
    if grouped is None:
        return TOO_FEW_VALUES
    if beta is None:
        return SEPARATED
    at = np.unique(np.quantile(sample.score, np.linspace(0.005, 0.995, CURVE_POINTS)))
    observed = expit(spline(clipped_logit(at), grouped.knots) @ beta)
    return FlexibleCurve(at.tolist(), observed.tolist())


def grouped_spline(score: Float64Array) -> Grouped | None:
    """Groups and spline basis, or None if the four knots are not distinct or would fit
    everything.
    """
    values, group = np.unique(score, return_inverse=True)
    if values.size > MAX_GROUPS:
        rank = np.argsort(np.argsort(score, kind="stable"), kind="stable")
        group = rank * MAX_GROUPS // score.size
    size = np.bincount(group)
    probability = by_group(group, score, size.size) / size
    knots = np.quantile(clipped_logit(score), KNOTS)
    if probability.size <= len(KNOTS) or np.diff(knots).min() < MIN_GAP:
        return None
    return Grouped(group, probability, spline(clipped_logit(probability), knots), knots)


def spline(x: Float64Array, knots: Float64Array) -> Float64Array:
    """(n, 4): intercept, x, and two cubic terms that are linear beyond the outer knots (Harrell's
    basis).
    """
    last, before = knots[-1], knots[-2]

    def cube(knot: float) -> Float64Array:
        return np.maximum(x - knot, 0.0) ** 3

    columns = [np.ones(x.size), x]
    for knot in knots[:-2]:
        term = (
            cube(knot)
            - cube(before) * (last - knot) / (last - before)
            + cube(last) * (before - knot) / (last - before)
        )
        columns.append(term / (last - knots[0]) ** 2)
    return np.column_stack(columns)


def _trials(
    grouped: Grouped, label: Float64Array, weight: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """(k,) weighted units of each group, and those with the finding."""
    k = grouped.probability.size
    return by_group(grouped.group, weight, k), by_group(grouped.group, weight * label, k)


def _fit(grouped: Grouped, trials: Float64Array, successes: Float64Array) -> Float64Array | None:
    return logistic(grouped.basis, successes, np.zeros(trials.size), trials)


def _ici(grouped: Grouped, trials: Float64Array, successes: Float64Array) -> float | None:
    beta = _fit(grouped, trials, successes)
    if beta is None:
        return None
    return float(
        np.average(np.abs(expit(grouped.basis @ beta) - grouped.probability), weights=trials)
    )


def _draws(grouped: Grouped, sample: Sample) -> Float64Array:
    rng = np.random.default_rng(SEED)
    cluster, groups = compact_codes(sample.patient)
    label, n = sample.label.astype(np.float64), sample.label.size
    out = np.full(min(ICI_REPLICATES, max(MIN_REPLICATES, MAX_WORK // n)), np.nan)
    all_trials, all_successes = _trials(grouped, label, np.ones(n))
    shares = np.concatenate([all_successes, all_trials - all_successes]) / n
    k = grouped.probability.size
    cell = grouped.group + k * sample.label
    for i in range(out.size):
        if groups == n and n > LARGE:  # then the counts are multinomial
            drawn = rng.multinomial(n, shares).reshape(2, -1).astype(np.float64)
            trials, successes = drawn.sum(axis=0), drawn[0]
        else:
            multiplicity = np.bincount(rng.integers(0, groups, groups), minlength=groups)
            weight = multiplicity.astype(np.float64)[cluster]
            without, successes = by_group(cell, weight, 2 * k).reshape(2, k)
            trials = without + successes
        value = _ici(grouped, trials, successes)
        out[i] = np.nan if value is None else value
    return out

"""Intervals for proportions, means and likelihood ratios, with patients as clusters if they
repeat.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medres.evaluate.scores.sample import Float64Array, Int64Array, compact_codes, effective_number
from medres.evaluate.statistics.clusters import (
    ClusteredVariance,
    by_class_and_patient,
    clustered_variance,
    degrees,
    few_effective,
    t_quantile,
)
from medres.evaluate.statistics.estimate import Estimate, undefined

RATIO_COVERAGE = (
    92  # %: the lowest of likelihood ratios (not few patients) in benchmarks/RESULTS.md
)
MAX_LOG_HALF_WIDTH = 50.0  # of a ratio; above it an interval says nothing


def normal_quantile(level: float) -> float:
    """Two-sided standard normal quantile: 1.96 at level .95."""
    return float(stats.norm.ppf(0.5 + level / 2.0))


def wilson(k: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson 1927 score interval for k of n (n may be an effective, fractional number)."""
    p, z2 = k / n, quantile * quantile
    center = (p + z2 / (2.0 * n)) / (1.0 + z2 / n)
    half = quantile / (1.0 + z2 / n) * math.sqrt(p * (1.0 - p) / n + z2 / (4.0 * n * n))
    low = 0.0 if k == 0 else max(0.0, center - half)
    high = 1.0 if k == n else min(1.0, center + half)
    return low, high


def clopper_pearson(k: int, n: int, level: float) -> tuple[float, float]:
    """Clopper & Pearson 1934 exact interval for k of n."""
    tail = (1.0 - level) / 2.0
    low = 0.0 if k == 0 else float(stats.beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(stats.beta.ppf(1.0 - tail, k + 1, n - k))
    return low, high


def logit_interval(p: float, standard_error: float, quantile: float) -> tuple[float, float]:
    """Interval on the logit scale, for 0 < p < 1."""
    center, half = math.log(p / (1.0 - p)), quantile * standard_error / (p * (1.0 - p))
    return _expit(center - half), _expit(center + half)


def proportion_estimate(
    hit: NDArray[np.bool_], patient: Int64Array, level: float, *, exact: bool = False
) -> Estimate:
    """The proportion of units with `hit` (n,): Wilson (or Clopper-Pearson with `exact`); clustered
    Wilson if a patient has several units.

    Clustered: Wilson on n / design effect with Student's t on (patients - 1) degrees of freedom.
    The design effect is that of the ratio estimator, and at least 1. At 0 or 100 % that estimator
    is not informative, and the effective number is the number of patients. For patients with
    different numbers of units, Kish's effective number takes the place of the number of patients.

    >>> rate = proportion_estimate(np.array([True, True, True, False]), np.arange(4), 0.95)
    >>> rate.estimate, round(rate.ci_low, 2), round(rate.ci_high, 2), rate.method
    (0.75, 0.3, 0.95, 'Wilson')
    """
    n, k = int(hit.size), int(np.count_nonzero(hit))
    if n == 0:
        return undefined("no unit in the denominator", n=0, numerator=0, denominator=0)
    estimate = partial(Estimate, k / n, level=level, n=n, numerator=k, denominator=n)
    cluster, groups = compact_codes(patient)
    if groups == n and exact:
        return estimate(*clopper_pearson(k, n, level), sided="two", method="Clopper-Pearson")
    if groups == n:
        return estimate(*wilson(k, n, normal_quantile(level)), sided="two", method="Wilson")
    if groups == 1:
        return estimate(why="all units come from one patient: no interval", n_clusters=1)
    effect = design_effect(hit.astype(np.float64), cluster)
    effective = n / effect
    size = np.bincount(cluster)
    patients = effective_number(size)
    low, high = wilson(k / n * effective, effective, t_quantile(level, degrees(patients)))
    unequal = bool(np.ptp(size))
    return estimate(
        low,
        high,
        sided="two",
        method="Wilson on n / design effect, patients as clusters, t",
        n_clusters=groups,
        design_effect=effect,
        n_effective=effective,
        effective_patients=patients if unequal else None,
        flag=few_effective(patients) if unequal else None,
    )


def design_effect(hit: Float64Array, cluster: Int64Array) -> float:
    """Variance of a clustered proportion divided by the binomial variance, at least 1; n / Kish's
    number of patients at 0 and 100 %. A patient's squared deviation is divided by 1 - its share of
    the units (Bell & McCaffrey 2002): with equal shares the usual patients / (patients - 1).
    """
    n, p = hit.size, float(hit.mean())
    size = np.bincount(cluster)
    if p in (0.0, 1.0):
        return n / effective_number(size)
    deviation = np.bincount(cluster, hit) - p * size
    variance = float(deviation @ (deviation / (1.0 - size / n))) / n**2
    return max(1.0, variance / (p * (1.0 - p) / n))


def mean_in_unit_range(
    value: NDArray[np.float64],
    patient: Int64Array,
    level: float,
    method: str,
    label: NDArray[np.bool_] | None = None,
) -> Estimate:
    """Mean of per-unit values in 0..1 (Brier): patient-clustered standard error, interval on the
    logit scale. label (n,): patients with different numbers of units are counted by class.
    """
    n, mean = int(value.size), float(value.mean())
    cluster, groups = compact_codes(patient)
    estimate = partial(Estimate, mean, level=level, n=n, n_clusters=groups)
    if groups < 2:
        return estimate(why="only one patient: no interval")
    members = np.ones(n, dtype=bool) if label is None else label
    parts, sizes = by_class_and_patient(members, cluster, (value - mean) / n)
    found = clustered_variance(parts, sizes, of_all=True)
    estimate = partial(estimate, effective_patients=found.effective_patients, flag=found.flag)
    if found.variance is None:
        return estimate(why=found.why)
    if found.variance == 0.0 or not 0.0 < mean < 1.0:
        return estimate(why="the patients do not differ: no interval")
    limits = logit_interval(mean, math.sqrt(found.variance), found.quantile(level))
    return estimate(*limits, sided="two", method=method)


def likelihood_ratio(
    hit: NDArray[np.bool_], label: NDArray[np.bool_], patient: Int64Array, level: float, name: str
) -> Estimate:
    """P(hit | positive) / P(hit | negative) by the log method (Simel 1991); with the sandwich
    variance clustered by patient if a patient has several units. `name` (LR+ or LR-) is for the
    reason of a missing number.
    """
    n1, n0 = int(label.sum()), int((~label).sum())
    if n1 == 0 or n0 == 0:
        return undefined(f"{name} needs both classes")
    k1, k0 = int((hit & label).sum()), int((hit & ~label).sum())
    if k0 == 0:
        return undefined(
            f"{name} is a division by zero: no negative unit is on that side of the threshold"
        )
    ratio, method = (k1 / n1) / (k0 / n0), "log method (Simel 1991)"
    if k1 == 0:
        return Estimate(
            0.0, why="the log method needs a count above zero", method=method, n=n1 + n0
        )
    cluster, groups = compact_codes(patient)
    clustered = groups < label.size
    estimate = partial(Estimate, ratio, n=n1 + n0, n_clusters=groups if clustered else None)
    if groups == 1:
        return estimate(why="all units come from one patient: no interval")
    variance: float | None = 1 / k1 - 1 / n1 + 1 / k0 - 1 / n0
    quantile = normal_quantile(level)
    if clustered:
        found = log_ratio_variance(hit, label, cluster)
        variance, quantile = found.variance, found.quantile(level)
        method = "log method, patients as clusters"
        estimate = partial(
            estimate,
            effective_patients=found.effective_patients,
            flag=found.flag_if_unequal(RATIO_COVERAGE),
        )
        if variance is None:
            return estimate(why=found.why)
    if variance is None or variance <= 0.0:
        return Estimate(
            ratio,
            why="the estimated variance is zero: every unit is on the same side of the threshold",
            n=n1 + n0,
        )
    half = quantile * math.sqrt(variance)
    if half > MAX_LOG_HALF_WIDTH:
        return estimate(why="the interval is too wide to be meaningful")
    return estimate(ratio * math.exp(-half), ratio * math.exp(half), level, "two", method)


def log_ratio_variance(
    hit: NDArray[np.bool_], of: NDArray[np.bool_], cluster: Int64Array
) -> ClusteredVariance:
    """Variance of the log of P(hit | of) / P(hit | not of), for at least one hit on either side."""
    k1, k0 = int((hit & of).sum()), int((hit & ~of).sum())
    ones = (hit - k1 / int(of.sum())) / k1
    zeros = (hit - k0 / int((~of).sum())) / k0
    return clustered_variance(*by_class_and_patient(of, cluster, np.where(of, ones, -zeros)))


def _expit(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))

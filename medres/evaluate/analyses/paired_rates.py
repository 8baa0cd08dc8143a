"""Two models' calls on the same units: difference of paired proportions (Tango 1998, McNemar),
clustered by patient if a patient has several units; and a global test that three or more AUCs are
equal.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from medres.evaluate.metrics.roc import (
    Placements,
    auc_covariance,
    leverage_covariance,
    placements,
)
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.results import GlobalTest
from medres.evaluate.schema import PairedRates
from medres.evaluate.scores.sample import Float64Array, Int64Array, Sample, compact_codes
from medres.evaluate.statistics.clusters import clustered_variance, degrees
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import normal_quantile

Bools = NDArray[np.bool_]
ZERO_VARIANCE = "the estimated variance is zero: no interval of this kind"
ONE_CLASS = "one class only among the common units"


def paired_rates(a: Sample, b: Sample, threshold: Threshold, level: float) -> PairedRates:
    """Differences of sensitivity and of specificity (a - b) at a threshold that holds for both,
    with p-values.
    """
    calls = [s.score >= threshold.value for s in (a, b)]
    return paired_calls(a.label, calls[0], calls[1], a.patient, threshold, level)


def paired_calls(
    label: Bools, a: Bools, b: Bools, patient: Int64Array, threshold: Threshold, level: float
) -> PairedRates:
    """The same for calls (n,): whether a and b call each unit positive."""
    differences = []
    for members in (label, ~label):
        right = [calls[members] == label[members] for calls in (a, b)]
        differences.append(paired_difference_of_rates(right[0], right[1], patient[members], level))
    (sensitivity, sensitivity_p), (specificity, specificity_p) = differences
    return PairedRates(
        operating_point=threshold.name,
        threshold=None if threshold.why else threshold.value,
        sensitivity_difference=sensitivity,
        sensitivity_p=sensitivity_p,
        specificity_difference=specificity,
        specificity_p=specificity_p,
    )


def paired_difference_of_rates(
    a: Bools, b: Bools, patient: Int64Array, level: float
) -> tuple[Estimate, float | None]:
    """Share(a) - share(b) over the same units, and the p-value that they are equal.

    Independent units: Tango's score interval and McNemar's test, exact under 25 discordant pairs.
    Several units per patient: Wald with the sandwich variance clustered by patient, and t.
    """
    n = a.size
    if n == 0:
        return undefined("no unit in the denominator", n=0), None
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    cluster, groups = compact_codes(patient)
    difference = (only_a - only_b) / n
    if groups == n:
        limits = tango(only_a, only_b, n, normal_quantile(level))
        return Estimate(difference, *limits, level, "two", "Tango 1998", n=n), mcnemar(
            only_a, only_b
        )
    deviation = np.bincount(cluster, a.astype(float) - b.astype(float) - difference) / n
    if groups < 2:
        return Estimate(difference, why=ZERO_VARIANCE, n=n), None
    found = clustered_variance([deviation], [np.bincount(cluster)])
    if found.variance is None:
        return Estimate(difference, why=found.why, n=n), None
    if found.variance < 1e-24:
        return Estimate(difference, why=ZERO_VARIANCE, n=n), None
    error, quantile = math.sqrt(found.variance), found.quantile(level)
    low, high = max(-1.0, difference - quantile * error), min(1.0, difference + quantile * error)
    method = "paired difference, sandwich variance clustered by patient, t"
    estimate = Estimate(
        difference, low, high, level, "two", method, n=n, n_clusters=groups,
        effective_patients=found.effective_patients, flag=found.flag,
    )  # fmt: skip
    return estimate, float(2.0 * stats.t.sf(abs(difference) / error, found.df))


def tango(only_a: int, only_b: int, n: int, z: float) -> tuple[float, float]:
    """Tango 1998 score interval for (only_a - only_b) / n."""

    def statistic(delta: float) -> float:
        linear = -only_a - only_b + (2 * n - only_a + only_b) * delta
        q21 = (math.sqrt(max(0.0, linear**2 + 8 * n * only_b * delta * (1 - delta))) - linear) / (
            4 * n
        )
        spread = n * (2 * q21 + delta * (1 - delta))
        distance = only_a - only_b - n * delta
        return distance / math.sqrt(max(spread, 1e-20))

    center, edge = (only_a - only_b) / n, 1.0 - 1e-9
    low = (
        -1.0
        if center <= -edge
        else float(optimize.brentq(lambda d: statistic(d) - z, -edge, center, xtol=1e-12))
    )
    high = (
        1.0
        if center >= edge
        else float(optimize.brentq(lambda d: statistic(d) + z, center, edge, xtol=1e-12))
    )
    return low, high


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p-value: exact binomial under 25 discordant pairs, else chi-square without
    correction.
    """
    discordant = only_a + only_b
    if discordant < 25:
        return float(stats.binomtest(only_a, discordant).pvalue) if discordant else 1.0
    return float(stats.chi2.sf((only_a - only_b) ** 2 / discordant, 1))


def global_test(samples: list[Sample], *, patient_weighted: bool = False) -> GlobalTest:
    """Test that k paired AUCs are all equal, clustered if patients repeat: DeLong's chi-square
    (1988), compared with F on the degrees of freedom of Krishnamoorthy & Yu (2004), since a
    covariance from few patients makes the chi-square too large.
    """
    first = samples[0]
    if first.n_positive == 0 or first.n_negative == 0:
        return GlobalTest(None, None, None, why=ONE_CLASS)
    unequal = first.unequal and not patient_weighted
    try:
        models = [placements(s, patient_weighted=patient_weighted) for s in samples]
        covariance = leverage_covariance(models) if unequal else auc_covariance(models)
    except ValueError as error:
        return GlobalTest(None, None, None, why=str(error))
    contrast = np.diff(np.eye(len(models)), axis=0)
    difference = contrast @ np.array([m.auc for m in models])
    spread = contrast @ covariance @ contrast.T
    df = int(np.linalg.matrix_rank(spread, hermitian=True))
    if df < len(models) - 1:
        return GlobalTest(None, None, None, why="two of the models rank the units identically")
    chi_square = float(difference @ np.linalg.solve(spread, difference))
    asymptotic = float(stats.chi2.sf(chi_square, df))
    nu = _krishnamoorthy_yu(models, first, contrast, patient_weighted)
    denominator = nu - df + 1.0
    if denominator <= 0.0:
        why = "too few patients for a test of so many models"
        return GlobalTest(chi_square, df, None, None, asymptotic, why)
    f = chi_square * denominator / (nu * df)
    p_value = float(stats.f.sf(f, df, denominator))
    return GlobalTest(chi_square, df, p_value, denominator, asymptotic)


def _krishnamoorthy_yu(
    models: list[Placements], sample: Sample, contrast: Float64Array, patient_weighted: bool
) -> float:
    """Degrees of freedom of a covariance of contrasts that is the sum of a part from the patients
    of each class; Satterthwaite's if there is one contrast.
    """
    equal = patient_weighted or not sample.unequal
    by_class, dfs = [], []
    for side, label in (("positive", True), ("negative", False)):
        part = contrast @ np.stack([getattr(m, side) for m in models])
        patients = sample.patients_with(label) if equal else sample.effective_patients(label)
        dfs.append(degrees(patients))
        by_class.append(patients / dfs[-1] * (part @ part.T))
    inverse = np.linalg.pinv(by_class[0] + by_class[1], hermitian=True)
    spread = 0.0
    for scaled, df in zip((part @ inverse for part in by_class), dfs, strict=True):
        spread += (float(np.trace(scaled @ scaled)) + float(np.trace(scaled)) ** 2) / df
    k = len(contrast)
    return (k + k * k) / spread

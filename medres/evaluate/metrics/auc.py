"""The AUC with its three intervals, and which of them is the headline.

Wald (what pROC prints), logit, and Newcombe 2006 method 5. No single interval has its nominal
coverage everywhere: in simulations the Wald interval covers far too little near AUC 1 and for small
classes. So Newcombe's interval is the headline if either class has fewer than 100 patients or the
AUC is beyond .95, and the logit interval otherwise. At AUC 1 or 0 the headline is a one-sided
bound.

If the patients of a class have different numbers of units (`Sample.unequal`), the logit and
Newcombe's interval use Student's t on Satterthwaite's degrees of freedom, and a variance that
allows for the leverage of large patients. The Wald interval stays as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import optimize

from medres.evaluate.metrics.roc import (
    Placements,
    auc_covariance,
    disjoint_pairs,
    leverage_covariance,
    placements,
    unequal_df,
)
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.clusters import degrees, few_effective, t_quantile
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import logit_interval, normal_quantile

SMALL_CLASS = 100
HIGH_AUC = 0.95
# Beyond these, the simulated coverage of Newcombe's interval is over 99 % (benchmarks/coverage.py):
# the variance that method 5 assumes is about twice that of normal scores near AUC .99, which shows
# with 50 or more patients per class.
WIDE_AUC, WIDE_CLASS = 0.97, 50


@dataclass(frozen=True)
class AucEstimates:
    """The same AUC with each interval, the headline first; `auc_patient_weighted` is None unless
    a patient has several units."""

    auc: Estimate
    auc_wald: Estimate
    auc_logit: Estimate
    auc_newcombe: Estimate
    auc_patient_weighted: Estimate | None = None


def auc_estimates(sample: Sample, level: float) -> AucEstimates:
    """The AUC with its intervals; without a number, and with the reason, if a class is
    missing."""
    if sample.n_positive == 0 or sample.n_negative == 0:
        missing = "positive" if sample.n_positive == 0 else "negative"
        null = undefined(f"one class only: no {missing} unit", n=sample.label.size)
        return AucEstimates(null, null, null, null)
    try:
        base = placements(sample)
    except ValueError as error:
        null = undefined(str(error), n=sample.label.size)
        return AucEstimates(null, null, null, null)
    wald, logit = delong_estimates(base, sample, level)
    newcombe = newcombe_estimate(base, sample, level)
    headline = _headline(sample, base.auc, logit, newcombe, level)
    headline, wald, logit, newcombe = (
        _with_effective_patients(e, sample) for e in (headline, wald, logit, newcombe)
    )
    if not sample.clustered:
        return AucEstimates(headline, wald, logit, newcombe)
    weighted = placements(sample, patient_weighted=True)
    return AucEstimates(headline, wald, logit, newcombe, _patient_weighted(weighted, sample, level))


def auc_quantile(base: Placements, sample: Sample, level: float) -> float:
    """Of the standard normal, or of Student's t if patients have different numbers of units."""
    if not sample.unequal:
        return normal_quantile(level)
    if base.n_clusters_positive < 2 or base.n_clusters_negative < 2:
        fewer = min(sample.effective_patients(True), sample.effective_patients(False))
        return t_quantile(level, degrees(fewer))
    return t_quantile(level, unequal_df([base]))


def delong_estimates(
    base: Placements, sample: Sample, level: float, note: str = ""
) -> tuple[Estimate, Estimate]:
    """(Wald, logit): the two intervals from the DeLong or Obuchowski variance; without limits, and
    with the reason, if that variance is zero or undefined.
    """
    name = "Obuchowski 1997, patients as clusters" if sample.clustered else "DeLong 1988"
    estimate = partial(
        Estimate,
        base.auc,
        n=sample.label.size,
        n_clusters=sample.n_patients if sample.clustered else None,
        design_effect=_design_effect(base, sample) if sample.clustered else None,
    )
    unequal = sample.unequal and not note  # equal weights leave no patient who dominates
    suffix = (f", {note}" if note else "") + (", mean over folds" if np.ptp(sample.fold) else "")
    try:
        variance = float(auc_covariance([base])[0, 0])
    except ValueError as error:
        null = estimate(why=str(error))
        return null, null
    if variance <= 1e-24 or base.auc in (0.0, 1.0):
        null = estimate(why="the estimated variance is zero: no interval of this kind")
        return null, null
    z, error_size = normal_quantile(level), math.sqrt(variance)
    scale = "logit"
    low, high = max(0.0, base.auc - z * error_size), min(1.0, base.auc + z * error_size)
    wald = estimate(low, high, level, "two", f"{name}, Wald, truncated to 0..1{suffix}")
    if unequal:
        z, scale = auc_quantile(base, sample, level), "logit, t for unequal patients"
        error_size = math.sqrt(float(leverage_covariance([base])[0, 0]))
    low, high = logit_interval(base.auc, error_size, z)
    return wald, estimate(low, high, level, "two", f"{name}, {scale}{suffix}")


def newcombe_limits(auc: float, m: float, n: float, z: float) -> tuple[float, float]:
    """Newcombe 2006, method 5: a score interval on the Hanley-McNeil variance with both class sizes
    at their mean.

    Solves (auc - t)^2 = z^2 t (1 - t) [1 + s (1 - t) / (2 - t) + s t / (1 + t)] / (m n), s = (m +
    n) / 2 - 1.
    """
    return _newcombe_low(auc, m, n, z), 1.0 - _newcombe_low(1.0 - auc, m, n, z)


def _newcombe_low(auc: float, m: float, n: float, z: float) -> float:
    """The root under `auc`; at AUC 1 the equation is divided by its other root, t = 1."""
    s = (m + n) / 2.0 - 1.0

    def spread(t: float) -> float:
        return z * z * t * (1 + s * (1 - t) / (2 - t) + s * t / (1 + t)) / (m * n)

    def excess(t: float) -> float:
        return (1 - t) - spread(t) if auc == 1.0 else (auc - t) ** 2 - (1 - t) * spread(t)

    return 0.0 if auc == 0.0 else float(optimize.brentq(excess, 0.0, auc, xtol=1e-14))


def newcombe_estimate(base: Placements, sample: Sample, level: float) -> Estimate:
    """Newcombe's method 5; if a patient has several units, both class sizes are divided by
    the design effect of the AUC.
    """
    m, n = float(sample.n_positive), float(sample.n_negative)
    if not sample.clustered:
        limits = newcombe_limits(base.auc, m, n, normal_quantile(level))
        return Estimate(
            base.auc, *limits, level, "two", "Newcombe 2006, method 5", n=sample.label.size
        )
    effect = _design_effect(base, sample)
    if effect is None:
        m, n = sample.effective_patients(True), sample.effective_patients(False)
        method = "Newcombe 2006, method 5, on the numbers of patients"
    else:
        m, n = max(1.0, m / max(1.0, effect)), max(1.0, n / max(1.0, effect))
        method = "Newcombe 2006, method 5, on class sizes / design effect"
    if sample.unequal:
        method += ", t for unequal patients"
    limits = newcombe_limits(base.auc, m, n, auc_quantile(base, sample, level))
    return Estimate(
        base.auc, *limits, level, "two", method, n=sample.label.size, n_clusters=sample.n_patients,
        design_effect=effect, n_effective=m + n,
    )  # fmt: skip


def perfect_bound(sample: Sample, auc: float, level: float) -> Estimate:
    """AUC 1 (or 0): one-sided exact bound tail^(1/m), m disjoint pairs of a positive and a negative
    patient.
    """
    pairs = disjoint_pairs(sample)
    estimate = partial(Estimate, auc, n=sample.label.size, n_clusters=sample.n_patients)
    if pairs == 0:
        return estimate(why="only one patient: no bound")
    bound = ((1.0 - level) / 2.0) ** (1.0 / pairs)
    low, high = (bound, 1.0) if auc == 1.0 else (0.0, 1.0 - bound)
    method = f"exact one-sided {50.0 * (1.0 + level):g}% bound on {pairs} disjoint patient pairs"
    return estimate(low, high, level, "one", method)


def _headline(
    sample: Sample, auc: float, logit: Estimate, newcombe: Estimate, level: float
) -> Estimate:
    if auc in (0.0, 1.0):
        return perfect_bound(sample, auc, level)
    patients = min(sample.effective_patients(True), sample.effective_patients(False))
    return logit if _logit_holds(patients, auc, logit) else newcombe


def _logit_holds(patients: float, auc: float, logit: Estimate) -> bool:
    """Whether the logit interval is good enough to be the headline."""
    beyond = max(auc, 1.0 - auc) > HIGH_AUC
    return patients >= SMALL_CLASS and not beyond and logit.ci_low is not None


def _patient_weighted(base: Placements, sample: Sample, level: float) -> Estimate:
    """The AUC with equal weight per patient: the logit interval; for unequal patients Newcombe's on
    the numbers of patients where the logit interval covers too little, and the exact bound at 0 or
    1.
    """
    note = "equal weight per patient"
    logit = delong_estimates(base, sample, level, note)[1]
    m, n = base.n_clusters_positive, base.n_clusters_negative
    if not sample.unequal or _logit_holds(min(m, n), base.auc, logit):
        return logit
    if base.auc in (0.0, 1.0):
        bound = perfect_bound(sample, base.auc, level)
        return replace(bound, method=bound.method and f"{bound.method}, {note}")
    limits = newcombe_limits(base.auc, m, n, normal_quantile(level))
    method = f"Newcombe 2006, method 5, on the numbers of patients, {note}"
    return replace(
        logit, why=None, ci_low=limits[0], ci_high=limits[1], level=level, sided="two",
        method=method,
    )  # fmt: skip


def _with_effective_patients(estimate: Estimate, sample: Sample) -> Estimate:
    """The same, with Kish's effective number of the smaller class if patients are unequal, and a
    flag on an interval from few."""
    if not sample.unequal:
        return estimate
    patients = min(sample.effective_patients(True), sample.effective_patients(False))
    flag = None if estimate.bounds is None else few_effective(patients)
    return replace(estimate, effective_patients=patients, flag=flag)


def _design_effect(base: Placements, sample: Sample) -> float | None:
    """Clustered variance of the AUC divided by DeLong's on the same units; None if either is not
    estimable.
    """
    unclustered = sample.with_patients(np.arange(sample.label.size, dtype=np.int64))
    covariance = leverage_covariance if sample.unequal else auc_covariance
    try:
        clustered = float(covariance([base])[0, 0])
        independent = float(auc_covariance([placements(unclustered)])[0, 0])
    except ValueError:
        return None
    return clustered / independent if independent > 1e-24 and clustered > 1e-24 else None

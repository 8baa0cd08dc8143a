"""The intervals of `medres.evaluate`, computed for many samples of one design at once: arrays of
shape (replicates, units).

The units of a patient are adjacent: `images` per patient, or `sizes` of them, which may differ.
Scores are assumed to have no ties.
`coverage.py` checks samples of every cell against the package itself. An interval that does not
exist is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medres.evaluate.metrics.auc import HIGH_AUC, SMALL_CLASS
from medres.evaluate.statistics.clusters import MIN_DF, MIN_EFFECTIVE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Interval = tuple[Floats, Floats]
LEVEL = 0.95
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class Batch:
    """label, score (r, n) of samples with `images` units per patient."""

    label: Bools
    score: Floats
    images: int
    sizes: NDArray[np.int64] | None = None

    def by_patient(self, value: NDArray[Any]) -> Floats:
        """Return sums per patient, (r, patients)."""
        if self.sizes is not None:
            starts = np.append(0, np.cumsum(self.sizes)[:-1])
            return np.add.reduceat(value.astype(np.float64), starts, axis=1)
        out = value[:, :: self.images].astype(np.float64)
        for k in range(1, self.images):
            out += value[:, k :: self.images]
        return out

    @property
    def repeat(self) -> Any:
        """The numbers of units per patient, for np.repeat."""
        return self.images if self.sizes is None else self.sizes

    @cached_property
    def class_sizes(self) -> tuple[Floats, Floats]:
        """Return units per patient (r, patients) with the finding, and without."""
        return self.by_patient(self.label), self.by_patient(~self.label)

    @cached_property
    def kish(self) -> tuple[Floats, Floats]:
        """Return Kish's effective numbers of patients with the finding, and without."""
        first, second = (effective(size) for size in self.class_sizes)
        return first, second

    @cached_property
    def unequal(self) -> Bools:
        """Return (r,) whether the patients of a class have different numbers of its units."""
        return np.any(
            [
                size.max(axis=1) > np.where(size > 0, size, np.inf).min(axis=1)
                for size in self.class_sizes
            ],
            axis=0,
        )

    @cached_property
    def auc(self) -> Auc:
        """Return the AUC with equal weights of all units."""
        return Auc(self, np.ones_like(self.score))

    @cached_property
    def order(self) -> NDArray[np.intp]:
        return np.argsort(-self.score, axis=1)

    @cached_property
    def cumulative(self) -> tuple[Floats, Floats]:
        """Return true and false positives (r, n) at each score, from the highest downwards."""
        ranked = np.take_along_axis(self.label, self.order, axis=1)
        tp = np.cumsum(ranked, axis=1, dtype=np.float64)
        return tp, np.arange(1.0, ranked.shape[1] + 1) - tp

    def unsorted(self, value: Floats) -> Floats:
        out = np.empty_like(value)
        np.put_along_axis(out, self.order, value, axis=1)
        return out


def auc_intervals(batch: Batch) -> dict[str, Interval]:
    """Return auc (the main interval), auc_newcombe, auc_logit and auc_wald."""
    base = batch.auc
    out = {"auc_wald": base.wald(), "auc_logit": base.logit()}
    out = {"auc_newcombe": base.newcombe()} | out
    small = np.minimum(*batch.kish) < SMALL_CLASS
    first = small | (np.maximum(base.auc, 1 - base.auc) > HIGH_AUC) | np.isnan(out["auc_logit"][0])
    low, high = (
        np.where(first, n, g) for n, g in zip(out["auc_newcombe"], out["auc_logit"], strict=True)
    )
    low = np.where(base.auc == 1.0, base.perfect_bound(), low)
    return {"auc": (low, np.where(base.auc == 1.0, 1.0, high))} | out


def patient_weighted(batch: Batch) -> Interval:
    """Return the interval of the AUC with equal weight of all patients within each class: logit;
    if they are unequal, Newcombe's on the numbers of patients where that is better.
    """
    fit = Auc(batch, patient_weights(batch))
    low, high = fit.logit(equal=True)
    m, n = (patients.astype(float) for patients in fit.patients[:2])
    z = np.full(m.shape, Z)
    newcombe = _newcombe_low(fit.auc, m, n, z), 1 - _newcombe_low(1 - fit.auc, m, n, z)
    first = (np.minimum(m, n) < SMALL_CLASS) | (np.maximum(fit.auc, 1 - fit.auc) > HIGH_AUC)
    first = batch.unequal & (first | np.isnan(low))
    low, high = np.where(first, newcombe[0], low), np.where(first, newcombe[1], high)
    bound = fit.perfect_bound()
    perfect = batch.unequal & (fit.auc == 1.0)
    return np.where(perfect, bound, low), np.where(perfect, 1.0, high)


def patient_weights(batch: Batch) -> Floats:
    """Return (r, n) 1 / units of the patient in the class of the unit."""
    return 1 / np.where(batch.label, _spread(batch, batch.label), _spread(batch, ~batch.label))


def effective(size: Floats) -> Floats:
    """Return (r,) Kish's effective number of patients with these numbers of units."""
    with np.errstate(invalid="ignore"):
        return size.sum(axis=1) ** 2 / (size**2).sum(axis=1)


def t_quantiles(df: Floats) -> Floats:
    """Return quantiles of Student's t, each distinct number of degrees once."""
    distinct, place = np.unique(np.maximum(df, MIN_DF), return_inverse=True)
    return stats.t.ppf(0.5 + LEVEL / 2, distinct)[place]


def _spread(batch: Batch, member: Bools) -> Floats:
    return np.maximum(np.repeat(batch.by_patient(member), batch.repeat, axis=1), 1.0)


class Auc:
    """The AUC, its variances and its numbers of patients, for units with the given weights."""

    def __init__(self, batch: Batch, weight: Floats) -> None:
        a, b = np.where(batch.label, weight, 0.0), np.where(batch.label, 0.0, weight)
        total_a, total_b = a.sum(axis=1, keepdims=True), b.sum(axis=1, keepdims=True)
        above = (
            batch.unsorted(np.cumsum(np.take_along_axis(a, batch.order, axis=1), axis=1)) / total_a
        )
        below = (
            1
            - batch.unsorted(np.cumsum(np.take_along_axis(b, batch.order, axis=1), axis=1))
            / total_b
        )
        auc = np.minimum(1.0, (a * below).sum(axis=1, keepdims=True) / total_a)
        positive, negative = a * (below - auc) / total_a, b * (above - auc) / total_b
        self.auc, self.batch = auc[:, 0], batch
        held = [batch.by_patient(m) > 0 for m in (batch.label, ~batch.label)]
        self.patients = held[0].sum(axis=1), held[1].sum(axis=1), held[0].shape[1]
        self.units = batch.label.sum(axis=1), (~batch.label).sum(axis=1)
        parts = batch.by_patient(positive), batch.by_patient(negative)
        self.plain = _variance(*parts, *self.patients)
        shares = [size / size.sum(axis=1, keepdims=True) for size in batch.class_sizes]
        self.variance = np.where(batch.unequal, leverage_variance(parts, shares), self.plain)
        self.quantile = np.where(
            batch.unequal, t_quantiles(satterthwaite(parts, shares, batch.kish)), Z
        )
        self.independent = _variance(positive, negative, *self.units, positive.shape[1])
        useless = (self.plain <= 1e-24) | (self.auc == 1.0) | (self.auc == 0.0)
        self.error = np.sqrt(np.where(useless, np.nan, self.plain))
        self.leverage_error = np.sqrt(np.where(useless, np.nan, self.variance))

    def wald(self) -> Interval:
        return np.maximum(0.0, self.auc - Z * self.error), np.minimum(
            1.0, self.auc + Z * self.error
        )

    def logit(self, *, equal: bool = False) -> Interval:
        if equal:
            return logit_limits(self.auc, self.error, Z)
        return logit_limits(self.auc, self.leverage_error, self.quantile)

    def perfect_bound(self) -> Floats:
        """Return the lower bound at AUC 1, from disjoint pairs of patients."""
        pairs = np.minimum(np.minimum(self.patients[0], self.patients[1]), self.patients[2] // 2)
        return ((1 - LEVEL) / 2) ** (1 / pairs)

    def newcombe(self) -> Interval:
        m, n = self.effective()
        q = self.quantile
        return _newcombe_low(self.auc, m, n, q), 1 - _newcombe_low(1 - self.auc, m, n, q)

    def effective(self) -> Interval:
        """Return class sizes over the design effect, or numbers of patients if it is unknown."""
        if self.batch.images == 1 and self.batch.sizes is None:
            return self.units[0].astype(float), self.units[1].astype(float)
        known = (self.variance > 1e-24) & (self.independent > 1e-24)
        effect = np.maximum(
            1.0, np.divide(self.variance, self.independent, out=np.ones(known.size), where=known)
        )
        sizes = [
            np.where(known, np.maximum(1.0, u / effect), p)
            for u, p in zip(self.units, self.batch.kish, strict=True)
        ]
        return sizes[0], sizes[1]

    def assumed(self) -> Floats:
        """Return the variance that method 5 assumes at the estimate."""
        (m, n), t = self.effective(), self.auc
        return t * (1 - t) * (1 + ((m + n) / 2 - 1) * ((1 - t) / (2 - t) + t / (1 + t))) / (m * n)


def _variance(positive: Floats, negative: Floats, i10: Any, i01: Any, total: Any) -> Floats:
    cross = 2 * (positive * negative).sum(axis=1) * total / (total - 1)
    return (
        i10 / (i10 - 1) * (positive**2).sum(axis=1)
        + i01 / (i01 - 1) * (negative**2).sum(axis=1)
        + cross
    )


def leverage_variance(parts: tuple[Floats, Floats], shares: list[Floats]) -> Floats:
    """Return the variance of the AUC with a patient's squared part divided by 1 - its share."""
    total = parts[0].shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        own = sum(
            (part**2 / (1.0 - share)).sum(axis=1) for part, share in zip(parts, shares, strict=True)
        )
    return own + 2 * (parts[0] * parts[1]).sum(axis=1) * total / (total - 1)


def satterthwaite(
    parts: tuple[Floats, Floats], shares: list[Floats], kish: tuple[Floats, Floats]
) -> Floats:
    """Return degrees of freedom of the variance of the AUC."""
    dfs = [np.maximum(k - 1, MIN_DF) for k in kish]
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = [
            (part**2 / (1.0 - share)).sum(axis=1) for part, share in zip(parts, shares, strict=True)
        ]
        df = sum(squares) ** 2 / sum(v * v / d for v, d in zip(squares, dfs, strict=True))
    return np.where(np.isnan(df), np.minimum(*dfs), df)


def _newcombe_low(auc: Floats, m: Floats, n: Floats, z: Floats) -> Floats:
    s, low, high = (m + n) / 2 - 1, np.zeros_like(auc), auc.copy()
    for _ in range(60):
        t = (low + high) / 2
        spread = z * z * t * (1 + s * (1 - t) / (2 - t) + s * t / (1 + t)) / (m * n)
        excess = np.where(auc == 1.0, (1 - t) - spread, (auc - t) ** 2 - (1 - t) * spread)
        low, high = np.where(excess > 0, t, low), np.where(excess > 0, high, t)
    return low


def logit_limits(p: Floats, error: Floats, quantile: Any) -> Interval:
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, half = np.log(p / (1 - p)), quantile * error / (p * (1 - p))
        return 1 / (1 + np.exp(half - centre)), 1 / (1 + np.exp(-half - centre))


def proportions(batch: Batch, hit: Bools, member: Bools) -> Interval:
    """Return Wilson limits of the share of hits among members, clustered if patients repeat."""
    n, k = member.sum(axis=1).astype(float), (hit & member).sum(axis=1)
    size = batch.by_patient(member)
    groups = (size > 0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = k / n
        deviation = batch.by_patient(hit & member) - p[:, None] * size
        kish = effective(size)
        variance = (deviation**2 / (1.0 - size / n[:, None])).sum(axis=1) / n**2
        edge, alone = (k == 0) | (k == n), groups == n
        effect = np.where(edge, n / kish, np.maximum(1.0, variance / (p * (1 - p) / n)))
        n = np.where(alone, n, n / effect)
        q = np.where(alone, Z, t_quantiles(np.nan_to_num(kish) - 1))
        centre, spread = (
            (p + q**2 / (2 * n)) / (1 + q**2 / n),
            np.sqrt(p * (1 - p) / n + q**2 / (4 * n**2)),
        )
        low, high = centre - q / (1 + q**2 / n) * spread, centre + q / (1 + q**2 / n) * spread
    none = (groups < 2) & ~alone
    low, high = (
        np.where(k == 0, 0.0, np.maximum(0.0, low)),
        np.where(p == 1, 1.0, np.minimum(1.0, high)),
    )
    return np.where(none, np.nan, low), np.where(none, np.nan, high)


def clustered(batch: Batch, influence: Floats, *, of_all: bool = False) -> tuple[Floats, Floats]:
    """Return (variance, quantile), each (r,), of a figure with these parts (r, n) of the units; NaN
    with too few effective patients of a class. of_all: a mean over the units of both classes.
    """
    parts = [batch.by_patient(np.where(m, influence, 0.0)) for m in (batch.label, ~batch.label)]
    total = parts[0] + parts[1]
    groups = total.shape[1]
    shares = [size / size.sum(axis=1, keepdims=True) for size in batch.class_sizes]
    both = parts[0], parts[1]
    few = np.minimum(*batch.kish) < MIN_EFFECTIVE
    unequal = np.where(few, np.nan, leverage_variance(both, shares))
    plain = groups / (groups - 1) * (total**2).sum(axis=1)
    df = np.nan_to_num(satterthwaite(both, shares, batch.kish))
    q = t_quantiles(np.minimum(df, groups - 1))
    equal = float(stats.t.ppf(0.5 + LEVEL / 2, groups - 1))
    differ = batch.unequal & (not of_all or (batch.sizes is not None and np.ptp(batch.sizes) > 0))
    return np.where(differ, unequal, plain), np.where(differ, q, equal)


def likelihood_ratios(batch: Batch, hit: Bools) -> Interval:
    """Return limits of P(hit | positive) / P(hit | negative) by the log method."""
    log_ratio, variance, q = _log_ratio(batch, hit, batch.label)
    half = q * np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.exp(log_ratio - half), np.exp(log_ratio + half)


def _log_ratio(batch: Batch, hit: Bools, of: Bools) -> tuple[Floats, Floats, Any]:
    """Return the log of the ratio of two hit rates, its variance (NaN if a count is zero) and the
    quantile for it.
    """
    n1, n0 = of.sum(axis=1), (~of).sum(axis=1)
    k1, k0 = (hit & of).sum(axis=1), (hit & ~of).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio, variance, q = np.log(k1 / n1 / (k0 / n0)), 1 / k1 - 1 / n1 + 1 / k0 - 1 / n0, Z
        if batch.images > 1 or batch.sizes is not None:
            ones, zeros = (
                (hit - (k1 / n1)[:, None]) / k1[:, None],
                (hit - (k0 / n0)[:, None]) / k0[:, None],
            )
            variance, q = clustered(batch, np.nan_to_num(np.where(of, ones, -zeros)))
    empty = (k1 == 0) | (k0 == 0)
    return np.where(empty, np.nan, log_ratio), np.where(empty, np.nan, variance), q


def predictive(batch: Batch, hit: Bools, of: Bools, odds: float) -> Interval:
    """Return Mercaldo's limits of P(of | hit) at prior odds; if a cell is empty, with counts of
    patients and z^2 / 2 per cell.
    """
    log_ratio, variance, q = _log_ratio(batch, hit, of)
    edge, adjusted, spread = np.zeros(len(hit), dtype=bool), np.zeros(len(hit)), np.zeros(len(hit))
    with np.errstate(divide="ignore", invalid="ignore"):
        rates, shift = [], Z * Z / 2
        for sign, members in ((1, of), (-1, ~of)):
            rate = (hit & members).sum(axis=1) / members.sum(axis=1)
            n = effective(batch.by_patient(members))
            k = rate * n + shift
            adjusted += sign * np.log(k / (n + 2 * shift))
            spread += 1 / k - 1 / (n + 2 * shift)
            edge |= (rate == 0) | (rate == 1)
            rates.append(rate)
        point = 1 / (1 + rates[1] / rates[0] / odds)
        centre = np.where(edge, adjusted, log_ratio) + np.log(odds)
        usual = Z
        if batch.images > 1 or batch.sizes is not None:
            usual = float(stats.t.ppf(0.5 + LEVEL / 2, batch.class_sizes[0].shape[1] - 1))
        half = np.where(edge, usual * np.sqrt(spread), q * np.sqrt(variance))
        few = batch.unequal & (np.minimum(*batch.kish) < MIN_EFFECTIVE)
        half = np.where(np.isnan(point) | (half < 1e-12) | few, np.nan, half)
        low, high = 1 / (1 + np.exp(half - centre)), 1 / (1 + np.exp(-half - centre))
    return np.minimum(low, point), np.maximum(high, point)


def net_benefits(batch: Batch, acted: Bools, weight: float) -> Interval:
    """Return limits of the net benefit at the prevalence of the sample: the patient sandwich
    variance with a t quantile.
    """
    gain = (acted & batch.label) - weight * (acted & ~batch.label)
    value = gain.mean(axis=1)
    variance, q = clustered(batch, (gain - value[:, None]) / gain.shape[1], of_all=True)
    half = q * np.sqrt(variance)
    half = np.where(half < 1e-11, np.nan, half)
    return value - half, value + half


def average_precisions(batch: Batch) -> Interval:
    """Return limits by the infinitesimal jackknife over patients."""
    tp, fp = batch.cumulative
    n1, called = tp[:, -1:], tp + fp
    steps = np.diff(tp, axis=1, prepend=0) / n1
    value = (steps * tp / called).sum(axis=1)
    positive = (
        np.flip(np.cumsum(np.flip(steps * fp / called**2, 1), axis=1), 1)
        + (tp / called - value[:, None]) / n1
    )
    negative = np.flip(np.cumsum(np.flip(-steps * tp / called**2, 1), axis=1), 1)
    influence = batch.unsorted(np.where(steps > 0, positive, negative))
    return _clustered_logit(value, *clustered(batch, influence))


def briers(batch: Batch, probability: Floats) -> Interval:
    """Return limits of the mean squared difference of probability and label."""
    squared = (probability - batch.label) ** 2
    value = squared.mean(axis=1)
    deviation = (squared - value[:, None]) / squared.shape[1]
    return _clustered_logit(value, *clustered(batch, deviation, of_all=True))


def _clustered_logit(value: Floats, variance: Floats, q: Floats) -> Interval:
    error = np.sqrt(variance)
    error = np.where((error < 1e-12) | (value >= 1.0), np.nan, error)
    return logit_limits(value, error, q)

"""Bootstrap of patients for figures without a closed form that can be computed from weights: bias
corrected and accelerated intervals (BCa, Efron 1987).

Every statistic is a function of how often each patient counts, so that matching, sorting or
measuring is done once. All statistics of one function share their draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import stats

from medres.evaluate.scores.sample import Float64Array
from medres.evaluate.statistics.bootstrap import NO_DIFFERENCE, REPLICATES, SEED
from medres.evaluate.statistics.estimate import Estimate, undefined

MOST_LEFT_OUT = 400  # groups of patients that the jackknife leaves out, one after the other
MIN_PATIENTS = 5  # of a bootstrap interval
ENOUGH_PATIENTS = 30  # from here the coverage was measured by simulation
METHOD = "BCa bootstrap of patients"
FEW_PATIENTS = f"fewer than {ENOUGH_PATIENTS} patients: the interval may cover too little"

Statistics = Callable[[Float64Array], Float64Array]


@dataclass(frozen=True)
class Draws:
    """value (k,): of all patients. replicates (draws, k). jackknife (groups, k): without one
    patient, or group of patients, each. NaN where a statistic is undefined.
    """

    value: Float64Array
    replicates: Float64Array
    jackknife: Float64Array
    n_patients: int

    def minus(self, other: Draws) -> Draws:
        """Of the differences of two sets of statistics with the same draws."""
        return Draws(
            self.value - other.value,
            self.replicates - other.replicates,
            self.jackknife - other.jackknife,
            self.n_patients,
        )


def draw(
    statistics: Statistics, n_patients: int, *, replicates: int = REPLICATES, seed: int = SEED
) -> Draws:
    """statistics: (n_patients,) weights -> (k,) values."""
    rng = np.random.default_rng(seed)
    chosen = (
        np.bincount(rng.integers(0, n_patients, n_patients), minlength=n_patients)
        for _ in range(replicates)
    )
    groups = min(n_patients, MOST_LEFT_OUT)
    left_out = (np.arange(n_patients) % groups != group for group in range(groups))
    return Draws(
        statistics(np.ones(n_patients)),
        np.array([statistics(weight.astype(np.float64)) for weight in chosen]),
        np.array([statistics(weight.astype(np.float64)) for weight in left_out]),
        n_patients,
    )


def bca_estimate(
    draws: Draws, index: int, level: float, *, n: int | None = None, why: str = "not defined"
) -> Estimate:
    """The statistic at `index` with its interval. why: the reason if its value is NaN. Fewer than
    30 patients are flagged.
    """
    value = float(draws.value[index])
    if math.isnan(value):
        return undefined(why, n=n)
    replicates = draws.replicates[:, index]
    defined = replicates[~np.isnan(replicates)]
    missing = int(replicates.size - defined.size)
    estimate = partial(
        Estimate,
        value,
        n=n,
        n_clusters=draws.n_patients,
        replicates=int(replicates.size),
        replicates_undefined=missing,
    )
    if draws.n_patients < MIN_PATIENTS:
        return estimate(why=f"fewer than {MIN_PATIENTS} patients: no interval")
    if missing > replicates.size // 10:
        reason = "not defined in more than 10% of the bootstrap samples: no interval"
        return estimate(why=reason)
    if np.ptp(defined) < 1e-12:
        return estimate(why=NO_DIFFERENCE)
    left_out = draws.jackknife[:, index]
    left_out = left_out[~np.isnan(left_out)]
    low, high = bca_limits(value, defined, left_out.mean() - left_out, level)
    return estimate(
        min(low, value),
        max(high, value),
        level=level,
        sided="two",
        method=METHOD,
        flag=FEW_PATIENTS if draws.n_patients < ENOUGH_PATIENTS else None,
    )


def bca_limits(
    value: float, replicates: Float64Array, influence: Float64Array, level: float
) -> tuple[float, float]:
    """BCa limits (Efron 1987) of a statistic, at levels widened as Student's t is (Hesterberg
    2015), with the degrees of freedom that the kurtosis of the influence leaves to its variance.

    replicates (draws,): of the statistic. influence (n,): of each patient, up to a factor, with
    mean 0: its value minus the mean, or the mean of the jackknife minus the value without it.
    """
    n = influence.size
    tolerance = 1e-12 * max(1.0, abs(value))
    below = np.count_nonzero(replicates < value - tolerance)
    equal = np.count_nonzero(np.abs(replicates - value) <= tolerance)
    share = (below + equal / 2.0) / replicates.size
    bias = float(stats.norm.ppf(np.clip(share, 1e-6, 1.0 - 1e-6)))
    spread = float(np.sum(influence**2))
    skew = float(np.sum(influence**3) / (6.0 * spread**1.5)) if spread > 0.0 else 0.0
    kurtosis = float(n * np.sum(influence**4) / spread**2) if spread > 0.0 else 1.0
    df = min(n - 1.0, 2.0 * n / max(kurtosis - 1.0, 1e-3))
    tail = (1.0 - level) / 2.0
    wide = stats.t.ppf([tail, 1.0 - tail], df) * np.sqrt(n / (n - 1.0))
    shifted = bias + (bias + wide) / np.maximum(1.0 - skew * (bias + wide), 1e-3)
    low, high = np.quantile(replicates, stats.norm.cdf(shifted))
    return float(low), float(high)

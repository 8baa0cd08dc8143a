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
FEW_PATIENTS = 30  # below it an interval is flagged: its coverage is not assured
METHOD = "bootstrap of patients, BCa"

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
    if missing > replicates.size // 10:
        reason = "not defined in more than 10% of the bootstrap samples: no interval"
        return estimate(why=reason)
    if np.ptp(defined) < 1e-12:
        return estimate(why=NO_DIFFERENCE)
    low, high = bca_limits(value, defined, draws.jackknife[:, index], level)
    few = draws.n_patients < FEW_PATIENTS
    return estimate(
        low,
        high,
        level=level,
        sided="two",
        method=METHOD,
        flag=f"fewer than {FEW_PATIENTS} patients" if few else None,
    )


def bca_limits(
    value: float, replicates: Float64Array, jackknife: Float64Array, level: float
) -> tuple[float, float]:
    """Limits that contain the value. replicates, jackknife: see `Draws`; NaN in the jackknife are
    left out.
    """
    share = (np.mean(replicates < value) + np.mean(replicates <= value)) / 2.0
    least = 0.5 / replicates.size
    bias = float(stats.norm.ppf(min(max(share, least), 1.0 - least)))
    influence = np.nanmean(jackknife) - jackknife[~np.isnan(jackknife)]
    spread = float(influence @ influence)
    skew = float((influence**3).sum() / (6.0 * spread**1.5)) if spread > 0.0 else 0.0
    tails = stats.norm.ppf([(1.0 - level) / 2.0, (1.0 + level) / 2.0]) + bias
    low, high = np.quantile(replicates, stats.norm.cdf(bias + tails / (1.0 - skew * tails)))
    return min(float(low), value), max(float(high), value)

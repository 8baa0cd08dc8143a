"""The mean over patients, with a bootstrap interval that fits skewed figures such as Dice and
distances.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from medres.evaluate.scores.sample import Float64Array
from medres.evaluate.statistics.bca import (
    ENOUGH_PATIENTS,
    FEW_PATIENTS,
    METHOD,
    MIN_PATIENTS,
    bca_limits,
)
from medres.evaluate.statistics.bootstrap import NO_DIFFERENCE, SEED
from medres.evaluate.statistics.estimate import Estimate, undefined

# with fewer the tails of the bootstrap move the coverage by half a percent and more
REPLICATES = 10_000
MAX_WORK = 5_000_000  # patients x replicates; above it there are fewer replicates
MIN_REPLICATES = 1_000


def patient_means(value: Float64Array, patient: np.ndarray) -> Float64Array:
    """One value per patient, the mean of the patient's own; NaN are left out.

    value (n,); patient (n,): codes or names.

    >>> patient_means(np.array([1.0, 0.0, 0.5, np.nan]), np.array([7, 7, 9, 11]))
    array([0.5, 0.5])
    """
    known = ~np.isnan(value)
    if not known.any():
        return np.empty(0)
    _, code = np.unique(patient[known], return_inverse=True)
    return np.asarray(np.bincount(code, value[known]) / np.bincount(code), np.float64)


def mean_over_patients(
    value: Float64Array,
    patient: np.ndarray,
    level: float,
    *,
    why: str = "no case has a value",
) -> Estimate:
    """The mean of patients' means, each patient weighing the same. value (n,): of cases, NaN where
    undefined. why: said if no case has a value.

    Interval: `bca_limits` over patients. None with `why` for fewer than MIN_PATIENTS patients.

    >>> mean_over_patients(np.array([0.9, 0.8]), np.array([1, 1]), 0.95).estimate
    0.85...
    """
    n = int(np.count_nonzero(~np.isnan(value)))
    if n == 0:
        return undefined(why, n=0)
    means = np.sort(patient_means(value, patient))
    center, patients = float(means.mean()), int(means.size)
    if patients < MIN_PATIENTS:
        reason = f"fewer than {MIN_PATIENTS} patients: no interval"
        return Estimate(center, n=n, n_clusters=patients, why=reason)
    if np.ptp(means) <= 1e-12:
        return Estimate(center, n=n, n_clusters=patients, why="all patients have the same value")
    replicates = max(MIN_REPLICATES, min(REPLICATES, MAX_WORK // patients))
    limits = mean_limits(means, level, replicates)
    if not limits[0] < limits[1]:
        return Estimate(center, n=n, n_clusters=patients, why=NO_DIFFERENCE)
    return Estimate(
        center,
        min(limits[0], center),
        max(limits[1], center),
        level=level,
        sided="two",
        method=METHOD,
        n=n,
        n_clusters=patients,
        replicates=replicates,
        flag=FEW_PATIENTS if patients < ENOUGH_PATIENTS else None,
    )


def mean_limits(values: Float64Array, level: float, replicates: int) -> tuple[float, float]:
    """Limits of the mean of independent values (n,) that are not all equal."""
    center = float(values.mean())
    draws = _shares(values.size, replicates) @ values
    return bca_limits(center, draws, values - center, level)


@lru_cache(maxsize=2)
def _shares(n: int, replicates: int) -> Float64Array:
    """(replicates, n) the weight of each patient in each draw, the same for all figures."""
    rng = np.random.default_rng(SEED)
    return np.asarray(rng.multinomial(n, np.full(n, 1.0 / n), size=replicates) / n, np.float64)

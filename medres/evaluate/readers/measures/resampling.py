"""Bootstrap of patients for measures without a variance in closed form.

Patients with and without a diseased case are drawn apart, so that no draw lacks a class. A draw is
a weight for each case: how often its patient was drawn.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medres.evaluate.readers.ratings import FloatArray, Ratings
from medres.evaluate.statistics.bca import METHOD, bca_limits
from medres.evaluate.statistics.bootstrap import NO_DIFFERENCE, SEED
from medres.evaluate.statistics.estimate import Estimate

REPLICATES = 1000
FEW_PATIENTS = 30
FEW = "fewer than 30 patients of a class: the interval may cover too little"


def drawn_weights(ratings: Ratings, replicates: int = REPLICATES) -> FloatArray:
    """(replicates, cases)."""
    random = np.random.default_rng(SEED)
    names, number = np.unique(ratings.patient, return_inverse=True)
    diseased = np.bincount(number, ratings.truth) > 0
    weights = np.zeros((replicates, names.size))
    for group in (np.flatnonzero(diseased), np.flatnonzero(~diseased)):
        if group.size:
            share = np.full(group.size, 1.0 / group.size)
            weights[:, group] = random.multinomial(group.size, share, replicates)
    return weights[:, number]


def left_out_weights(ratings: Ratings) -> FloatArray:
    """(patients, cases): each patient left out once."""
    names, number = np.unique(ratings.patient, return_inverse=True)
    return np.asarray(number != np.arange(names.size)[:, None], dtype=float)


def bca_estimate(
    value: float, draws: FloatArray, left_out: FloatArray, level: float, n: int
) -> Estimate:
    """With the interval of `bca_limits`. draws: (replicates,); left_out:
    (patients,) values without each patient; n: cases.
    """
    null = Estimate(
        value,
        level=level,
        n=n,
        replicates=int(draws.size),
        n_clusters=int(left_out.size),
        why=NO_DIFFERENCE,
    )
    if not draws.min() < draws.max():
        return null
    low, high = bca_limits(value, draws, left_out.mean() - left_out, level)
    return replace(
        null,
        ci_low=min(low, value),
        ci_high=max(high, value),
        sided="two",
        method=METHOD,
        why=None,
        flag=FEW if left_out.size < 2 * FEW_PATIENTS else None,
    )

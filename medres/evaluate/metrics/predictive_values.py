"""PPV and NPV at a stated prevalence (Mercaldo, Lau & Zhou 2007): logit PPV = log LR+ + log prior
odds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.scores.sample import Int64Array, compact_codes, effective_number
from medres.evaluate.statistics.clusters import (
    MIN_EFFECTIVE,
    WHY_TOO_FEW,
    few_effective,
    fewest_effective,
    t_quantile,
)
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import log_ratio_variance, logit_interval, normal_quantile

Bools = NDArray[np.bool_]
ZERO_VARIANCE = "the estimated variance is zero: no interval of this kind"


def predictive_values(
    predicted: Bools, label: Bools, patient: Int64Array, prevalence: float, level: float
) -> tuple[Estimate, Estimate]:
    """(PPV, NPV) of the rule `predicted` at `prevalence` (0..1, exclusive), with logit intervals.

    If a cell is empty, the interval (not the estimate) uses counts with z^2/2 added to each cell.
    If a patient has several units, the variance is the sandwich variance of the log odds,
    clustered by patient, with t on (patients - 1) degrees of freedom, or as in
    `clustered_variance` if patients have different numbers of units.
    """
    odds = prevalence / (1.0 - prevalence)
    return (
        _predictive(predicted, label, patient, odds, level, "positive"),
        _predictive(~predicted, ~label, patient, 1.0 / odds, level, "negative"),
    )


def _predictive(
    hit: Bools, of: Bools, patient: Int64Array, odds: float, level: float, side: str
) -> Estimate:
    """P(of | hit), given hits among `of` and among the others, at prior `odds` of `of`."""
    n1, n0 = int(of.sum()), int((~of).sum())
    if n1 == 0 or n0 == 0:
        return undefined("predictive values need both classes")
    k1, k0 = int((hit & of).sum()), int((hit & ~of).sum())
    if k1 + k0 == 0:
        return undefined(f"no unit is classified as {side}")
    cluster, groups = compact_codes(patient)
    clustered = groups < of.size
    point = k1 / n1 * odds / (k1 / n1 * odds + k0 / n0)
    if groups < 2:
        return Estimate(point, why="all units come from one patient: no interval", n_clusters=1)
    quantile = t_quantile(level, groups - 1) if clustered else normal_quantile(level)
    method, why = "logit (Mercaldo 2007)", None
    sizes = [np.bincount(cluster[members]) for members in (of, ~of)]
    effective = fewest_effective(sizes) if clustered else None
    if effective is not None and effective < MIN_EFFECTIVE:
        return Estimate(point, why=WHY_TOO_FEW, n=n1 + n0, n_clusters=groups)
    variance: float | None
    if k1 in (0, n1) or k0 in (0, n0):
        log_ratio, variance = _adjusted(hit, of, sizes, normal_quantile(level) ** 2 / 2.0)
        method = "adjusted logit (Mercaldo 2007)"
    elif clustered:
        found = log_ratio_variance(hit, of, cluster)
        log_ratio, variance, why = math.log((k1 / n1) / (k0 / n0)), found.variance, found.why
        quantile = found.quantile(level)
    else:
        log_ratio, variance = math.log((k1 / n1) / (k0 / n0)), 1 / k1 - 1 / n1 + 1 / k0 - 1 / n0
    if variance is None or variance < 1e-24:
        return Estimate(point, why=why or ZERO_VARIANCE, n=n1 + n0)
    center = 1.0 / (1.0 + math.exp(-log_ratio) / odds)
    low, high = logit_interval(center, math.sqrt(variance) * center * (1.0 - center), quantile)
    return Estimate(
        point,
        min(low, point),
        max(high, point),
        level,
        "two",
        method + (", patients as clusters" if clustered else ""),
        n=n1 + n0,
        n_clusters=groups if clustered else None,
        effective_patients=effective,
        flag=None if effective is None else few_effective(effective),
    )


def _adjusted(hit: Bools, of: Bools, sizes: list[Int64Array], shift: float) -> tuple[float, float]:
    """Log ratio of the two hit rates and its variance, with `shift` added to each cell; a class
    counts its (effective) patients.
    """
    log_ratio, variance = 0.0, 0.0
    for sign, members, size in ((1.0, of, sizes[0]), (-1.0, ~of, sizes[1])):
        n = effective_number(size)
        k = float(hit[members].mean()) * n + shift
        n += 2.0 * shift
        log_ratio += sign * math.log(k / n)
        variance += 1.0 / k - 1.0 / n
    return log_ratio, variance

"""Bootstrap of patients on presorted counts: units are sorted once, then every replicate is two
cumulative sums.

A statistic is a function of `Counts`; all statistics share the same replicates. Only figures
without a closed form use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.scores.sample import Counts, Float64Array, Int64Array, Sample
from medres.evaluate.statistics.estimate import Estimate
from medres.evaluate.statistics.intervals import wilson

REPLICATES = 2000
SEED = 20240229
# units x findings x replicates; above it there are fewer replicates, but at least MIN_REPLICATES
MAX_WORK = 200_000_000
MIN_REPLICATES = 400
# (effective) patients of the smaller class; below it a percentile interval covers too little
ENOUGH_FOR_PERCENTILES = 200
NO_DIFFERENCE = "the bootstrap samples do not differ: no interval"

Statistic = Callable[[Counts], float]


def replicates_for(units: int, findings: int) -> int:
    """2,000, or fewer if a large table would take minutes.

    >>> replicates_for(1000, 1), replicates_for(1_000_000, 14)
    (2000, 400)
    """
    return max(MIN_REPLICATES, min(REPLICATES, MAX_WORK // max(units * findings, 1)))


def resampled(
    sample: Sample, statistics: Mapping[str, Statistic], replicates: int, seed: int = SEED
) -> dict[str, Float64Array]:
    """(replicates,) values of each statistic over draws of patients with replacement; NaN if a
    class is missing in the draw.
    """
    order = np.lexsort(
        (sample.patient, sample.label, -sample.score)
    )  # the order of rows must not matter
    score, label = sample.score[order], sample.label[order]
    cluster, groups = _in_order_of_appearance(sample.patient[order])
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    threshold = score[ends]
    positive = label.astype(np.int32)
    rng = np.random.default_rng(seed)
    out = {name: np.full(replicates, np.nan) for name in statistics}
    for i in range(replicates):
        counts = _draw(rng, groups, cluster, positive, ends, threshold)
        if counts.n_positive and counts.n_negative:
            for name, statistic in statistics.items():
                out[name][i] = statistic(counts)
    return out


def percentile_estimate(
    value: float, draws: Float64Array, level: float, method: str, n: int, n_clusters: int
) -> Estimate:
    """Percentile interval. Replicates without a class are counted; if they are more than a tenth,
    there is no interval.
    """
    null = without_interval(value, draws, n, n_clusters)
    defined = draws[~np.isnan(draws)]
    if too_many_undefined(draws):
        return null
    low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    if not low < high:
        return replace(null, why=NO_DIFFERENCE)
    low, high = min(float(low), value), max(float(high), value)
    return replace(
        null, ci_low=low, ci_high=high, level=level, sided="two", method=method, why=None
    )


def without_interval(value: float, draws: Float64Array, n: int, n_clusters: int) -> Estimate:
    """The estimate with the counts of the bootstrap, and why it would have no interval."""
    return Estimate(
        value,
        n=n,
        n_clusters=n_clusters,
        replicates=int(draws.size),
        replicates_undefined=int(np.isnan(draws).sum()),
        why="a class is missing in more than 10% of the bootstrap samples: no interval",
    )


def too_many_undefined(draws: Float64Array) -> bool:
    return int(np.isnan(draws).sum()) > draws.size // 10


def score_limits(
    low_center: float, high_center: float, error: float, most: float, quantile: float
) -> tuple[float, float]:
    """Limits of a share in 0..1 whose standard error is that of the bootstrap: Wilson's interval on
    the effective number p (1 - p) / error^2, at least 1 and at most `most` (Zhou & Qin 2005 use the
    same pair of a score interval and a bootstrap variance).

    The percentile interval covers too little in small classes, where the replicates cannot be worse
    than the sample. The lower limit belongs to `low_center` and the upper one to `high_center`,
    which differ if the estimate is biased.
    """

    def limits(p: float) -> tuple[float, float]:
        n = p * (1.0 - p) / error**2 if error > 0.0 else most
        n = min(max(n, 1.0), most)
        return wilson(p * n, n, quantile)

    return limits(low_center)[0], limits(high_center)[1]


def _in_order_of_appearance(patient: Int64Array) -> tuple[Int64Array | None, int]:
    """Codes that count up as patients appear, which keeps memory access local (None if each patient
    appears once), and the number of patients.
    """
    _, first, code = np.unique(patient, return_index=True, return_inverse=True)
    if first.size == patient.size:
        return None, patient.size
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[code], first.size


def _draw(
    rng: np.random.Generator,
    groups: int,
    cluster: Int64Array | None,
    positive: NDArray[np.int32],
    ends: NDArray[np.intp],
    threshold: Float64Array,
) -> Counts:
    drawn = rng.integers(0, groups, groups, dtype=np.int32)
    multiplicity = np.bincount(drawn, minlength=groups).astype(np.int32)
    weight = multiplicity if cluster is None else multiplicity[cluster]
    called, tp = np.cumsum(weight, dtype=np.int64), np.cumsum(weight * positive, dtype=np.int64)
    if ends.size < called.size:
        called, tp = called[ends], tp[ends]
    return Counts(threshold, tp, called - tp, int(tp[-1]), int(called[-1] - tp[-1]))

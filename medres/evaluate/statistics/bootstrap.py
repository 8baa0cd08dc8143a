"""Bootstrap of patients on presorted counts: units are sorted once, then every replicate is two
cumulative sums.

A statistic is a function of `Counts`; all statistics share the same replicates. Only figures
without a closed form use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.scores.sample import Counts, Float64Array, Int64Array, Sample, compact_codes
from medres.evaluate.statistics.estimate import Estimate
from medres.evaluate.statistics.intervals import wilson

REPLICATES = 2000
SEED = 20240229
# units x findings x replicates; above it there are fewer replicates, but at least MIN_REPLICATES
MAX_WORK = 200_000_000
MIN_REPLICATES = 400
# (effective) patients of the smaller class; below it a percentile interval covers too little
ENOUGH_FOR_PERCENTILES = 200
# different scores; of more, the bootstrap makes neighbors equal (rates are off by 1 / MAX_STEPS)
MAX_STEPS = 10_000
LARGE = 200_000  # units
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
    ranks = _ranks(score, label)
    rng = np.random.default_rng(seed)
    out = {name: np.full(replicates, np.nan) for name in statistics}
    draw = partial(_draw, rng, groups, cluster, ranks)
    if cluster is None and label.size > LARGE:
        ones = np.ones(label.size, dtype=np.int32)
        draw = partial(_draw_counts, rng, ranks.by_score_and_label(ones), ranks)
    for i in range(replicates):
        counts = draw()
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
    code, groups = compact_codes(patient)
    if groups == patient.size:
        return None, patient.size
    first = np.full(groups, patient.size)
    np.minimum.at(first, code, np.arange(patient.size))
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[code], first.size


@dataclass(frozen=True)
class _Ranks:
    """Units from the highest score down, those without the finding first among equal scores.
    threshold (k,): the different scores. starts (c,): the position of the first unit of each score
    and label. cells (c,): 2 x the rank of that score, + 1 with the finding.
    """

    threshold: Float64Array
    starts: NDArray[np.intp]
    cells: Int64Array

    def by_score_and_label(self, weight: NDArray[Any]) -> NDArray[np.int64]:
        """(k, 2) the sums of the weights (n,) of units without and with the finding."""
        sums = np.zeros(2 * self.threshold.size, dtype=np.int64)
        sums[self.cells] = np.add.reduceat(weight, self.starts)
        return sums.reshape(-1, 2)


def _ranks(score: Float64Array, label: NDArray[np.bool_]) -> _Ranks:
    """score, label (n,): in the order of `_Ranks`."""
    differs = np.append(True, score[1:] != score[:-1])
    cell = 2 * (np.cumsum(differs) - 1) + label
    starts = np.flatnonzero(np.append(True, cell[1:] != cell[:-1]))
    return _Ranks(score[differs], starts, cell[starts])


def _counts(threshold: Float64Array, sums: NDArray[np.int64]) -> Counts:
    """sums (k, 2): units of each score without and with the finding."""
    fp, tp = np.cumsum(sums, axis=0).T
    return Counts(threshold, tp, fp, int(tp[-1]), int(fp[-1]))


def _draw(
    rng: np.random.Generator, groups: int, cluster: Int64Array | None, ranks: _Ranks
) -> Counts:
    drawn = rng.integers(0, groups, groups, dtype=np.int32)
    multiplicity = np.bincount(drawn, minlength=groups).astype(np.int32)  # small in the cache
    weight = multiplicity if cluster is None else multiplicity[cluster]
    return _counts(ranks.threshold, ranks.by_score_and_label(weight))


def _draw_counts(rng: np.random.Generator, units: NDArray[np.int64], ranks: _Ranks) -> Counts:
    """As `_draw` for patients with one unit each: the numbers of units with each score and label
    are multinomial. units (k, 2): those of the sample.
    """
    n = int(units.sum())
    drawn = rng.multinomial(n, units[:, ::-1].T.ravel() / n).reshape(2, -1)
    return _counts(ranks.threshold, drawn[::-1].T)


def coarsened(sample: Sample) -> Sample:
    """A sample of very many different scores with neighbors made equal, so that resampling it is
    fast: at most about MAX_STEPS scores, the lowest of each step. Other samples as they are.
    """
    if sample.label.size <= MAX_STEPS:
        return sample
    score = sample.score[sample.ascending]
    if np.count_nonzero(score[1:] != score[:-1]) < MAX_STEPS:
        return sample
    lowest = score[np.arange(MAX_STEPS) * score.size // MAX_STEPS]
    step = np.searchsorted(lowest, sample.score, "right") - 1
    return replace(sample, score=lowest[step])

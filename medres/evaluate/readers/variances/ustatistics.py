"""Random readers and cases for any design by U-statistics: crossed, split-plot, unbalanced, readers
nested in modalities.

Gallas 2006 and Gallas, Bandos, Samuelson & Wagner 2009 ("one-shot"), as in iMRMC: the value of a
modality weighs each pair of cases of each reader equally; its variance is made of eight moments, of
products of two kernels that share the reader, the diseased case or the healthy case, or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from medres.evaluate.readers.figures import PairFigure
from medres.evaluate.readers.outcome import ModalityContrast, ModalityMean
from medres.evaluate.readers.ratings import FloatArray, IntArray, Ratings
from medres.evaluate.readers.variances.covariances import Moments, pair_moments
from medres.evaluate.readers.variances.inference import Scale, contrast, interval, with_holm
from medres.evaluate.readers.variances.obuchowski_rockette import ROUNDING, Scatter

METHOD = "U-statistics (Gallas), t with Satterthwaite df; readers and cases random"
NORMAL_FROM = 50  # degrees of freedom above which the normal distribution is used
# From sums over pairs of kernels that share at least the reader (first four) or anything (last
# four), and in each four both cases, the diseased case, the healthy case, or anything; to sums
# over pairs that share exactly that.
EXACTLY = np.array(
    [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [-1, 1, 0, 0, 0, 0, 0, 0],
        [-1, 0, 1, 0, 0, 0, 0, 0],
        [1, -1, -1, 1, 0, 0, 0, 0],
        [-1, 0, 0, 0, 1, 0, 0, 0],
        [1, -1, 0, 0, -1, 1, 0, 0],
        [1, 0, -1, 0, -1, 0, 1, 0],
        [-1, 1, 1, -1, 1, -1, -1, 1],
    ]
)
# Main effects in the order healthy cases, diseased cases, readers: which moments they are made of,
# and which coefficients they gather.
EFFECTS = np.array(
    [[0, 0, 0, 0, 0, 0, 1, -1], [0, 0, 0, 0, 0, 1, 0, -1], [0, 0, 0, 1, 0, 0, 0, -1]]
)
GATHERS = np.array([[1, 0, 1, 0, 1, 0, 1, 0], [1, 1, 0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]])


@dataclass(frozen=True)
class PairVariance:
    """Covariance of the values of two modalities. effects: (3,) of healthy cases, diseased cases
    and readers, with the biased moments. df: (3,) of each.
    """

    covariance: float
    effects: FloatArray
    df: FloatArray


@dataclass(frozen=True)
class UStatistics:
    """Values and covariances of all modalities. value: (modalities,). variance: by pairs of
    modalities.
    """

    ratings: Ratings
    value: FloatArray
    variance: dict[tuple[int, int], PairVariance]
    level: float
    margin: float | None

    def modality_means(self) -> list[ModalityMean]:
        """Each modality over all pairs of cases of its readers."""
        scale = self._scale()
        means = []
        for i, modality in enumerate(self.ratings.modalities):
            own = self.variance[i, i]
            scatter = _scatter(own.covariance, own.effects, own.df)
            value = float(self.value[i])
            means.append(ModalityMean(modality, interval(value, scatter, scale, bounded=True)))
        return means

    def contrasts(self, pairs: tuple[tuple[int, int], ...]) -> list[ModalityContrast]:
        """The differences a - b; a variance that is not positive gives a reason instead."""
        found = []
        for a, b in pairs:
            x, y, both = self.variance[a, a], self.variance[b, b], self.variance[a, b]
            scatter = _scatter(
                x.covariance + y.covariance - 2 * both.covariance,
                x.effects + y.effects - 2 * both.effects,
                np.minimum(x.df, y.df),
            )
            names = self.ratings.modalities[a], self.ratings.modalities[b]
            value = float(self.value[a] - self.value[b])
            found.append(contrast(names, value, scatter, self._scale(), margin=self.margin))
        return with_holm(found)

    def _scale(self) -> Scale:
        return Scale(self.level, len(self.ratings.cases), METHOD)


def ustatistics(
    figure: PairFigure, ratings: Ratings, level: float, margin: float | None
) -> UStatistics:
    """Of a study in which each modality was read by at least two readers."""
    sums, counts = pair_moments(figure, ratings)
    t, r = len(ratings.modalities), len(ratings.readers)
    value = np.sqrt(np.diag(sums.everything)).reshape(t, r).sum(axis=1)
    n_pairs = np.sqrt(np.diag(counts.everything)).reshape(t, r).sum(axis=1)
    variance = {}
    for a in range(t):
        for b in range(t):
            block = np.ix_(range(a * r, a * r + r), range(b * r, b * r + r))
            variance[a, b] = _pair_variance(_eight(sums, block), _eight(counts, block))
    return UStatistics(ratings, value / n_pairs, variance, level, margin)


def _eight(moments: Moments, block: tuple[IntArray, ...]) -> FloatArray:
    """The sums of a block of readers x readers: of the same reader, then of all."""
    parts = [
        part[block]
        for part in (moments.both, moments.diseased, moments.healthy, moments.everything)
    ]
    return np.array([np.trace(part) for part in parts] + [part.sum() for part in parts])


def _pair_variance(sums: FloatArray, counts: FloatArray) -> PairVariance:
    exactly = EXACTLY @ counts
    unbiased = _ratio(EXACTLY @ sums, exactly)
    coefficients = exactly / counts[7]
    coefficients[7] -= 1.0
    biased = _ratio(sums, counts)
    gathered = GATHERS @ coefficients
    with np.errstate(divide="ignore"):
        df = np.where(gathered == 0, np.inf, np.round(1.0 / gathered - 1.0))
    effects = np.where(gathered == 0, 0.0, EFFECTS @ biased)
    return PairVariance(float(coefficients @ unbiased), effects, df)


def _ratio(sums: FloatArray, counts: FloatArray) -> FloatArray:
    return np.divide(sums, counts, out=np.array(sums, dtype=float), where=counts != 0)


def _scatter(variance: float, effects: FloatArray, df: FloatArray) -> Scatter:
    """Satterthwaite's degrees of freedom over the main effects, at least those of the smallest."""
    if variance <= ROUNDING:
        return Scatter(0.0, None)
    spread = float(np.sum(effects**2 / df**3))
    found = max(variance**2 / spread if spread > 0 else math.inf, float(df.min()))
    rounded = None if found > NORMAL_FROM else float(math.floor(found))
    return Scatter(math.sqrt(variance), rounded, found if math.isfinite(found) else None)

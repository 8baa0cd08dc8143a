"""The Obuchowski-Rockette analysis of a study: values, means, contrasts and components."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medres.evaluate.readers.outcome import (
    GlobalTest,
    ModalityContrast,
    ModalityMean,
    ReaderContrast,
    ReaderValue,
)
from medres.evaluate.readers.ratings import FloatArray, Ratings
from medres.evaluate.readers.variances.inference import (
    Scale,
    contrast,
    global_test,
    interval,
    two_sided_p,
    with_holm,
)
from medres.evaluate.readers.variances.obuchowski_rockette import (
    Components,
    Scatter,
    difference_scatter,
    mean_scatter,
    standard_error,
    variance_components,
)

RANDOM_READERS = ("rrrc", "rrfc")
ANALYSES = {
    "rrrc": "readers and cases random",
    "frrc": "readers fixed, cases random",
    "rrfc": "readers random, cases fixed",
}


@dataclass(frozen=True)
class Analysis:
    """Values (modalities, readers) with their covariance, and how to judge them.

    pairs: of modalities to compare, by number. margin: stated before, or None. level: of
    confidence. bounded: whether values lie within 0 and 1.
    """

    ratings: Ratings
    values: FloatArray
    covariance: FloatArray
    name: str
    level: float
    pairs: tuple[tuple[int, int], ...]
    margin: float | None = None
    bounded: bool = True

    @property
    def components(self) -> Components:
        """Mean squares and variance components."""
        return variance_components(self.values, self.covariance)

    def scale(self, analysis: str | None = None) -> Scale:
        """How intervals are labeled; analysis: another one than that of the study."""
        words = ANALYSES[analysis or self.name]
        return Scale(
            self.level, len(self.ratings.cases), f"Obuchowski-Rockette, Hillis df; {words}"
        )

    def reader_values(self) -> list[ReaderValue]:
        """One value for each modality and reader; the interval is over cases."""
        standard_error = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        scatter = standard_error.reshape(self.values.shape)
        scale = Scale(self.level, len(self.ratings.cases), "normal, over cases")
        return [
            ReaderValue(
                reader,
                modality,
                interval(
                    self.values[i, j],
                    Scatter(float(scatter[i, j]), None),
                    scale,
                    bounded=self.bounded,
                ),
            )
            for i, modality in enumerate(self.ratings.modalities)
            for j, reader in enumerate(self.ratings.readers)
            if np.isfinite(self.values[i, j])
        ]

    def modality_means(self) -> list[ModalityMean]:
        """Each modality averaged over the readers, from its own data alone."""
        means = []
        for i, modality in enumerate(self.ratings.modalities):
            scatter = mean_scatter(self.name, self.values[i], self._block(i, i))
            value = float(self.values[i].mean())
            means.append(
                ModalityMean(modality, interval(value, scatter, self.scale(), bounded=self.bounded))
            )
        return means

    def contrasts(self) -> list[ModalityContrast]:
        """The differences between modalities, averaged over the readers."""
        t, r = self.values.shape
        if t == 1:
            return []
        scatter = difference_scatter(self.name, self.components, t, r)
        means = self.values.mean(axis=1)
        return with_holm(
            [
                contrast(
                    (self.ratings.modalities[a], self.ratings.modalities[b]),
                    float(means[a] - means[b]),
                    scatter,
                    self.scale(),
                    margin=self.margin,
                )
                for a, b in self.pairs
            ]
        )

    def overall(self) -> GlobalTest | None:
        """The test of all modalities at once; None for fewer than two."""
        t, r = self.values.shape
        components = self.components
        if components.ms_modality is None:
            return None
        scatter = difference_scatter(self.name, components, t, r)
        variance = scatter.standard_error**2 * r / 2.0
        return global_test(components.ms_modality, variance, t - 1, scatter.df)

    def reader_contrasts(self) -> list[ReaderContrast]:
        """The difference of each reader, with the reader fixed."""
        found = []
        scale = Scale(self.level, len(self.ratings.cases), "normal, over cases; one reader")
        for j, reader in enumerate(self.ratings.readers):
            for a, b in self.pairs:
                variance = (
                    self._block(a, a)[j, j] + self._block(b, b)[j, j] - 2 * self._block(a, b)[j, j]
                )
                scatter = Scatter(standard_error(float(variance)), None)
                value = float(self.values[a, j] - self.values[b, j])
                if not np.isfinite(value):
                    continue
                found.append(
                    ReaderContrast(
                        reader,
                        self.ratings.modalities[a],
                        self.ratings.modalities[b],
                        interval(value, scatter, scale),
                        two_sided_p(value, scatter),
                    )
                )
        return found

    def _block(self, a: int, b: int) -> FloatArray:
        """(readers, readers): covariances between modalities a and b."""
        t, r = self.values.shape
        return self.covariance.reshape(t, r, t, r)[a, :, b, :]


def all_pairs(n: int) -> tuple[tuple[int, int], ...]:
    """Each pair of n modalities once.

    >>> all_pairs(3)
    ((0, 1), (0, 2), (1, 2))
    """
    return tuple(combinations(range(n), 2))


def design_of(ratings: Ratings) -> str:
    """crossed, readers_nested_in_modalities, cases_nested_in_readers, cases_nested_in_modalities or
    unbalanced.
    """
    if ratings.crossed:
        return "crossed"
    if (np.any(ratings.read, axis=2).sum(axis=0) == 1).all():
        return "readers_nested_in_modalities"
    if (ratings.read.any(axis=0).sum(axis=0) == 1).all():
        return "cases_nested_in_readers"
    if (ratings.read.any(axis=1).sum(axis=0) == 1).all():
        return "cases_nested_in_modalities"
    return "unbalanced"

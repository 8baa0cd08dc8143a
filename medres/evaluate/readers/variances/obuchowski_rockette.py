"""Analysis of variance over readers and modalities with correlated errors.

Obuchowski & Rockette 1995, with the degrees of freedom of Hillis 2007. A covariance between readers
that is smaller within a modality than across modalities (Cov2 < Cov3) counts as a difference of
zero, as does a negative Cov2 of a single modality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medres.evaluate.readers.ratings import FloatArray

ROUNDING = 1e-16  # of variances of numbers near 1: what is smaller is not told from zero


@dataclass(frozen=True)
class Components:
    """Mean squares and variance components of a study with several readers and modalities.

    ms_*: mean squares of the values; None with one reader or modality. reader,
    modality_reader: variances of readers and of their interaction, which may come out negative.
    error: variance of one value over cases. cov1: same reader, other modality; cov2: other reader,
    same modality; cov3: both other. bounded: whether Cov2 - Cov3 was negative and counts as zero.
    """

    ms_modality: float | None
    ms_reader: float | None
    ms_modality_reader: float | None
    reader: float | None
    modality_reader: float | None
    error: float
    cov1: float
    cov2: float
    cov3: float
    bounded: bool


class Scatter(NamedTuple):
    """The standard error of a mean or a difference, and the degrees of freedom of its t
    distribution; None: a normal distribution. reported: these before they were rounded, if they
    were.
    """

    standard_error: float
    df: float | None
    reported: float | None = None


def variance_components(values: FloatArray, covariance: FloatArray) -> Components:
    """values: (modalities, readers). covariance: over these in the same order, flattened."""
    t, r = values.shape
    sigma = covariance.reshape(t, r, t, r)
    error = float(np.einsum("ijij->", sigma)) / (t * r)
    same_reader = float(np.einsum("ijkj->", sigma))
    same_modality = float(np.einsum("ijil->", sigma))
    diagonal = error * t * r
    cov1 = (same_reader - diagonal) / (r * t * (t - 1)) if t > 1 else 0.0
    cov2 = (same_modality - diagonal) / (t * r * (r - 1)) if r > 1 else 0.0
    rest = float(sigma.sum()) - same_reader - same_modality + diagonal
    cov3 = rest / (t * (t - 1) * r * (r - 1)) if t > 1 and r > 1 else 0.0
    ms_t, ms_r, ms_tr = mean_squares(values)
    reader = interaction = None
    if ms_r is not None and ms_tr is not None:
        reader = (ms_r - ms_tr) / t - cov1 + cov3
        interaction = ms_tr - error + cov1 + cov2 - cov3
    elif ms_r is not None:
        reader = ms_r - error + cov2
    return Components(
        ms_t, ms_r, ms_tr, reader, interaction, error, cov1, cov2, cov3, bool(cov2 < cov3)
    )


@dataclass(frozen=True)
class VarianceShares:
    """Shares of the variance of a difference between two modalities, which sum to 1. readers: what
    only more readers make smaller; cases: what only more cases make smaller; both: what either
    makes smaller.
    """

    readers: float
    cases: float
    both: float


def variance_shares(c: Components, readers: int) -> VarianceShares | None:
    """None where nothing varies. Components below zero count as zero."""
    excess = max(c.cov2 - c.cov3, 0.0)
    interaction = max(c.modality_reader or 0.0, 0.0)
    both = max(c.error - c.cov1 - excess, 0.0)
    parts = np.array([interaction / readers, excess, both / readers])
    if parts.sum() <= 0.0:
        return None
    return VarianceShares(*(float(part) for part in parts / parts.sum()))


def mean_squares(values: FloatArray) -> tuple[float | None, float | None, float | None]:
    """Of modalities, readers, and both; None where there is only one."""
    t, r = values.shape
    of_t, of_r, mean = values.mean(axis=1), values.mean(axis=0), values.mean()
    rest = values - of_t[:, None] - of_r[None, :] + mean
    return (
        float(r * np.sum((of_t - mean) ** 2)) / (t - 1) if t > 1 else None,
        float(t * np.sum((of_r - mean) ** 2)) / (r - 1) if r > 1 else None,
        float(np.sum(rest**2)) / ((t - 1) * (r - 1)) if t > 1 and r > 1 else None,
    )


def difference_scatter(analysis: str, c: Components, t: int, r: int) -> Scatter:
    """Of the difference between two modalities, each averaged over the readers. analysis: rrrc
    (readers and cases random), frrc (fixed readers) or rrfc (fixed cases).
    """
    excess = max(c.cov2 - c.cov3, 0.0)
    if analysis == "frrc":
        return Scatter(standard_error(2.0 / r * (c.error - c.cov1 + (r - 1) * excess)), None)
    mean_square = _known(c.ms_modality_reader)
    df = float((t - 1) * (r - 1))
    if analysis == "rrfc":
        return Scatter(standard_error(2.0 / r * mean_square), df)
    return _hillis(mean_square, r * excess, df, 2.0 / r)


def mean_scatter(analysis: str, values: FloatArray, covariance: FloatArray) -> Scatter:
    """Of the mean of one modality over its readers. values: (readers,); covariance: of these."""
    r = values.size
    c = variance_components(values[None, :], covariance)
    cov2 = max(c.cov2, 0.0)
    if analysis == "frrc":
        return Scatter(standard_error((c.error + (r - 1) * cov2) / r), None)
    mean_square = _known(c.ms_reader)
    if analysis == "rrfc":
        return Scatter(standard_error(mean_square / r), float(r - 1))
    return _hillis(mean_square, r * cov2, float(r - 1), 1.0 / r)


def _hillis(mean_square: float, excess: float, df: float, factor: float) -> Scatter:
    """Satterthwaite's degrees of freedom; infinite where the readers do not differ at all."""
    if mean_square <= ROUNDING:
        return Scatter(standard_error(factor * excess), None)
    denominator = mean_square + excess
    return Scatter(standard_error(factor * denominator), denominator**2 / (mean_square**2 / df))


def _known(mean_square: float | None) -> float:
    if mean_square is None:
        raise ValueError("random readers need at least two readers, and contrasts two modalities")
    return mean_square


def standard_error(variance: float) -> float:
    """Zero where the variance is not above the rounding of its sums."""
    return float(np.sqrt(variance)) if variance > ROUNDING else 0.0

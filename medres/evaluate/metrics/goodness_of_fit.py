"""Goodness-of-fit tests of probabilities, for the appendix: Hosmer & Lemeshow 1980 and
Spiegelhalter 1986.

Both assume independent units, so they are left out if a patient has several units. The model was
fitted on other data, so the Hosmer-Lemeshow statistic has as many degrees of freedom as groups (two
fewer would apply to a model that was fitted on these data).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from medres.evaluate.results import ChiSquareTest, GoodnessOfFit, ZTest
from medres.evaluate.scores.sample import Sample

GROUPS = 10
CLUSTERED = "some patients have several units, but the test assumes independent units"


def goodness_of_fit_report(sample: Sample) -> GoodnessOfFit:
    """Both tests (p-values two-sided), or None with the reason if a patient has several
    units."""
    if sample.clustered:
        return GoodnessOfFit(
            ChiSquareTest(None, None, None, why=CLUSTERED), ZTest(None, None, why=CLUSTERED)
        )
    return GoodnessOfFit(hosmer_lemeshow(sample), spiegelhalter(sample))


def hosmer_lemeshow(sample: Sample) -> ChiSquareTest:
    """Ten groups of about equal size by probability, equal probabilities kept together."""
    edges = np.unique(np.quantile(sample.score, np.arange(1, GROUPS) / GROUPS))
    group = np.searchsorted(edges, sample.score, "left")
    size, expected = np.bincount(group), np.bincount(group, sample.score)
    observed = np.bincount(group, sample.label)[size > 0]
    expected, size = expected[size > 0], size[size > 0]
    variance = expected * (1.0 - expected / size)
    if (variance < 1e-12).any():
        why = "the expected number of events in a group is zero or the size of the group"
        return ChiSquareTest(None, None, None, why=why)
    chi_square = float(np.sum((observed - expected) ** 2 / variance))
    return ChiSquareTest(
        chi_square, df=int(size.size), p_value=float(stats.chi2.sf(chi_square, size.size))
    )


def spiegelhalter(sample: Sample) -> ZTest:
    """Whether the Brier score is what well calibrated probabilities would give."""
    p, label = sample.score, sample.label.astype(np.float64)
    variance = float(np.sum((1.0 - 2.0 * p) ** 2 * p * (1.0 - p)))
    if variance < 1e-12:
        return ZTest(None, None, why="all probabilities are 0, 0.5 or 1")
    z = float(np.sum((label - p) * (1.0 - 2.0 * p))) / math.sqrt(variance)
    return ZTest(z, p_value=float(2.0 * stats.norm.sf(abs(z))))

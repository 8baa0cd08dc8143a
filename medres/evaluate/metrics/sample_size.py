"""The precision reached, and the number of patients that a margin stated beforehand would need
(Obuchowski 2004).
"""

from __future__ import annotations

import math

from scipy import stats

from medres.evaluate.results import IntervalWidth
from medres.evaluate.statistics.estimate import Estimate
from medres.evaluate.statistics.intervals import normal_quantile


def sample_size_report(
    auc: Estimate, n_positive: int, n_negative: int, margin: float | None, level: float
) -> IntervalWidth:
    """Half the width of the headline interval; with a margin, the numbers of patients with and
    without the finding that such a half-width needs.
    """
    if auc.estimate is None or auc.ci_low is None or auc.ci_high is None:
        return IntervalWidth(None, why=auc.why)
    if auc.sided == "one":
        return IntervalWidth(None, why="a one-sided bound has no half-width")
    half_width = (auc.ci_high - auc.ci_low) / 2.0
    if margin is None or not 0.0 < auc.estimate < 1.0:
        return IntervalWidth(half_width)
    ratio = n_negative / n_positive
    needed = patients_for_half_width(max(auc.estimate, 1.0 - auc.estimate), ratio, margin, level)
    return IntervalWidth(half_width, margin, needed, math.ceil(needed * ratio))


def patients_for_half_width(auc: float, ratio: float, half_width: float, level: float) -> int:
    """Positives needed so that the interval of an AUC is about +- half_width, with `ratio`
    negatives to a positive.

    Variance function of Obuchowski & McClish 1997 for rating data, binormal: .0099 exp(-a^2/2)
    (5a^2 + 8 + (a^2 + 8) / k) with a = 1.414 probit(AUC); independent patients.
    """
    a = 1.414 * float(stats.norm.ppf(auc))
    variance = 0.0099 * math.exp(-(a**2) / 2.0) * (5.0 * a**2 + 8.0 + (a**2 + 8.0) / ratio)
    return math.ceil(normal_quantile(level) ** 2 * variance / half_width**2)

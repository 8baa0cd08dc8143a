"""From standard errors to intervals, tests and conclusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from medres.evaluate.readers.outcome import GlobalTest, ModalityContrast
from medres.evaluate.readers.variances.obuchowski_rockette import Scatter
from medres.evaluate.statistics.estimate import Estimate

NO_SCATTER = "the estimated variance is not above zero, so there is no interval and no test"


@dataclass(frozen=True)
class Scale:
    """level: of confidence. n: cases. method: of the intervals, in words."""

    level: float
    n: int
    method: str


def interval(value: float, scatter: Scatter, scale: Scale, *, bounded: bool = False) -> Estimate:
    """value with its confidence interval; bounded: within 0 and 1."""
    if scatter.standard_error <= 0.0:
        return Estimate(float(value), level=scale.level, n=scale.n, why=NO_SCATTER)
    half = quantile(scale.level, scatter.df) * scatter.standard_error
    low, high = value - half, value + half
    if bounded:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(
        float(value),
        float(low),
        float(high),
        level=scale.level,
        sided="two",
        method=scale.method,
        n=scale.n,
    )


def quantile(level: float, df: float | None) -> float:
    """Two-sided, of Student's t, or of the normal distribution if df is None."""
    p = 0.5 + level / 2.0
    return float(stats.norm.ppf(p) if df is None else stats.t.ppf(p, df))


def two_sided_p(value: float, scatter: Scatter) -> float | None:
    """Of the hypothesis that the true value is zero; None without a variance."""
    if scatter.standard_error <= 0.0:
        return None
    t = abs(value) / scatter.standard_error
    return float(2.0 * (stats.norm.sf(t) if scatter.df is None else stats.t.sf(t, scatter.df)))


def contrast(
    names: tuple[str, str],
    value: float,
    scatter: Scatter,
    scale: Scale,
    *,
    margin: float | None = None,
    first_is_reference: bool = False,
) -> ModalityContrast:
    """The difference a - b with its test and, if a margin was stated, its conclusions.

    first_is_reference: noninferior is then about b (the upper limit is below the margin).
    """
    difference = interval(value, scatter, scale)
    why = None
    if scatter.standard_error <= 0.0:
        why = NO_SCATTER
    elif scatter.df is None and scatter.reported is None:
        why = "df2 is null: the test has a normal (chi-square) distribution"
    noninferior = equivalent = None
    if margin is not None and difference.bounds is not None:
        low, high = difference.bounds
        noninferior = high < margin if first_is_reference else low > -margin
        equivalent = low > -margin and high < margin
    tested = scatter.standard_error > 0.0
    return ModalityContrast(
        *names,
        difference,
        f=float((value / scatter.standard_error) ** 2) if tested else None,
        df1=1.0 if tested else None,
        df2=scatter.df if scatter.reported is None else scatter.reported,
        p_value=two_sided_p(value, scatter),
        level=scale.level,
        margin=margin,
        noninferior=noninferior,
        equivalent=equivalent,
        why=why,
    )


def global_test(mean_square: float, variance: float, df1: int, df2: float | None) -> GlobalTest:
    """F = mean square of the modalities / variance; chi-square where df2 is None."""
    if variance <= 0.0:
        return GlobalTest(None, None, None, None, why=NO_SCATTER)
    f = mean_square / variance
    p = stats.chi2.sf(f * df1, df1) if df2 is None else stats.f.sf(f, df1, df2)
    why = None if df2 is not None else "df2 is null: the test has a chi-square distribution"
    return GlobalTest(float(f), float(df1), df2, float(p), why=why)


def with_holm(contrasts: Sequence[ModalityContrast]) -> list[ModalityContrast]:
    """The contrasts with Holm's adjusted p-values."""
    tested = [i for i, item in enumerate(contrasts) if item.p_value is not None]
    p = np.array([contrasts[i].p_value for i in tested], dtype=float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = dict(zip(np.array(tested, dtype=int)[order], np.minimum(steps, 1.0), strict=True))
    return [
        replace(item, p_adjusted=float(adjusted[i])) if i in adjusted else item
        for i, item in enumerate(contrasts)
    ]

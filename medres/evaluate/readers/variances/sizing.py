"""How many readers and cases a further study needs, from the variance components of this one.

Hillis, Obuchowski & Berbaum 2011. The effect is stated, never the one that was observed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from medres.evaluate.readers.variances.obuchowski_rockette import Components

READERS = range(3, 21)
POWER = 0.8
MAX_CASES = 10_000


@dataclass(frozen=True)
class NeededCases:
    """cases: the smallest number that reaches the power with this many readers, in the mix of
    diseased and other cases of this study; None if `MAX_CASES` do not. power: with that number.
    """

    readers: int
    cases: int | None
    power: float


@dataclass(frozen=True)
class SampleSizes:
    """Of a crossed study with two modalities. effect: the difference to detect. power: wanted.
    alpha: of the two-sided test. modality_reader: the variance component, not below zero.
    """

    effect: float
    power: float
    alpha: float
    analysis: str
    pilot_cases: int
    rows: list[NeededCases]


@dataclass(frozen=True)
class Plan:
    """effect: to detect. pilot_cases: of the study that gave the components. level: 1 - alpha."""

    components: Components
    pilot_cases: int
    effect: float
    analysis: str
    level: float


def power_of(plan: Plan, readers: int, cases: int) -> float:
    """Power of the two-sided test of no difference between two modalities."""
    c, analysis, level = plan.components, plan.analysis, plan.level
    excess = max(c.cov2 - c.cov3, 0.0)
    shrink = plan.pilot_cases / cases
    own = shrink * max(c.error - c.cov1 - excess, 0.0)
    interaction = _interaction(c)
    if analysis == "frrc":
        variance = own + shrink * readers * excess
        df = np.inf
    elif analysis == "rrfc":
        variance = interaction + own
        df = readers - 1.0
    else:
        variance = interaction + own + shrink * readers * excess
        part = (interaction + own) ** 2 / (readers - 1)
        df = variance**2 / part if part > 0 else np.inf
    if variance <= 0.0:
        return 1.0
    shift = plan.effect**2 * readers / 2.0 / variance
    if np.isinf(df):
        return float(stats.ncx2.sf(stats.chi2.ppf(level, 1), 1, shift))
    return float(stats.ncf.sf(stats.f.ppf(level, 1, df), 1, df, shift))


def sample_sizes(plan: Plan) -> SampleSizes:
    """The cases needed for each number of readers."""
    alpha = round(1.0 - plan.level, 12)
    rows = [_needed(plan, readers) for readers in READERS]
    return SampleSizes(plan.effect, POWER, alpha, plan.analysis, plan.pilot_cases, rows)


def _needed(plan: Plan, readers: int) -> NeededCases:
    best = power_of(plan, readers, MAX_CASES)
    if best < POWER:
        return NeededCases(readers, None, best)
    low, high = 1, MAX_CASES
    while high - low > 1:
        middle = (low + high) // 2
        enough = power_of(plan, readers, middle) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return NeededCases(readers, high, power_of(plan, readers, high))


def _interaction(c: Components) -> float:
    """Of modality and reader, with Cov2 - Cov3 and itself not below zero."""
    if c.ms_modality_reader is None:
        return 0.0
    found = c.ms_modality_reader - c.error + c.cov1 + max(c.cov2 - c.cov3, 0.0)
    return max(found, 0.0)

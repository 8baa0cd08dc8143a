"""Two models on different patients, such as those of two hospitals: the difference of their AUCs,
and of sensitivity and specificity at a threshold that was declared for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from medres.errors import EvaluationError
from medres.evaluate.analyses.model_comparison import check_comparable
from medres.evaluate.analyses.subgroups import OVERLAY_POINTS
from medres.evaluate.metrics.auc import newcombe_estimate, newcombe_limits
from medres.evaluate.metrics.roc import (
    Placements,
    class_parts,
    leverage_covariance,
    placements,
    satterthwaite,
    thin_curve,
)
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.options import ReportOptions
from medres.evaluate.schema import Comparison, Headline, Noninferiority, PairedRates
from medres.evaluate.scores.ids import shared_ids, uncertain
from medres.evaluate.scores.sample import Sample
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.clusters import degrees, few_effective, t_quantile
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import normal_quantile, proportion_estimate

INDEPENDENT = "unpaired DeLong"
CLUSTERED = "unpaired Obuchowski"
HYBRID = "Newcombe 1998, method 10"
HYBRID_AUC = "Newcombe 2006, method 5 for each AUC, combined by Newcombe 1998, method 10"
NO_VARIANCE = 1e-24
SMALLEST_P = 1e-12
FEW_EXPECTED = 5.0  # units in a cell of a 2 x 2 table; below it, Fisher's exact test


class Independence(NamedTuple):
    """The ID columns by which two tables share no patient, and those for which this cannot be
    said, with the reason."""

    nothing_shared_by: list[str]
    not_comparable: dict[str, str]


def check_disjoint(a: Table, b: Table) -> Independence:
    """The tables must hold the same findings and no patient in common; images are compared if a
    table has no patients. Raises EvaluationError (codes shared_patients, findings_differ,
    several_seeds).
    """
    check_comparable(a, b)
    both = [c for c in ("patient", "image") if c in a.columns and c in b.columns]
    if not both:
        why = f"{a.name!r} or {b.name!r} has no column 'patient'"
        return Independence([], {"patient": why})
    level = both[0]
    shared = shared_ids(a.columns[level], b.columns[level])
    if shared.same:
        raise EvaluationError(
            f"{shared.same} {level}{'s are' if shared.same > 1 else ' is'} in both {a.name!r} and "
            f"{b.name!r}, so their AUCs are not independent: compare scores of the same images "
            "with --compare; if the IDs are those of different people, make them different, such "
            "as with a prefix for the hospital",
            code="shared_patients",
        )
    why_uncertain = uncertain(shared, level, repr(b.name), repr(a.name))
    if why_uncertain is not None:
        return Independence([], {level: why_uncertain})
    if level == "image":
        why = f"{a.name!r} or {b.name!r} has no column 'patient'; only the images were compared"
        return Independence(["image"], {"patient": why})
    return Independence([level], {})


def unpaired_report(
    a: AnalysisUnits,
    b: AnalysisUnits,
    names: tuple[str, str],
    thresholds: dict[str, list[Threshold]],
    options: ReportOptions,
    headline: Headline = "image",
) -> list[Comparison]:
    """One comparison per finding, with the keys of a paired one; no unit is common. `adjust` fills
    in p_adjusted.
    """
    return [
        _comparison(finding, (a.sample(finding), b.sample(finding)), names, thresholds[finding],
                    options, headline)
        for finding in a.names
    ]  # fmt: skip


def _comparison(
    finding: str,
    pair: tuple[Sample, Sample],
    names: tuple[str, str],
    thresholds: list[Threshold],
    options: ReportOptions,
    headline: Headline,
) -> Comparison:
    clustered = any(sample.clustered for sample in pair)
    difference, p_value = unpaired_difference(*pair, options.level)
    weighted: tuple[Estimate | None, float | None] = None, None
    if clustered:
        weighted = unpaired_difference(*pair, options.level, patient_weighted=True)
    rates = [
        unpaired_rates(*pair, threshold, options.level)
        for threshold in thresholds
        if threshold.origin == "declared"
    ]
    noninferiority = None
    if options.margin is not None:
        limits, _ = unpaired_difference(*pair, 0.95, patient_weighted=headline == "patient")
        noninferiority = Noninferiority(
            options.margin,
            names[1],
            None if limits.ci_low is None else limits.ci_low > -options.margin,
            "patient" if headline == "patient" else None,
        )
    other = pair[1]
    return Comparison(
        finding=finding,
        a=names[0],
        b=names[1],
        n_common=0,
        n_a=pair[0].label.size,
        n_b=other.label.size,
        auc_difference=difference,
        p_value=p_value,
        auc_difference_patient_weighted=weighted[0],
        p_value_patient_weighted=weighted[1],
        method=CLUSTERED if clustered else INDEPENDENT,
        b_counts=thin_curve(other.counts, OVERLAY_POINTS) if other.label.size else None,
        n_positive=other.n_positive if other.label.size else None,
        rates=rates[0] if rates else None,
        other_rates=rates[1:] or None,
        noninferiority=noninferiority,
    )


def unpaired_difference(
    a: Sample, b: Sample, level: float, *, patient_weighted: bool = False
) -> tuple[Estimate, float | None]:
    """AUC(a) - AUC(b) of different patients, and the two-sided p-value.

    The variance is the sum of the two variances (DeLong 1988; Obuchowski 1997 for several units
    per patient). Student's t has Satterthwaite's degrees of freedom, with (effective) patients - 1
    in each class of each model. If an AUC has no variance, as at exactly 0 or 1, the limits come
    from those of the two AUCs (Newcombe 2006, method 5) as in `difference_of_rates`, and the
    p-value from the level at which they reach 0. Fewer than ten (effective) patients in a class are
    flagged.
    """
    n = a.label.size + b.label.size
    for sample, name in ((a, "A"), (b, "B")):
        if sample.n_positive == 0 or sample.n_negative == 0:
            return undefined(f"one class only among the units of {name}", n=n), None
    try:
        models = [placements(s, patient_weighted=patient_weighted) for s in (a, b)]
        variances = [float(leverage_covariance([model])[0, 0]) for model in models]
    except ValueError as error:
        return undefined(str(error), n=n), None
    difference = models[0].auc - models[1].auc
    clustered = a.clustered or b.clustered
    method = f"{CLUSTERED if clustered else INDEPENDENT}, Wald, t"
    if min(variances) > NO_VARIANCE:
        df = satterthwaite([part for model in models for part in class_parts([model])])
        error_size = math.sqrt(sum(variances))
        below = above = t_quantile(level, df) * error_size
        p_value = float(2.0 * stats.t.sf(abs(difference) / error_size, df))
    else:
        limits = _AucLimits((a, b), models, patient_weighted)
        below, above = limits.distances(level)
        p_value, method = limits.p_value(), HYBRID_AUC
    method += ", equal weight per patient" if patient_weighted else ""
    fewest = min(s.effective_patients(label) for s in (a, b) for label in (True, False))
    estimate = Estimate(
        difference,
        max(-1.0, difference - below),
        min(1.0, difference + above),
        level,
        "two",
        method,
        n=n,
        n_clusters=a.n_patients + b.n_patients if clustered else None,
        flag=few_effective(fewest),
    )
    return estimate, p_value


@dataclass(frozen=True)
class _AucLimits:
    """Two AUCs of which one has no variance: Newcombe's method 5 for each of them, combined as in
    his method 10 for proportions."""

    pair: tuple[Sample, Sample]
    models: list[Placements]
    patient_weighted: bool

    def distances(self, level: float) -> tuple[float, float]:
        """(below, above): how far the limits of the difference are from it."""
        (a, low_a, high_a), (b, low_b, high_b) = (
            (model.auc, *self._limits(sample, model, level))
            for sample, model in zip(self.pair, self.models, strict=True)
        )
        return math.hypot(a - low_a, high_b - b), math.hypot(high_a - a, b - low_b)

    def _limits(self, sample: Sample, model: Placements, level: float) -> tuple[float, float]:
        if not self.patient_weighted:
            return newcombe_estimate(model, sample, level).bounds or (0.0, 1.0)
        patients = model.n_clusters_positive, model.n_clusters_negative
        return newcombe_limits(model.auc, *patients, normal_quantile(level))

    def p_value(self) -> float:
        """1 - the greatest level whose interval leaves 0 out."""
        difference = self.models[0].auc - self.models[1].auc
        side = 0 if difference > 0.0 else 1

        def room(p: float) -> float:
            return abs(difference) - self.distances(1.0 - p)[side]

        if room(SMALLEST_P) >= 0.0:
            return SMALLEST_P
        largest = 1.0 - 1e-9
        return 1.0 if room(largest) <= 0.0 else float(brentq(room, SMALLEST_P, largest))


def unpaired_rates(a: Sample, b: Sample, threshold: Threshold, level: float) -> PairedRates:
    """Differences of sensitivity and of specificity (a - b) at a threshold that holds for both,
    with p-values.
    """
    rates = [
        [
            proportion_estimate(
                (s.score[s.label == label] >= threshold.value) == label,
                s.patient[s.label == label],
                level,
            )
            for s in (a, b)
        ]
        for label in (True, False)
    ]
    return PairedRates(
        operating_point=threshold.name,
        threshold=None if threshold.why else threshold.value,
        sensitivity_difference=difference_of_rates(*rates[0]),
        sensitivity_p=rates_p_value(*rates[0]),
        specificity_difference=difference_of_rates(*rates[1]),
        specificity_p=rates_p_value(*rates[1]),
    )


def difference_of_rates(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent proportions: Newcombe 1998, method 10, from their own intervals
    (Wilson's, which allow for several units per patient).
    """
    n = (a.n or 0) + (b.n or 0)
    if a.estimate is None or b.estimate is None:
        return undefined(a.why or b.why or "", n=n)
    difference = a.estimate - b.estimate
    if a.bounds is None or b.bounds is None:
        return Estimate(difference, why=a.why or b.why, n=n)
    below = math.hypot(a.estimate - a.bounds[0], b.bounds[1] - b.estimate)
    above = math.hypot(a.bounds[1] - a.estimate, b.estimate - b.bounds[0])
    clustered = a.n_clusters is not None or b.n_clusters is not None
    return Estimate(
        difference,
        max(-1.0, difference - below),
        min(1.0, difference + above),
        a.level,
        "two",
        HYBRID + (", patients as clusters" if clustered else ""),
        n=n,
        flag=a.flag or b.flag,
    )


def rates_p_value(a: Estimate, b: Estimate) -> float | None:
    """Two-sided p-value that two independent proportions are equal: the chi-square test without
    correction, or Fisher's exact test if a cell of the table is expected to hold fewer than five
    units. With several units per patient the chi-square test of the effective numbers of units
    (Rao & Scott 1992), by Student's t. None if a proportion has no interval.
    """
    if a.bounds is None or b.bounds is None:
        return None
    hits, units = (
        np.array([float(getattr(e, key) or 0) for e in (a, b)])
        for key in ("numerator", "denominator")
    )
    clustered = a.n_clusters is not None or b.n_clusters is not None
    effective = np.array([e.n_effective or e.denominator or 0.0 for e in (a, b)])
    share = hits / units
    pooled = float(effective @ share / effective.sum())
    if pooled in (0.0, 1.0):
        return 1.0
    if not clustered and min(pooled, 1.0 - pooled) * units.min() < FEW_EXPECTED:
        table = np.column_stack([hits, units - hits]).astype(np.int64)
        return float(stats.fisher_exact(table).pvalue)
    variances = pooled * (1.0 - pooled) / effective
    ratio = abs(share[0] - share[1]) / math.sqrt(float(variances.sum()))
    if not clustered:
        return float(2.0 * stats.norm.sf(ratio))
    patients = [e.effective_patients or e.n_clusters or e.denominator or 0.0 for e in (a, b)]
    df = satterthwaite([(float(v), degrees(p)) for v, p in zip(variances, patients, strict=True)])
    return float(2.0 * stats.t.sf(ratio, df))

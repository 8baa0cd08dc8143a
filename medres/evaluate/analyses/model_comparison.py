"""Two models on the same images: the paired difference of their AUCs, with patients as clusters."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate.analyses.paired_rates import ONE_CLASS, global_test, paired_rates
from medres.evaluate.analyses.subgroups import OVERLAY_POINTS, holm
from medres.evaluate.metrics.roc import (
    auc_covariance,
    leverage_covariance,
    placements,
    thin_curve,
    unequal_df,
)
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.options import ReportOptions
from medres.evaluate.schema import Comparison, GlobalComparison, Headline, Noninferiority
from medres.evaluate.scores.ids import shared_ids
from medres.evaluate.scores.sample import Sample, rank_counts
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.estimate import Estimate, undefined


def check_comparable(a: Table, b: Table) -> None:
    """Both tables must have the same findings and one seed. Raises EvaluationError."""
    for table in (a, b):
        if "seed" in table.columns:
            raise EvaluationError(
                f"the table {table.name!r} has several seeds and cannot be compared: give one "
                "table per seed",
                code="several_seeds",
            )
    if a.task != b.task or set(a.names) != set(b.names):
        raise EvaluationError(
            f"the table {b.name!r} has the findings {', '.join(b.names)}, the table {a.name!r} "
            f"{', '.join(a.names)}: give the same columns in both",
            code="findings_differ",
        )


def align(a: Table, b: Table) -> tuple[Table, Table]:
    """Both tables on their common images, in the order of `a`, with the labels and ids of `a`.
    Raises EvaluationError.
    """
    for table in (a, b):
        if "image" not in table.columns:
            raise EvaluationError(
                f"the table {table.name!r} has no column 'image', which is needed because rows are "
                "matched by image id",
                code="missing_column",
            )
    check_comparable(a, b)
    row_in_b = (
        pd.Series(np.arange(b.n_rows), index=b.columns["image"])
        .reindex(a.columns["image"])
        .to_numpy()
    )
    common = np.flatnonzero(~np.isnan(row_in_b))
    if common.size == 0:
        raise EvaluationError(
            f"the tables {a.name!r} and {b.name!r} have no image in common: give the scores of the "
            f"same images, with the same ids{_similar_hint(a, b)}",
            code="no_common_image",
        )
    rows = row_in_b[common].astype(np.int64)
    for name in a.names:
        if not np.array_equal(a.label[name][common], b.label[name][rows], equal_nan=True):
            raise EvaluationError(
                f"the labels of {name!r} in {b.name!r} differ from those in {a.name!r}: give both "
                "tables the same labels",
                code="labels_differ",
            )
    aligned = replace(
        a,
        label={n: v[common] for n, v in a.label.items()},
        score={n: v[common] for n, v in a.score.items()},
        status=a.status[common],
        columns=a.columns.iloc[common].reset_index(drop=True),
    )
    return aligned, replace(
        aligned,
        score={n: b.score[n][rows] for n in a.names},
        status=b.status[rows],
        sha256=b.sha256,
        name=b.name,
    )


def _similar_hint(a: Table, b: Table) -> str:
    similar = shared_ids(a.columns["image"], b.columns["image"]).similar
    return (
        f" ({similar} differ only in case or leading zeros: --fold-ids ignores that)"
        if similar
        else ""
    )


def comparison_report(
    a: AnalysisUnits,
    b: AnalysisUnits,
    names: tuple[str, str],
    thresholds: dict[str, list[Threshold]],
    options: ReportOptions,
    headline: Headline = "image",
) -> list[Comparison]:
    """One comparison per finding. Sensitivity and specificity are compared at each declared
    threshold, which holds for both models (a frozen one belongs to its own model). `adjust` fills
    in p_adjusted at the end.
    """
    comparisons = []
    for finding in a.names:
        use = a.usable(finding) & b.usable(finding)
        pair = [
            Sample(u.label[finding][use] == 1.0, u.score[finding][use], u.patient[use], u.fold[use])
            for u in (a, b)
        ]
        difference, p_value = paired_difference(pair[0], pair[1], options.level)
        weighted: tuple[Estimate | None, float | None] = None, None
        if pair[0].clustered:
            weighted = paired_difference(pair[0], pair[1], options.level, patient_weighted=True)
        b_curve = noninferiority = None
        if pair[1].label.size:
            b_curve = thin_curve(rank_counts(pair[1].label, pair[1].score), OVERLAY_POINTS)
        rates = [
            paired_rates(pair[0], pair[1], threshold, options.level)
            for threshold in thresholds[finding]
            if threshold.origin == "declared"
        ]
        if options.margin is not None:
            noninferiority = Noninferiority(
                options.margin,
                names[1],
                _noninferior(pair, options.margin, headline),
                "patient" if headline == "patient" else None,
            )
        comparisons.append(
            Comparison(
                finding=finding,
                a=names[0],
                b=names[1],
                n_common=int(use.sum()),
                auc_difference=difference,
                p_value=p_value,
                auc_difference_patient_weighted=weighted[0],
                p_value_patient_weighted=weighted[1],
                method="paired Obuchowski" if pair[0].clustered else "paired DeLong",
                b_counts=b_curve,
                n_positive=None if b_curve is None else pair[1].n_positive,
                rates=rates[0] if rates else None,
                other_rates=rates[1:] or None,
                noninferiority=noninferiority,
            )
        )
    return comparisons


def global_comparisons(models: list[AnalysisUnits], names: list[str]) -> list[GlobalComparison]:
    """One test per finding: whether three or more models, on their common units, have the same
    AUC.
    """
    comparisons = []
    for finding in models[0].names:
        use = np.logical_and.reduce([units.usable(finding) for units in models])
        samples = [
            Sample(u.label[finding][use] == 1.0, u.score[finding][use], u.patient[use], u.fold[use])
            for u in models
        ]
        weighted = global_test(samples, patient_weighted=True) if samples[0].clustered else None
        comparisons.append(
            GlobalComparison(finding, names, int(use.sum()), global_test(samples), weighted)
        )
    return comparisons


def paired_difference(
    a: Sample, b: Sample, level: float, *, patient_weighted: bool = False
) -> tuple[Estimate, float | None]:
    """AUC(a) - AUC(b) on the same units, Wald interval truncated to -1..1, and the two-sided
    p-value; by Student's t if patients have different numbers of units and units weigh the same.
    """
    unequal = a.unequal and not patient_weighted
    n = a.label.size
    if a.n_positive == 0 or a.n_negative == 0:
        return undefined(ONE_CLASS, n=n), None
    try:
        models = [placements(s, patient_weighted=patient_weighted) for s in (a, b)]
        difference = models[0].auc - models[1].auc
        covariance = leverage_covariance(models) if unequal else auc_covariance(models)
    except ValueError as error:
        return undefined(str(error), n=n), None
    variance = float(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])
    if variance < 1e-24:
        return Estimate(
            difference,
            why="the estimated variance is zero: both models rank the units identically",
            n=n,
        ), None
    error_size = math.sqrt(variance)
    reference = stats.t(unequal_df(models)) if unequal else stats.norm()
    half = float(reference.ppf(0.5 + level / 2.0)) * error_size
    method = "paired Obuchowski, Wald" if a.clustered else "paired DeLong, Wald"
    method += ", t for unequal patients" if unequal else ""
    method += ", equal weight per patient" if patient_weighted else ""
    estimate = Estimate(
        difference,
        max(-1.0, difference - half),
        min(1.0, difference + half),
        level,
        "two",
        method,
        n=n,
        n_clusters=a.n_patients if a.clustered else None,
    )
    return estimate, float(2.0 * reference.sf(abs(difference) / error_size))


def adjust(comparisons: list[Comparison]) -> list[Comparison]:
    """The same with p_adjusted: Holm over every comparison of the report."""
    adjusted = holm(
        {str(i): row.p_value for i, row in enumerate(comparisons) if row.p_value is not None}
    )
    return [replace(row, p_adjusted=adjusted.get(str(i))) for i, row in enumerate(comparisons)]


def _noninferior(pair: list[Sample], margin: float, headline: Headline) -> bool | None:
    """Whether the one-sided 97.5 % lower limit of a - b is above -margin; None if there is no
    interval.
    """
    one_sided, _ = paired_difference(pair[0], pair[1], 0.95, patient_weighted=headline == "patient")
    return None if one_sided.ci_low is None else one_sided.ci_low > -margin

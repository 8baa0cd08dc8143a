"""Two models on the same images: paired difference of AUCs, with patients as clusters where they
repeat.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate.analyses.paired_rates import ONE_CLASS, global_test, paired_rates
from medres.evaluate.analyses.subgroups import OVERLAY_POINTS, holm
from medres.evaluate.metrics.operating_point import Threshold
from medres.evaluate.metrics.roc import auc_covariance, placements, thin_curve
from medres.evaluate.options import ReportOptions
from medres.evaluate.scores.sample import Sample, rank_counts
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import normal_quantile


def align(a: Table, b: Table) -> tuple[Table, Table]:
    """Both tables on their common images, in the order of `a`, with the labels and ids of `a`.
    Raises EvaluationError.
    """
    for table in (a, b):
        if "image" not in table.columns:
            raise EvaluationError(
                f"the {table.name!r} table has no column 'image': rows are compared by image id"
            )
        if "seed" in table.columns:
            raise EvaluationError(
                "a table with several seeds cannot be compared: give one seed a table"
            )
    if a.task != b.task or set(a.names) != set(b.names):
        raise EvaluationError(f"the table {b.name!r} has other findings than {a.name!r}")
    place = (
        pd.Series(np.arange(b.n_rows), index=b.columns["image"])
        .reindex(a.columns["image"])
        .to_numpy()
    )
    common = np.flatnonzero(~np.isnan(place))
    if common.size == 0:
        raise EvaluationError(f"{a.name!r} and {b.name!r} have no image in common")
    there = place[common].astype(np.int64)
    for name in a.names:
        if not np.array_equal(a.label[name][common], b.label[name][there], equal_nan=True):
            raise EvaluationError(
                f"the labels of {name!r} in {b.name!r} differ from those in {a.name!r}"
            )
    kept = replace(
        a,
        label={n: v[common] for n, v in a.label.items()},
        score={n: v[common] for n, v in a.score.items()},
        status=a.status[common],
        columns=a.columns.iloc[common].reset_index(drop=True),
    )
    return kept, replace(
        kept,
        score={n: b.score[n][there] for n in a.names},
        status=b.status[there],
        sha256=b.sha256,
        name=b.name,
    )


def comparison_report(
    a: AnalysisUnits,
    b: AnalysisUnits,
    names: tuple[str, str],
    points: dict[str, list[Threshold]],
    options: ReportOptions,
) -> list[dict[str, Any]]:
    """One dict a finding. Sensitivity and specificity are compared at a declared threshold, which
    holds for both models (a frozen one belongs to its own model). p_adjusted (Holm) is filled in by
    `adjust` at the end.
    """
    out = []
    for finding in a.names:
        use = a.usable(finding) & b.usable(finding)
        pair = [
            Sample(u.label[finding][use] == 1.0, u.score[finding][use], u.patient[use], u.fold[use])
            for u in (a, b)
        ]
        difference, p_value = paired_difference(pair[0], pair[1], options.level)
        row: dict[str, Any] = {
            "finding": finding,
            "a": names[0],
            "b": names[1],
            "direction": "a-b",
            "n_common": int(use.sum()),
            "auc_difference": difference,
            "p_value": p_value,
            "method": "paired Obuchowski" if pair[0].clustered else "paired DeLong",
            "alternative": "two-sided",
        }
        if pair[1].label.size:
            row["b_counts"] = thin_curve(rank_counts(pair[1].label, pair[1].score), OVERLAY_POINTS)
            row["n_positive"] = pair[1].n_positive
        declared = [p for p in points[finding] if p.origin == "declared"]
        if declared:
            row |= {"operating_point": declared[0].name} | paired_rates(
                pair[0], pair[1], declared[0].threshold, options.level
            )
        if options.margin is not None:
            row |= {
                "margin": options.margin,
                "reference": names[1],
                "noninferior": _noninferior(pair, options.margin),
            }
        out.append(row)
    return out


def global_comparisons(models: list[AnalysisUnits], names: list[str]) -> list[dict[str, Any]]:
    """One dict a finding: whether three or more models, on their common units, have the same
    AUC.
    """
    out = []
    for finding in models[0].names:
        use = np.logical_and.reduce([units.usable(finding) for units in models])
        samples = [
            Sample(u.label[finding][use] == 1.0, u.score[finding][use], u.patient[use], u.fold[use])
            for u in models
        ]
        out.append(
            {"finding": finding, "models": names, "n_common": int(use.sum())} | global_test(samples)
        )
    return out


def paired_difference(a: Sample, b: Sample, level: float) -> tuple[Estimate, float | None]:
    """AUC(a) - AUC(b) on the same units, Wald interval truncated to -1..1, and the two-sided
    p-value.
    """
    n = a.label.size
    if a.n_positive == 0 or a.n_negative == 0:
        return undefined(ONE_CLASS, n=n), None
    try:
        models = [placements(a), placements(b)]
        difference = models[0].auc - models[1].auc
        covariance = auc_covariance(models)
    except ValueError as error:
        return undefined(str(error), n=n), None
    variance = float(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])
    if variance < 1e-24:
        return Estimate(
            difference, why="the estimated variance is zero: the models rank alike", n=n
        ), None
    error_size = math.sqrt(variance)
    half = normal_quantile(level) * error_size
    method = "paired Obuchowski, Wald" if a.clustered else "paired DeLong, Wald"
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
    return estimate, float(2.0 * stats.norm.sf(abs(difference) / error_size))


def adjust(rows: list[dict[str, Any]]) -> None:
    """Holm over every comparison in the report."""
    adjusted = holm(
        {str(i): row["p_value"] for i, row in enumerate(rows) if row["p_value"] is not None}
    )
    for i, row in enumerate(rows):
        row["p_adjusted"] = adjusted.get(str(i))


def _noninferior(pair: list[Sample], margin: float) -> bool | None:
    """Whether the one-sided 97.5 % lower limit of a - b lies above -margin; None where there is no
    interval.
    """
    one_sided, _ = paired_difference(pair[0], pair[1], 0.95)
    return None if one_sided.ci_low is None else one_sided.ci_low > -margin

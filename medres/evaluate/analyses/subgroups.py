"""The same figures in parts of the patients, with a test whether the AUC differs between the
parts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.operating_point import (
    OperatingPointContext,
    Threshold,
    operating_point_context,
    operating_point_report,
)
from medres.evaluate.metrics.roc import influence, placements, thin_curve
from medres.evaluate.options import ReportOptions
from medres.evaluate.scores.sample import Sample, rank_counts
from medres.evaluate.scores.units import AnalysisUnits

SMALLEST = 10
MAX_LEVELS = 12
OVERLAY_POINTS = 80
AGE_EDGES = (0, 18, 40, 65, 80, 200)
UNKNOWN = "(unknown)"


def subgroup_report(
    units: AnalysisUnits, name: str, points: list[Threshold], options: ReportOptions
) -> list[dict[str, Any]]:
    """One dict a level of each column in `options.subgroups`; figures left out where a class has
    under 10 patients.
    """
    use, sample, rows = units.usable(name), units.sample(name), []
    p_values: dict[str, float] = {}
    for column in options.subgroups:
        every = levels(units.columns, column)
        level_of, kept = every[use], []
        for level in sorted(set(level_of)):
            part, context = (
                sample.take(level_of == level),
                operating_point_context(units, name, options, every == level),
            )
            row = _row(part, column, str(level), points, context)
            rows.append(row)
            if not row["suppressed"] and level != UNKNOWN:
                kept.append(part)
        p_value = interaction(kept, int(sample.patient.max(initial=0)) + 1)
        if p_value is not None:
            p_values[column] = p_value
    adjusted = holm(p_values)
    for row in rows:
        row["interaction_p"], row["p_holm"] = (
            p_values.get(row["column"]),
            adjusted.get(row["column"]),
        )
    return rows


def levels(columns: pd.DataFrame, column: str) -> np.ndarray:
    """(n,) text levels; ages in years fall into fixed bands. Raises EvaluationError for an unknown
    or endless column.
    """
    if column not in columns.columns:
        raise EvaluationError(
            f"there is no column {column!r} for a subgroup; the table has "
            f"{', '.join(columns.columns)}"
        )
    text = (
        columns[column].astype("object").where(columns[column].notna(), "").astype(str).str.strip()
    )
    number = pd.to_numeric(text.where(text != "", None), errors="coerce")
    if column.lower() == "age" and bool((number.notna() | (text == "")).all()):
        names = [
            f"{low}-{high - 1}" if high < 200 else f"{low}+" for low, high in pairwise(AGE_EDGES)
        ]
        bands = pd.cut(number, list(AGE_EDGES), right=False, labels=names)
        return bands.astype("object").where(bands.notna(), UNKNOWN).to_numpy().astype(str)
    out = text.where(text != "", UNKNOWN).to_numpy().astype(str)
    if len(set(out)) > MAX_LEVELS:
        raise EvaluationError(
            f"the subgroup column {column!r} has {len(set(out))} levels, over {MAX_LEVELS}: put "
            f"it into bands beforehand"
        )
    return out


def interaction(parts: list[Sample], n_patients: int) -> float | None:
    """Wald chi-square that the logit AUCs of the parts are equal, patients shared between parts
    allowed; None if undefined.
    """
    models = [placements(part, n_patients) for part in parts]
    auc = np.array([m.auc for m in models])
    if auc.size < 2 or (auc <= 0.0).any() or (auc >= 1.0).any():
        return None
    slope = 1.0 / (auc * (1.0 - auc))
    phi = np.stack([influence(m) for m in models]) * slope[:, None]
    contrast = np.diff(np.eye(auc.size), axis=0)
    difference, covariance = (
        contrast @ np.log(auc / (1.0 - auc)),
        contrast @ (phi @ phi.T) @ contrast.T,
    )
    if np.linalg.matrix_rank(covariance) < auc.size - 1:
        return None
    chi_square = float(difference @ np.linalg.solve(covariance, difference))
    return float(stats.chi2.sf(chi_square, auc.size - 1))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm 1979 step-down adjusted p-values."""
    out, running = {}, 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, (len(p_values) - rank) * p))
        out[key] = running
    return out


def _row(
    part: Sample, column: str, level: str, points: list[Threshold], context: OperatingPointContext
) -> dict[str, Any]:
    positive, negative = part.patients_with(True), part.patients_with(False)
    row: dict[str, Any] = {
        "column": column, "level": level, "n": part.label.size, "n_positive": part.n_positive,
        "n_positive_patients": positive, "n_negative_patients": negative,
        "suppressed": min(positive, negative) < SMALLEST,
    }  # fmt: skip
    if not row["suppressed"]:
        row["auc"] = auc_estimates(part, context.level)["auc"]
        row["counts"] = thin_curve(rank_counts(part.label, part.score), OVERLAY_POINTS)
        row["operating_points"] = [operating_point_report(part, point, context) for point in points]
    return row

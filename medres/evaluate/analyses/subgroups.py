"""The headline figures in subgroups, with a test of whether the AUC differs between them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.operating_point import (
    OperatingPointContext,
    operating_point_context,
    operating_point_report,
)
from medres.evaluate.metrics.roc import influence, placements, thin_curve
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.options import ReportOptions
from medres.evaluate.schema import Subgroup
from medres.evaluate.scores.sample import Sample, rank_counts
from medres.evaluate.scores.units import AnalysisUnits

MIN_PATIENTS = 10
MAX_LEVELS = 12
OVERLAY_POINTS = 80
AGE_EDGES = (0, 18, 40, 65, 80, 200)
UNKNOWN = "(unknown)"


def subgroup_report(
    units: AnalysisUnits, name: str, thresholds: list[Threshold], options: ReportOptions
) -> list[Subgroup]:
    """One row per level of each column in `options.subgroups`; figures are left out if a class
    has fewer than 10 patients.
    """
    use, sample = units.usable(name), units.sample(name)
    rows: list[Subgroup] = []
    p_values: dict[str, float] = {}
    for column in options.subgroups:
        every = levels(units.columns, column)
        level_of, compared = every[use], []
        for level in sorted(set(level_of)):
            part = sample.take(level_of == level)
            context = operating_point_context(units, name, options, every == level)
            row = _row(part, column, str(level), thresholds, context)
            rows.append(row)
            if not row.suppressed and level != UNKNOWN:
                compared.append(part)
        p_value = interaction(compared, int(sample.patient.max(initial=0)) + 1)
        if p_value is not None:
            p_values[column] = p_value
    adjusted = holm(p_values)
    return [
        replace(row, interaction_p=p_values.get(row.column), p_holm=adjusted.get(row.column))
        for row in rows
    ]


def levels(columns: pd.DataFrame, column: str) -> np.ndarray:
    """(n,) text levels; ages in years are binned. Raises EvaluationError for an unknown column and
    for one with more than MAX_LEVELS levels.
    """
    if column not in columns.columns:
        raise EvaluationError(
            f"there is no column {column!r} for subgroups; the table has "
            f"{', '.join(columns.columns)}",
            code="missing_column",
        )
    text = (
        columns[column].astype("object").where(columns[column].notna(), "").astype(str).str.strip()
    )
    number = pd.to_numeric(text.where(text != "", None), errors="coerce")
    if column.lower() == "age" and bool((number.notna() | (text == "")).all()):
        names = [
            f"{low}-{high - 1}" if high < 200 else f"{low}+" for low, high in pairwise(AGE_EDGES)
        ]
        age_groups = pd.cut(number, list(AGE_EDGES), right=False, labels=names)
        return age_groups.astype("object").where(age_groups.notna(), UNKNOWN).to_numpy().astype(str)
    out = text.where(text != "", UNKNOWN).to_numpy().astype(str)
    if len(set(out)) > MAX_LEVELS:
        raise EvaluationError(
            f"the subgroup column {column!r} has {len(set(out))} categories, more than "
            f"{MAX_LEVELS}: merge some, or bin a numeric column",
            code="too_many_levels",
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
    part: Sample,
    column: str,
    level: str,
    thresholds: list[Threshold],
    context: OperatingPointContext,
) -> Subgroup:
    positive, negative = part.patients_with(True), part.patients_with(False)
    row = Subgroup(
        column=column,
        level=level,
        n=part.label.size,
        n_positive=part.n_positive,
        n_positive_patients=positive,
        n_negative_patients=negative,
        suppressed=min(positive, negative) < MIN_PATIENTS,
    )
    if row.suppressed:
        return row
    return replace(
        row,
        auc=auc_estimates(part, context.level).auc,
        counts=thin_curve(rank_counts(part.label, part.score), OVERLAY_POINTS),
        operating_points=[
            operating_point_report(part, threshold, context) for threshold in thresholds
        ],
    )

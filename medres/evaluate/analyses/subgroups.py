"""The headline figures in subgroups, with a test of whether the AUC differs between them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.analyses.level_test import LevelTest, level_test
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.operating_point import (
    OperatingPointContext,
    operating_point_context,
    operating_point_report,
)
from medres.evaluate.metrics.roc import thin_curve
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.options import ReportOptions
from medres.evaluate.schema import Subgroup
from medres.evaluate.scores.sample import Sample
from medres.evaluate.scores.table import factorized
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
    tests: dict[str, LevelTest] = {}
    for column in options.subgroups:
        every = levels(units.columns, column)
        level_of = every[use]
        compared: list[str] = []
        for level in sorted(set(level_of)):
            context = operating_point_context(units, name, options, every == level)
            row = _row(sample.take(level_of == level), column, str(level), thresholds, context)
            rows.append(row)
            if not row.suppressed and level != UNKNOWN:
                compared.append(str(level))
        tests[column] = level_test(sample, level_of, compared)
    adjusted = holm({c: t.p_value for c, t in tests.items() if t.p_value is not None})
    return [
        replace(
            row,
            interaction_p=tests[row.column].p_value,
            interaction_method=tests[row.column].method,
            interaction_why=tests[row.column].why,
            p_holm=adjusted.get(row.column),
        )
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
    codes, values = factorized(columns[column])
    text = pd.Series([*values, ""], dtype="object").astype(str).str.strip()
    return _level_names(text, column)[codes]


def _level_names(text: pd.Series, column: str) -> np.ndarray:
    """(k,) the levels of different cells."""
    if column.lower() == "age":
        number = pd.to_numeric(text.where(text != "", None), errors="coerce")
        if bool((number.notna() | (text == "")).all()):
            names = [
                f"{low}-{high - 1}" if high < 200 else f"{low}+"
                for low, high in pairwise(AGE_EDGES)
            ]
            groups = pd.cut(number, list(AGE_EDGES), right=False, labels=names)
            return groups.astype("object").where(groups.notna(), UNKNOWN).to_numpy().astype(str)
    out = text.where(text != "", UNKNOWN).to_numpy().astype(str)
    different = len(set(out[:-1]))
    if different > MAX_LEVELS:
        raise EvaluationError(
            f"the subgroup column {column!r} has {different} categories, more than "
            f"{MAX_LEVELS}: merge some, or bin a numeric column",
            code="too_many_levels",
        )
    return out


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
    auc = auc_estimates(part, context.level)
    return replace(
        row,
        auc=auc.auc,
        auc_patient_weighted=auc.auc_patient_weighted,
        counts=thin_curve(part.counts, OVERLAY_POINTS),
        operating_points=[
            operating_point_report(part, threshold, context) for threshold in thresholds
        ],
    )

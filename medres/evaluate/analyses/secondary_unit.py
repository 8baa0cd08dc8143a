"""The headline of each finding at another unit of analysis: by patient where images were evaluated,
and the reverse.

A patient counts as flagged where any image is (scores pooled by max) and as positive where any
image is. The thresholds are those of the report; they were not chosen at this unit.
"""

from __future__ import annotations

from typing import Any

from medres.evaluate.analyses.finding import wilson_terms
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.operating_point import (
    Threshold,
    operating_point_context,
    operating_point_report,
)
from medres.evaluate.metrics.roc import thin_curve
from medres.evaluate.options import ReportOptions
from medres.evaluate.scores.sample import rank_counts
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits, to_units


def other_units(table: Table, units: AnalysisUnits) -> AnalysisUnits | None:
    """Patients where these are repeated in the units, else images where these were pooled; None
    where nothing differs.
    """
    if table.task == "multiclass":
        return None
    if units.unit != "patient" and units.has_patient and units.n_patients != units.n_units:
        return to_units(table, "patient", "max", "any")
    if units.unit == "patient" and units.pooled:
        return to_units(table, "image", "max", None)
    return None


def other_numbers(
    units: AnalysisUnits, name: str, points: list[Threshold], options: ReportOptions
) -> dict[str, Any]:
    """unit, n, n_positive, auc, operating_points and curves of one finding (values: Estimates)."""
    sample = units.sample(name)
    context = operating_point_context(units, name, options)
    out: dict[str, Any] = {
        "unit": units.unit,
        "pooling": {"score": "max", "label": "any"} if units.pooled else None,
        "n": sample.label.size,
        "n_positive": sample.n_positive,
        "auc": auc_estimates(sample, options.level)["auc"],
        "operating_points": [operating_point_report(sample, point, context) for point in points],
    }
    if sample.label.size:
        out["curves"] = {
            "counts": thin_curve(rank_counts(sample.label, sample.score)),
            "wilson": wilson_terms(out, options.level),
        }
    return out

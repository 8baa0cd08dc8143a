"""The headline of each finding at a second unit of analysis: by patient if images were evaluated,
and the reverse.

A patient is classified as positive if any image is (scores pooled by max), and has the finding if
any image has it. The thresholds are those of the report; they were not chosen at this unit.
"""

from __future__ import annotations

from dataclasses import replace

from medres.evaluate.analyses.finding import wilson_terms
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.operating_point import (
    operating_point_context,
    operating_point_report,
)
from medres.evaluate.metrics.roc import thin_curve
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.options import ReportOptions
from medres.evaluate.schema import Curves, OtherUnit, Pooling
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits, to_units
from medres.tasks import task_named


def other_units(table: Table, units: AnalysisUnits) -> AnalysisUnits | None:
    """Patients if they repeat in the units, else images if these were pooled; None if there is no
    second unit.
    """
    if task_named(table.task).exclusive:
        return None
    if units.unit != "patient" and units.has_patient and units.n_patients != units.n_units:
        return to_units(_lean(table), "patient", "max", "any")
    if units.unit == "patient" and units.pooled:
        return to_units(_lean(table), "image", "max", None)
    return None


def _lean(table: Table) -> Table:
    """The table without the columns that the second unit does not need, to save memory."""
    needed = [c for c in ("patient", "seed", "fold") if c in table.columns.columns]
    return replace(table, columns=table.columns[needed])


def other_unit_reports(
    table: Table,
    units: AnalysisUnits,
    thresholds: dict[str, list[Threshold]],
    options: ReportOptions,
) -> dict[str, OtherUnit]:
    """The findings of `thresholds` at the second unit of analysis, if there is one; its memory is
    free afterwards.
    """
    second_units = other_units(table, units)
    if second_units is None:
        return {}
    return {
        name: other_unit_report(second_units, name, chosen, options)
        for name, chosen in thresholds.items()
    }


def other_unit_report(
    units: AnalysisUnits, name: str, thresholds: list[Threshold], options: ReportOptions
) -> OtherUnit:
    """The headline of one finding in these units."""
    sample = units.sample(name)
    context = operating_point_context(units, name, options)
    points = [operating_point_report(sample, threshold, context) for threshold in thresholds]
    curves, auc = None, auc_estimates(sample, options.level)
    if sample.label.size:
        curves = Curves(
            counts=thin_curve(sample.counts),
            wilson=wilson_terms(points, options.level),
        )
    return OtherUnit(
        unit=units.unit,
        pooling=Pooling("max", "any") if units.pooled else None,
        n=sample.label.size,
        n_positive=sample.n_positive,
        auc=auc.auc,
        auc_patient_weighted=auc.auc_patient_weighted,
        operating_points=points,
        curves=curves,
    )

"""The CSV tables of a report: the numbers of report.json, one row per figure, for spreadsheets and
statistics packages.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise

from medres.evaluate.results import Multiclass, OperatingPoint
from medres.evaluate.schema import Comparison, Finding, ReaderPoint, Report
from medres.evaluate.serialization import to_plain
from medres.evaluate.statistics.estimate import Estimate

ESTIMATE_COLUMNS = (
    "estimate",
    "ci_low",
    "ci_high",
    "level",
    "sided",
    "method",
    "n",
    "numerator",
    "denominator",
    "n_clusters",
    "effective_patients",
    "flag",
    "why",
)
# fields of a finding that are not in figures.csv, because they have tables of their own
OWN_TABLE = (
    "operating_points",
    "subgroups",
    "decision_curve",
    "curves",
    "readers",
    "other_unit",
)

Cell = str | float | None  # int and bool are floats to the type checker
Row = dict[str, Cell]


def tables(report: Report) -> dict[str, list[Row]]:
    """Rows by table: figures, operating_points, curves, decision_curves, subgroups, readers,
    comparisons, comparison_rates, confusion. A table without rows is left out.
    """
    findings = report.findings.values()
    rows = {
        "figures": [*_common_figures(report), *(row for f in findings for row in _figures(f))],
        "operating_points": [row for f in findings for row in _operating_points(f)],
        "curves": [row for f in findings for row in _curve(f)],
        "decision_curves": [row for f in findings for row in _decision_curve(f)],
        "subgroups": [row for f in findings for row in _subgroups(f)],
        "readers": [row for f in findings for row in _readers(f)],
        "comparisons": [
            _comparison(comparison, report.title_of(comparison.finding))
            for comparison in report.comparisons
        ],
        "comparison_rates": [
            row
            for comparison in report.comparisons
            for row in _compared_rates(comparison, report.title_of(comparison.finding))
        ],
        "confusion": [] if report.multiclass is None else list(_confusion(report.multiclass)),
    }
    return {name: table for name, table in rows.items() if table}


def _common_figures(report: Report) -> Iterator[Row]:
    """Figures that belong to no single finding."""
    for path, estimate in _estimates(report.macro, "macro"):
        yield _figure("", path, estimate)
    if report.multiclass is None:
        return
    for path, estimate in _estimates(replace(report.multiclass, per_class=[]), "multiclass"):
        yield _figure("", path, estimate)
    for figures in report.multiclass.per_class:
        for path, estimate in _estimates(figures, "multiclass.per_class"):
            yield _figure(figures.name, path, estimate)


def _figures(finding: Finding) -> Iterator[Row]:
    for member in fields(finding):
        if member.name not in OWN_TABLE:
            for path, estimate in _estimates(getattr(finding, member.name), member.name):
                yield _figure(finding.title, path, estimate)


def _figure(finding: str, path: str, estimate: Estimate) -> Row:
    return {"finding": finding, "figure": path, **_columns(estimate)}


def _estimates(value: object, path: str) -> Iterator[tuple[str, Estimate]]:
    """Every estimate in `value` with its path: "auc", "calibration.slope", "partial_auc.0.raw".
    The names are the keys of report.json.
    """
    if isinstance(value, Estimate):
        yield path, value
    elif is_dataclass(value):
        for member in fields(value):
            name = "" if "inline" in member.metadata else member.name
            yield from _estimates(getattr(value, member.name), f"{path}.{name}".strip("."))
    elif isinstance(value, list | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for i, item in items:
            yield from _estimates(item, f"{path}.{i}")


def _columns(estimate: Estimate | None, prefix: str = "") -> Row:
    values = {} if estimate is None else estimate.to_dict()
    return {prefix + column: values.get(column) for column in ESTIMATE_COLUMNS}


def _scalars(owner: object) -> Row:
    """The members of an object that are single values."""
    members = to_plain(owner).items()
    return {key: value for key, value in members if not isinstance(value, dict | list)}


def _operating_points(finding: Finding) -> Iterator[Row]:
    for point in finding.operating_points:
        yield from _operating_point(finding.title, point, {})
    if finding.other_unit is not None:
        for point in finding.other_unit.operating_points:
            yield from _operating_point(finding.title, point, {"unit": finding.other_unit.unit})


def _operating_point(title: str, point: OperatingPoint, unit: Row) -> Iterator[Row]:
    common: Row = {"finding": title, **_scalars(point), **unit}
    for path, estimate in _estimates(replace(point, predictive_at=[]), ""):
        yield {**common, "figure": path, **_columns(estimate)}
    for values in point.predictive_at:
        for name, estimate in (("ppv", values.ppv), ("npv", values.npv)):
            figure = f"{name} at prevalence {values.prevalence:g}"
            yield {**common, "figure": figure, **_columns(estimate)}


def _curve(finding: Finding) -> Iterator[Row]:
    if finding.curves is None:
        return
    counts = finding.curves.counts
    for threshold, tp, fp in zip(to_plain(counts.threshold), counts.tp, counts.fp, strict=True):
        yield {"finding": finding.title, "threshold": threshold, **per_threshold(finding, tp, fp)}


def per_threshold(finding: Finding, tp: int, fp: int) -> Row:
    """What follows from the true and false positives at a threshold. ppcr: the predicted positive
    condition rate, the share of all units that is called positive."""
    positive, negative = finding.n_positive, finding.n_negative
    called, rest = tp + fp, positive + negative - tp - fp
    return {
        "tp": tp,
        "fp": fp,
        "fn": positive - tp,
        "tn": negative - fp,
        "sensitivity": tp / positive if positive else None,
        "specificity": (negative - fp) / negative if negative else None,
        "ppv": tp / called if called else None,
        "npv": (negative - fp) / rest if rest else None,
        "ppcr": called / (positive + negative),
    }


def _decision_curve(finding: Finding) -> Iterator[Row]:
    curve = finding.decision_curve
    moved: Sequence[Estimate | None] = curve.recalibrated or [None] * len(curve.threshold or [])
    for threshold, model, everyone, avoided, recalibrated in zip(
        curve.threshold or [],
        curve.model or [],
        curve.all or [],
        curve.interventions_avoided or [],
        moved,
        strict=True,
    ):
        yield {
            "finding": finding.title,
            "prevalence": curve.prevalence,
            "threshold": threshold,
            **_columns(model),
            "all": everyone.estimate,
            "interventions_avoided": avoided,
            "prevalence_source": curve.prevalence_source,
            **({} if recalibrated is None else _columns(recalibrated, "recalibrated_")),
        }


def _subgroups(finding: Finding) -> Iterator[Row]:
    for subgroup in finding.subgroups:
        rates: Row = {}
        for point in (subgroup.operating_points or [])[:1]:
            rates = _columns(point.rates.sensitivity, "sensitivity_") | _columns(
                point.rates.specificity, "specificity_"
            )
        auc = _columns(subgroup.auc, "auc_")
        if subgroup.auc_patient_weighted is not None:
            auc |= _columns(subgroup.auc_patient_weighted, "auc_patient_weighted_")
        yield {"finding": finding.title, **_scalars(subgroup), **auc, **rates}


def _readers(finding: Finding) -> Iterator[Row]:
    for reader in finding.readers or []:
        yield {
            "finding": finding.title,
            **_scalars(reader),
            **_columns(reader.sensitivity, "sensitivity_"),
            **_columns(reader.specificity, "specificity_"),
            **_against_model(reader),
        }


def _against_model(reader: ReaderPoint) -> Row:
    if reader.model is None or reader.difference is None:
        return {}
    return {
        **_columns(reader.model.sensitivity, "model_sensitivity_"),
        **_columns(reader.model.specificity, "model_specificity_"),
        **_columns(reader.difference.sensitivity_difference, "sensitivity_difference_"),
        "sensitivity_p": reader.difference.sensitivity_p,
        **_columns(reader.difference.specificity_difference, "specificity_difference_"),
        "specificity_p": reader.difference.specificity_p,
    }


def _comparison(comparison: Comparison, title: str) -> Row:
    row = {**_scalars(comparison), "finding": title}
    row |= _columns(comparison.auc_difference, "auc_difference_")
    if comparison.auc_difference_patient_weighted is not None:
        row |= _columns(
            comparison.auc_difference_patient_weighted, "auc_difference_patient_weighted_"
        )
    if comparison.rates is not None:
        row |= _columns(comparison.rates.sensitivity_difference, "sensitivity_difference_")
        row |= _columns(comparison.rates.specificity_difference, "specificity_difference_")
    return row


def _compared_rates(comparison: Comparison, title: str) -> Iterator[Row]:
    """At each threshold that was declared for both models."""
    for rates in comparison.all_rates:
        yield {
            "finding": title,
            "a": comparison.a,
            "b": comparison.b,
            **_scalars(rates),
            **_columns(rates.sensitivity_difference, "sensitivity_difference_"),
            **_columns(rates.specificity_difference, "specificity_difference_"),
        }


def _confusion(multiclass: Multiclass) -> Iterator[Row]:
    for truth, counts in zip(multiclass.classes, multiclass.confusion, strict=True):
        yield {"truth": truth, **dict(zip(multiclass.classes, counts, strict=True))}


def figure_tables(finding: Finding) -> dict[str, str]:
    """The numbers behind the figures of the page as CSV, by the name of the figure; those of the
    ROC and the precision-recall curve are the counts at each threshold, which the page has."""
    rows: dict[str, list[Row]] = {"utility": list(_decision_curve(finding))}
    if finding.curves is not None and finding.curves.histogram is not None:
        bins = finding.curves.histogram
        rows["histogram"] = [
            {"low": low, "high": high, "positive": positive, "negative": negative}
            for (low, high), positive, negative in zip(
                pairwise(bins.edges), bins.positive, bins.negative, strict=True
            )
        ]
    if finding.curves is not None and finding.curves.calibration is not None:
        rows["calibration"] = [
            {"predicted": bin_.predicted, **_columns(bin_.observed)}
            for bin_ in finding.curves.calibration.reliability
        ]
    return {name: _csv(part) for name, part in rows.items() if part}


def _csv(rows: list[Row]) -> str:
    """Rows as CSV, without the name of the finding, which a spreadsheet could take as a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [key for key in rows[0] if key != "finding"], extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()

"""The page of a report: one self-contained HTML file that requests nothing from the network. It
displays numbers and computes none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medres.evaluate.reporting import html_figures
from medres.evaluate.reporting.csv_tables import Row, figure_tables, per_threshold
from medres.evaluate.reporting.html_figures import ForestRow, OtherCurve
from medres.evaluate.reporting.narrative import MISSING, interval, limits, percent, threshold_words
from medres.evaluate.results import CalibrationCurves, DecisionCurve, RocBand
from medres.evaluate.schema import Curves, Finding, OtherUnit, Report
from medres.evaluate.scores.table import UNIT_PLURAL, unit_noun
from medres.evaluate.serialization import JsonObject, to_plain
from medres.evaluate.statistics.estimate import Estimate
from medres.tasks import task_named

MOST_THRESHOLDS = 20  # in the table of a finding; tables/curves.csv has all points of the curve
Pictures = Mapping[str, Mapping[str, str]]


def page(report: Report, pictures: Pictures | None = None) -> str:
    """The self-contained page, with a content security policy that allows only its own style and
    script.

    pictures: data URIs of the cases shown under “Largest errors”, by finding and hashed ID.
    """
    css, script = _asset("page.css"), _asset("page.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "pct": percent,
        "p": format_p,
        "ci": limits,
        "counts": format_counts,
        "interval": interval,
        "ci_pct": format_percent_limits,
        "num": format_number,
        "noun": unit_noun,
    }
    template = environment.from_string(_asset("page.html.j2"))
    findings = report.findings.items()
    return template.render(
        r=report,
        task=task_named(report.task),
        demographics=to_plain(report.flow.demographics),
        provenance=to_plain(report.provenance),
        words=threshold_words,
        css=Markup(css),
        script=Markup(script),
        pictures=pictures or {},
        policy=_policy(css, script),
        data=_payload(report),
        plural=UNIT_PLURAL[report.analysis_unit],
        plurals=UNIT_PLURAL,
        overlays={name: _overlays(name, finding, report) for name, finding in findings},
        figures={name: _figures(name, finding, report) for name, finding in findings},
        overview=_overview(report),
        thresholds={name: _thresholds(finding) for name, finding in findings},
        subgroups={name: _subgroup_forest(finding) for name, finding in findings},
        second_unit={name: _second_unit(finding) for name, finding in findings},
    )


def embedded(report: Report, pictures: Pictures | None = None) -> str:
    """The page in an iframe, for a notebook: its style does not affect the notebook. The frame may
    run the script of the page and save its figures, and nothing else.
    """
    text = escape(page(report, pictures))
    allowed = "allow-scripts allow-downloads"
    return f'<iframe sandbox="{allowed}" width="100%" height="900" srcdoc="{text}"></iframe>'


def format_number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` decimals, or an integer with spaces between thousands.

    >>> format_number(0.12345), format_number(1234567), format_number(math.inf)
    ('0.123', '1 234 567', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}".replace(",", " ")


def format_p(value: float | None) -> str:
    """A p-value with three decimals.

    >>> format_p(0.04561), format_p(0.00001)
    ('0.046', '< 0.001')
    """
    return "< 0.001" if value is not None and value < 0.001 else format_number(value)


def format_counts(estimate: Estimate) -> str:
    """Numerator and denominator of a proportion, else the number of units."""
    numerator, denominator = estimate.numerator, estimate.denominator
    if isinstance(numerator, int) and isinstance(denominator, int):
        return f"{format_number(numerator)} / {format_number(denominator)}"
    return "" if estimate.n is None else format_number(estimate.n)


def format_percent_limits(estimate: Estimate) -> str:
    """The confidence limits in percent, or why there are none."""
    if estimate.bounds is None:
        return estimate.why or ""
    return " to ".join(map(percent, estimate.bounds))


def _asset(name: str) -> str:
    return (resources.files("medres.evaluate.reporting") / "templates" / name).read_text(
        encoding="utf-8"
    )


def _policy(css: str, script: str) -> str:
    """The content security policy: nothing is fetched, and only this style and this script, by
    their hashes, are active.
    """
    style, code = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{code}'; img-src "
        f"data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _payload(report: Report) -> Markup:
    """The data for the script of the page, as JSON that cannot close its HTML element."""
    data = [_explored(name, finding, report) for name, finding in report.findings.items()]
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _explored(name: str, finding: Finding, report: Report) -> JsonObject:
    """The data of a finding for the threshold explorer, at one or two units of analysis."""
    curve = finding.decision_curve
    prevalence = curve.prevalence if curve.model else None
    common = {"probability": finding.brier.estimate is not None}
    views = [_view(finding, report.analysis_unit) | common | {"prevalence": prevalence}]
    other = _second_unit(finding)
    if other is not None:
        if prevalence is not None:
            stated = report.design.stated_prevalence(name)
            prevalence = other.n_positive / other.n if stated is None else stated
        views.append(_view(other, other.unit) | common | {"prevalence": prevalence})
    overlays = _overlays(name, finding, report)
    tables = figure_tables(finding)
    return {"name": finding.title, "views": views, "overlays": overlays, "tables": tables}


def _second_unit(finding: Finding) -> OtherUnit | None:
    """The second unit of analysis, if the page can switch to it."""
    other = finding.other_unit
    if _drawable_curves(finding) is None or other is None or other.auc.estimate is None:
        return None
    return other


def _drawable_curves(finding: Finding) -> Curves | None:
    return None if finding.auc.estimate is None else finding.curves


def _view(finding: Finding | OtherUnit, unit: str) -> JsonObject:
    """The data of a finding at one unit of analysis."""
    counts: JsonObject = {"threshold": [], "tp": [], "fp": []}
    if finding.curves is not None:
        counts = to_plain(finding.curves.counts) | to_plain(finding.curves.wilson)
    points = [
        {
            "name": point.name,
            "origin": point.origin,
            "threshold": to_plain(point.threshold),
            "why": point.why,
            "tp": point.table.tp,
            "fp": point.table.fp,
        }
        for point in finding.operating_points
    ]
    return counts | {
        "positive": finding.n_positive,
        "negative": finding.n_negative,
        "unit": unit,
        "units": UNIT_PLURAL[unit],
        "points": points,
    }


def _overlays(name: str, finding: Finding, report: Report) -> list[JsonObject]:
    """Curves that a button overlays on the ROC curve: subgroups and other models."""
    curves = [
        (f"{row.column}: {row.level}", row.n_positive, row.n, row.counts)
        for row in finding.subgroups
    ] + [
        (row.b, row.n_positive, row.b_size, row.b_counts)
        for row in report.comparisons
        if row.finding == name
    ]
    return [
        {"label": label, "positive": positive, "n": n}
        | to_plain(counts)
        | {"negative": n - positive}
        for label, positive, n, counts in curves
        if counts is not None and positive is not None and 0 < positive < n
    ]


class _Figure(NamedTuple):
    title: str
    svg: Markup
    note: str


def _figures(name: str, finding: Finding, report: Report) -> list[_Figure]:
    curves = _drawable_curves(finding)
    if curves is None:
        return []
    figures = [
        _Figure(
            "ROC curve",
            Markup(
                html_figures.roc(finding, curves.counts, curves.band, _other_models(name, report))
            ),
            "Points: thresholds, with confidence intervals."
            + (" Triangles: human readers." if finding.readers else "")
            + _about_band(curves.band),
        )
    ]
    if curves.histogram is not None:
        figures.append(
            _Figure(
                "Distribution of scores",
                Markup(html_figures.histogram(finding, curves.histogram)),
                "Bars upward: units with the finding; bars downward: units without it; each as a "
                "share of its class. Vertical lines: thresholds.",
            )
        )
    if finding.average_precision.estimate is not None:
        figures.append(
            _Figure(
                "Precision-recall curve",
                Markup(html_figures.precision_recall(finding, curves.counts)),
                "Step curve without interpolation. Dashed line: prevalence (chance level).",
            )
        )
    if curves.calibration is not None:
        figures.append(
            _Figure(
                "Calibration",
                Markup(html_figures.calibration(finding.title, curves.calibration)),
                "On the diagonal, predicted probability and observed frequency agree. The bins "
                "hold approximately equal numbers. " + _about_smooth(curves.calibration),
            )
        )
    if finding.decision_curve.model is not None:
        figures.append(
            _Figure(
                "Decision curve",
                Markup(html_figures.decision_curve(finding.title, finding.decision_curve)),
                _about_decisions(finding.decision_curve),
            )
        )
    return figures


def _about_band(band: RocBand | None) -> str:
    if band is None:
        return ""
    return f" Shaded: {100 * band.level:g}% {band.method} of the whole curve."


def _other_models(name: str, report: Report) -> list[OtherCurve]:
    curves = []
    for row in report.comparisons:
        counts, positive = row.b_counts, row.n_positive
        if row.finding == name and counts is not None and positive and row.b_size > positive:
            xs = [0.0, *(v / (row.b_size - positive) for v in counts.fp)]
            curves.append(OtherCurve(row.b, xs, [0.0, *(v / positive for v in counts.tp)]))
    return curves


def _about_decisions(curve: DecisionCurve) -> str:
    stated = curve.prevalence_source == "stated"
    text = (
        f"At {html_figures.prevalence_words(curve)}. Net benefit of the model per unit, with its "
        "confidence interval; dashed line: treat all. Higher is better. The threshold probability "
        "is a risk as predicted by the model"
    )
    if not stated:
        return text + "."
    if curve.recalibrated is None:
        return text + ": it was not recalibrated to the stated prevalence."
    return (
        text + "; for the dotted curve, the risks were recalibrated from the prevalence in the "
        "sample to the stated one by the ratio of the prior odds."
    )


def _about_smooth(curves: CalibrationCurves) -> str:
    if curves.flexible_why is None:
        return "Line: flexible calibration curve."
    return f"No flexible calibration curve is drawn: {curves.flexible_why}."


def _thresholds(finding: Finding) -> list[tuple[float, Row]]:
    """About twenty thresholds, spread evenly over the share that is called positive."""
    curves = _drawable_curves(finding)
    if curves is None:
        return []
    rows = [
        (threshold, per_threshold(finding, tp, fp))
        for threshold, tp, fp in zip(
            curves.counts.threshold, curves.counts.tp, curves.counts.fp, strict=True
        )
    ]
    shares = [float(row["ppcr"] or 0.0) for _, row in rows]
    wanted = {bisect_left(shares, (i + 1) / MOST_THRESHOLDS) for i in range(MOST_THRESHOLDS)}
    return [rows[i] for i in sorted(wanted) if i < len(rows)]


def _overview(report: Report) -> Markup | None:
    """The AUC of every finding, if there are several."""
    if report.macro is None:
        return None
    rows = [ForestRow(f.title, f.auc, "no AUC") for f in report.findings.values()]
    if report.macro.auc.estimate is not None:
        rows.append(ForestRow(f"mean of {len(report.macro.findings)}", report.macro.auc, ""))
    return _forest("AUC of each finding", rows)


def _subgroup_forest(finding: Finding) -> Markup | None:
    rows = [
        ForestRow(
            f"{row.column}: {row.level}  ({row.n_positive_patients} / {row.n_negative_patients})",
            row.auc,
            "too few patients",
        )
        for row in finding.subgroups
    ]
    return _forest(f"AUC of {finding.title} by subgroup", rows) if rows else None


def _forest(name: str, rows: list[ForestRow]) -> Markup:
    """Drawn twice, for a wide and a narrow screen; the style sheet shows one of them."""
    limits = [row.auc.ci_low for row in rows if row.auc and row.auc.ci_low is not None]
    low = max(0.0, min(0.4, int(min(limits, default=0.4) * 10) / 10))
    return Markup(
        html_figures.forest(name, rows, low) + html_figures.forest_narrow(name, rows, low)
    )

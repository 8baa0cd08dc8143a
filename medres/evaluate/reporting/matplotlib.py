"""Figures for papers: each function takes one finding and returns a matplotlib axis, which is a
vector graphic when saved as PDF or SVG.

A finding is an object, `DiagnosticReport.report.findings[NAME]`, or one finding of report.json as
`json.load` gives it (`numbers["findings"][NAME]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.metrics.roc_band import band_edge
from medres.evaluate.reporting.narrative import interval
from medres.evaluate.schema import Curves, Finding, Report
from medres.evaluate.serialization import JsonObject, from_plain
from medres.evaluate.statistics.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINGLE_COLUMN = (3.35, 3.2)  # inches: 85 mm, the usual column of a journal
BLUE, ORANGE, GRAY = "#0072b2", "#d55e00", "#6b7280"


def plot_roc(finding: Finding | JsonObject, ax: Axes | None = None) -> Axes:
    """ROC curve with the operating points and their intervals; triangles: human readers; shaded:
    the simultaneous confidence band of the whole curve.

    Raises EvaluationError (code no_curve) if a class is missing.
    """
    finding, curves = _with_curves(finding)
    ax = _square(ax, "1 − specificity", "sensitivity")
    counts = curves.counts
    ax.plot([0, 1], [0, 1], "--", color=GRAY, lw=0.8)
    fpr = np.array([0, *counts.fp]) / finding.n_negative
    tpr = np.array([0, *counts.tp]) / finding.n_positive
    if curves.band is not None:
        edge = band_edge(fpr.tolist(), tpr.tolist(), curves.band)
        label = f"simultaneous {100 * curves.band.level:g}% band"
        ax.fill(*edge, color=BLUE, alpha=0.12, lw=0, label=label)
    ax.plot(fpr, tpr, color=BLUE, label=_value_with_interval("AUC", finding.auc))
    for point in finding.operating_points:
        se, sp = point.rates.sensitivity, point.rates.specificity
        if se.estimate is not None and sp.estimate is not None:
            x, y = 1 - sp.estimate, se.estimate
            xerr, yerr = _arms(sp, mirrored=True), _arms(se)
            ax.errorbar(x, y, yerr, xerr, fmt="o", color="black", ms=4, lw=0.9)
    for reader in finding.readers or []:
        se, sp = reader.sensitivity, reader.specificity
        if se.estimate is not None and sp.estimate is not None:
            ax.plot(1 - sp.estimate, se.estimate, "^", color=ORANGE, ms=5)
    ax.legend(loc="lower right", frameon=False, fontsize="small")
    return ax


def plot_precision_recall(finding: Finding | JsonObject, ax: Axes | None = None) -> Axes:
    """Precision against recall in steps; the dashed line is the share of positives; the average
    precision with its interval, unless the sample is case-control.

    Raises EvaluationError (code no_curve) if a class is missing.
    """
    finding, curves = _with_curves(finding)
    ax = _square(ax, "recall", "precision")
    tp, fp = np.array(curves.counts.tp), np.array(curves.counts.fp)
    precision = tp / (tp + fp)
    recall = tp / finding.n_positive
    average = finding.average_precision
    label = None if average.estimate is None else _value_with_interval("AP", average)
    ax.step([0, *recall], [precision[0], *precision], where="pre", color=BLUE, label=label)
    ax.axhline(finding.n_positive / finding.n, ls="--", color=GRAY, lw=0.8)
    if label is not None:
        ax.legend(loc="best", frameon=False, fontsize="small")
    return ax


def plot_calibration(finding: Finding | JsonObject, ax: Axes | None = None) -> Axes:
    """Observed share against predicted probability, with intervals and, if it exists, the flexible
    curve.

    Raises EvaluationError (code no_calibration) for scores that are not probabilities and for a
    case-control sample.
    """
    curves = _typed(finding).curves
    if curves is None or curves.calibration is None:
        raise EvaluationError(
            "this finding has no calibration: its scores are not probabilities, or its sample is "
            "case-control",
            code="no_calibration",
        )
    ax = _square(ax, "predicted probability", "observed share")
    ax.plot([0, 1], [0, 1], "--", color=GRAY, lw=0.8)
    for bin_ in curves.calibration.reliability:
        observed = bin_.observed
        if observed.estimate is not None:
            x, y = bin_.predicted, observed.estimate
            ax.errorbar(x, y, _arms(observed), fmt="o", color="black", ms=4, lw=0.9)
    smooth = curves.calibration.flexible
    if smooth is not None:
        ax.plot(smooth.predicted, smooth.observed, color=BLUE)
    return ax


def plot_scores(finding: Finding | JsonObject, ax: Axes | None = None) -> Axes:
    """Histogram of the scores with and without the finding, each as a share of its class.

    Raises EvaluationError (code no_curve) if a class is missing.
    """
    _, curves = _with_curves(finding)
    ax, histogram = _axis(ax), curves.histogram
    if histogram is None:
        return ax
    edges = np.array(histogram.edges)
    sides = (
        ("positive", histogram.positive, 1, ORANGE),
        ("negative", histogram.negative, -1, BLUE),
    )
    for label, counts, sign, color in sides:
        heights, width = sign * np.array(counts) / max(1, sum(counts)), np.diff(edges)
        ax.bar(edges[:-1], heights, width=width, align="edge", color=color, label=label)
    ax.axhline(0, color="black", lw=0.6)
    ax.set(xlabel="score", ylabel="share of its class")
    ax.legend(frameon=False)
    return ax


def plot_decision_curve(finding: Finding | JsonObject, ax: Axes | None = None) -> Axes:
    """Net benefit of the model, of treating all and of treating none.

    Raises EvaluationError (code no_decision_curve) if the finding has none.
    """
    curve = _typed(finding).decision_curve
    if curve.model is None or curve.threshold is None or curve.all is None:
        raise EvaluationError(
            f"this finding has no decision curve: {curve.why}", code="no_decision_curve"
        )
    ax = _axis(ax)
    model = [e.estimate or 0.0 for e in curve.model]
    treat_all = [e.estimate or 0.0 for e in curve.all]
    ax.plot(curve.threshold, model, color=BLUE, label=f"model, prevalence {curve.prevalence:.2g}")
    if curve.recalibrated is not None:
        moved = [e.estimate or 0.0 for e in curve.recalibrated]
        ax.plot(curve.threshold, moved, ":", color=ORANGE, label="model, risks recalibrated")
    ax.plot(curve.threshold, treat_all, "--", color=GRAY, label="treat all")
    ax.axhline(0, color="black", lw=0.6)
    top = max(0.005, *model) * 1.25
    ax.set(
        xlabel="threshold probability", ylabel="net benefit", xlim=(0, 1), ylim=(-0.25 * top, top)
    )
    ax.legend(frameon=False)
    return ax


def plot_forest(
    estimates: Mapping[str, Estimate | JsonObject | None], ax: Axes | None = None
) -> Axes:
    """AUCs with their intervals by name, from the top down. A name without an AUC keeps its line,
    which stays empty.
    """
    ax = _axis(ax)
    for row, value in enumerate(estimates.values()):
        auc = value if isinstance(value, Estimate) else from_plain(Estimate, value or None)
        if auc is not None and auc.estimate is not None:
            arms = _arms(auc)
            ax.errorbar(auc.estimate, row, xerr=arms, fmt="o", color="black", ms=4, lw=0.9)
    ax.axvline(0.5, ls="--", color=GRAY, lw=0.8)
    ax.set(
        xlabel="AUC",
        yticks=range(len(estimates)),
        yticklabels=list(estimates),
        ylim=(len(estimates) - 0.5, -0.5),
    )
    return ax


def plot_findings(report: Report | JsonObject, ax: Axes | None = None) -> Axes:
    """The AUC of every finding or class of a report, and their mean. report:
    `DiagnosticReport.report`, or report.json as a whole.
    """
    report = report if isinstance(report, Report) else from_plain(Report, report)
    estimates = {finding.title or name: finding.auc for name, finding in report.findings.items()}
    if report.macro is not None:
        estimates[f"mean of {len(report.macro.findings)}"] = report.macro.auc
    return plot_forest(estimates, ax)


def plot_subgroups(finding: Finding | JsonObject, ax: Axes | None = None) -> Axes:
    """The AUC of a finding by subgroup; levels with too few patients stay empty.

    Raises EvaluationError (code no_subgroups) if the finding was evaluated without subgroups.
    """
    subgroups = _typed(finding).subgroups
    if not subgroups:
        raise EvaluationError(
            "this finding has no subgroups: name their columns when evaluating",
            code="no_subgroups",
        )
    return plot_forest({f"{row.column}: {row.level}": row.auc for row in subgroups}, ax)


def _typed(finding: Finding | JsonObject) -> Finding:
    return finding if isinstance(finding, Finding) else from_plain(Finding, finding)


def _with_curves(finding: Finding | JsonObject) -> tuple[Finding, Curves]:
    finding = _typed(finding)
    if finding.curves is None or finding.auc.estimate is None:
        raise EvaluationError(f"this finding has no curve: {finding.auc.why}", code="no_curve")
    return finding, finding.curves


def _axis(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=SINGLE_COLUMN, layout="constrained").add_subplot()


def _square(ax: Axes | None, xlabel: str, ylabel: str) -> Axes:
    ax = _axis(ax)
    ax.set(xlim=(0, 1), ylim=(0, 1.005), xlabel=xlabel, ylabel=ylabel, aspect="equal")
    return ax


def _value_with_interval(name: str, estimate: Estimate) -> str:
    """Such as "AUC 0.842 (95% CI 0.790 to 0.883)"."""
    text = f"{name} {estimate.estimate:.3f}"
    return text if estimate.bounds is None else f"{text} ({interval(estimate)})"


def _arms(estimate: Estimate, *, mirrored: bool = False) -> Any:
    """Lengths of the two arms of an interval, [[below], [above]]; `mirrored` for a rate drawn as
    1 - rate. None without an interval.
    """
    if estimate.estimate is None or estimate.bounds is None:
        return None
    low, high = estimate.bounds
    below, above = estimate.estimate - low, high - estimate.estimate
    return [[above], [below]] if mirrored else [[below], [above]]

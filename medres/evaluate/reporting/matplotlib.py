"""Figures for papers: each takes one finding of report.json and returns a matplotlib axis (vector
when saved as PDF/SVG).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medres.errors import EvaluationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINGLE_COLUMN = (3.35, 3.2)  # inches: 85 mm, the usual column of a journal
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#6b7280"


def plot_roc(finding: dict[str, Any], ax: Axes | None = None) -> Axes:
    """ROC curve with the operating points and their intervals; triangles: readers."""
    ax = _square(ax, "1 − specificity", "sensitivity")
    counts, positive = finding["curves"]["counts"], finding["n_positive"]
    negative = finding["n"] - positive
    ax.plot([0, 1], [0, 1], "--", color=GREY, lw=0.8)
    fpr, tpr = np.array([0, *counts["fp"]]) / negative, np.array([0, *counts["tp"]]) / positive
    ax.plot(fpr, tpr, color=BLUE, label=f"AUC {finding['auc']['estimate']:.3f}")
    for point in finding["operating_points"]:
        se, sp = point["sensitivity"], point["specificity"]
        arms: dict[str, Any] = {"yerr": _arms(se), "xerr": _arms(sp, mirrored=True)}
        ax.errorbar(
            1 - sp["estimate"], se["estimate"], fmt="o", color="black", ms=4, lw=0.9, **arms
        )
    for reader in finding.get("readers", []):
        se, sp = reader["sensitivity"]["estimate"], reader["specificity"]["estimate"]
        if se is not None and sp is not None:
            ax.plot(1 - sp, se, "^", color=ORANGE, ms=5)
    ax.legend(loc="lower right", frameon=False)
    return ax


def plot_precision_recall(finding: dict[str, Any], ax: Axes | None = None) -> Axes:
    """Precision against recall in steps; the dashed line is the share of positives."""
    ax = _square(ax, "recall", "precision")
    counts, positive = finding["curves"]["counts"], finding["n_positive"]
    tp, fp = np.array(counts["tp"]), np.array(counts["fp"])
    precision = tp / (tp + fp)
    ax.step([0, *(tp / positive)], [precision[0], *precision], where="pre", color=BLUE)
    ax.axhline(positive / finding["n"], ls="--", color=GREY, lw=0.8)
    return ax


def plot_calibration(finding: dict[str, Any], ax: Axes | None = None) -> Axes:
    """Observed share against predicted probability, with intervals and, where it exists, the
    flexible curve.
    """
    if "reliability" not in finding["curves"]:
        raise EvaluationError(
            "this finding has no calibration: its scores are not probabilities, or its sample is "
            "case-control"
        )
    ax = _square(ax, "predicted probability", "observed share")
    ax.plot([0, 1], [0, 1], "--", color=GREY, lw=0.8)
    for one in finding["curves"]["reliability"]:
        observed = one["observed"]
        ax.errorbar(
            one["predicted"],
            observed["estimate"],
            yerr=_arms(observed),
            fmt="o",
            color="black",
            ms=4,
            lw=0.9,
        )
    smooth = finding["curves"]["flexible"]
    if smooth is not None:
        ax.plot(smooth["predicted"], smooth["observed"], color=BLUE)
    return ax


def plot_scores(finding: dict[str, Any], ax: Axes | None = None) -> Axes:
    """Histogram of the scores with and without the finding, each as a share of its class."""
    ax = _axis(ax)
    data = finding["curves"]["histogram"]
    edges = np.array(data["edges"])
    for side, sign, color in (("positive", 1, ORANGE), ("negative", -1, BLUE)):
        share = np.array(data[side]) / max(1, sum(data[side]))
        ax.bar(
            edges[:-1], sign * share, width=np.diff(edges), align="edge", color=color, label=side
        )
    ax.axhline(0, color="black", lw=0.6)
    ax.set(xlabel="score", ylabel="share of its class")
    ax.legend(frameon=False)
    return ax


def plot_decision_curve(finding: dict[str, Any], ax: Axes | None = None) -> Axes:
    """Net benefit of the model, of everyone and of no one."""
    curve = finding["decision_curve"]
    if curve["model"] is None:
        raise EvaluationError(f"this finding has no decision curve: {curve['why']}")
    ax = _axis(ax)
    grid, model = np.array(curve["threshold"]), np.array([e["estimate"] for e in curve["model"]])
    ax.plot(grid, model, color=BLUE, label="model")
    ax.plot(grid, [e["estimate"] for e in curve["all"]], "--", color=GREY, label="everyone")
    ax.axhline(0, color="black", lw=0.6)
    top = max(0.005, float(model.max())) * 1.25
    ax.set(
        xlabel="threshold probability", ylabel="net benefit", xlim=(0, 1), ylim=(-0.25 * top, top)
    )
    ax.legend(frameon=False)
    return ax


def plot_forest(estimates: Mapping[str, dict[str, Any]], ax: Axes | None = None) -> Axes:
    """AUCs with their intervals by name, from the top down; what has no AUC keeps its line and
    stays empty.
    """
    ax = _axis(ax)
    for place, e in enumerate(estimates.values()):
        if e.get("estimate") is not None:
            ax.errorbar(e["estimate"], place, xerr=_arms(e), fmt="o", color="black", ms=4, lw=0.9)
    ax.axvline(0.5, ls="--", color=GREY, lw=0.8)
    ax.set(
        xlabel="AUC",
        yticks=range(len(estimates)),
        yticklabels=list(estimates),
        ylim=(len(estimates) - 0.5, -0.5),
    )
    return ax


def plot_findings(numbers: dict[str, Any], ax: Axes | None = None) -> Axes:
    """The AUC of every finding or class of a report, and their mean (report.json as a whole)."""
    estimates = {name: finding["auc"] for name, finding in numbers["findings"].items()}
    if "macro" in numbers:
        estimates[f"mean of {len(numbers['macro']['findings'])}"] = numbers["macro"]["auc"]
    return plot_forest(estimates, ax)


def plot_subgroups(finding: dict[str, Any], ax: Axes | None = None) -> Axes:
    """The AUC of a finding by subgroup; levels with too few patients stay empty."""
    if not finding["subgroups"]:
        raise EvaluationError("this finding has no subgroups: name their columns when evaluating")
    return plot_forest(
        {f"{row['column']}: {row['level']}": row.get("auc", {}) for row in finding["subgroups"]}, ax
    )


def _axis(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=SINGLE_COLUMN, layout="constrained").add_subplot()


def _square(ax: Axes | None, xlabel: str, ylabel: str) -> Axes:
    ax = _axis(ax)
    ax.set(xlim=(0, 1), ylim=(0, 1.005), xlabel=xlabel, ylabel=ylabel, aspect="equal")
    return ax


def _arms(e: dict[str, Any], *, mirrored: bool = False) -> list[list[float]] | None:
    """Lengths of the two arms of an interval; `mirrored` for a rate drawn as 1 - rate."""
    if e["ci_low"] is None:
        return None
    below, above = e["estimate"] - e["ci_low"], e["ci_high"] - e["estimate"]
    return [[above], [below]] if mirrored else [[below], [above]]

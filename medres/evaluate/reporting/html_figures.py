"""Figures of a report as inline SVG. They display the numbers of report.json and compute none."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from medres.evaluate.reporting.narrative import interval
from medres.svg import Axes, fractions, round_ticks

SIZE = (430, 400)


def roc(name: str, finding: dict[str, Any]) -> str:
    """The empirical ROC curve with its operating points and their intervals."""
    counts, positive = finding["curves"]["counts"], finding["n_positive"]
    negative = finding["n"] - positive
    axes = Axes(*SIZE, (0, 1), (0, 1), name=f"ROC curve of {name}", figure="roc")
    axes.grid(fractions(), fractions(), "1 − specificity", "sensitivity")
    axes.segment(0, 0, 1, 1, "chance")
    axes.line(
        [0, *(v / negative for v in counts["fp"])],
        [0, *(v / positive for v in counts["tp"])],
        "curve",
    )
    for point in finding["operating_points"]:
        sensitivity, specificity = point["sensitivity"], point["specificity"]
        x, y = 1 - specificity["estimate"], sensitivity["estimate"]
        if specificity["ci_low"] is not None:
            axes.segment(1 - specificity["ci_high"], y, 1 - specificity["ci_low"], y, "whisker")
        if sensitivity["ci_low"] is not None:
            axes.segment(x, sensitivity["ci_low"], x, sensitivity["ci_high"], "whisker")
        axes.mark(x, y, f"point {point['origin']}", f"{point['name']} ({point['origin']})")
        axes.text(x, y, point["name"], "note", dx=9, dy=16)
    for reader in finding.get("readers", []):
        se, sp = reader["sensitivity"]["estimate"], reader["specificity"]["estimate"]
        if se is not None and sp is not None:
            axes.triangle(1 - sp, se, "reader", " ".join((reader["reader"], reader["arm"])).strip())
    auc = finding["auc"]
    axes.text(0.98, 0.06, f"AUC {auc['estimate']:.3f}", "big", "end")
    if auc["ci_low"] is not None:
        axes.text(0.98, 0.02, interval(auc), "note", "end")
    return axes.render()


def precision_recall(name: str, finding: dict[str, Any]) -> str:
    """Precision against recall as a step curve, with the prevalence as the chance level."""
    counts, positive = finding["curves"]["counts"], finding["n_positive"]
    axes = Axes(*SIZE, (0, 1), (0, 1), name=f"Precision-recall curve of {name}", figure="recall")
    axes.grid(fractions(), fractions(), "recall (sensitivity)", "precision (PPV)")
    share = positive / finding["n"]
    axes.segment(0, share, 1, share, "chance")
    axes.text(0.02, share, "prevalence (chance level)", "note", dy=-6)
    xs, ys, before = [], [], 0.0
    for tp, fp in zip(counts["tp"], counts["fp"], strict=True):
        recall, precision = tp / positive, tp / (tp + fp)
        xs += [before, recall]
        ys += [precision, precision]
        before = recall
    axes.line(xs, ys, "curve")
    estimate = finding["average_precision"]["estimate"]
    if estimate is not None:
        axes.text(0.98, 0.93, f"average precision {estimate:.3f}", "big", "end")
    return axes.render()


def calibration(name: str, finding: dict[str, Any]) -> str:
    """Observed frequency against mean predicted probability, in bins of about equal size, with
    intervals.
    """
    axes = Axes(*SIZE, (0, 1), (0, 1), name=f"Calibration of {name}", figure="calibration")
    axes.grid(fractions(), fractions(), "predicted probability", "observed frequency")
    axes.segment(0, 0, 1, 1, "chance")
    bins, smooth = finding["curves"]["reliability"], finding["curves"]["flexible"]
    if smooth is not None:
        axes.line(smooth["predicted"], smooth["observed"], "curve")
    for one in bins:
        observed = one["observed"]
        if observed["ci_low"] is not None:
            axes.segment(
                one["predicted"],
                observed["ci_low"],
                one["predicted"],
                observed["ci_high"],
                "whisker",
            )
        title = (
            f"{observed['numerator']} of {observed['denominator']}, predicted "
            f"{one['predicted']:.3f}"
        )
        axes.mark(one["predicted"], observed["estimate"], "point bin", title)
    return axes.render()


def histogram(name: str, finding: dict[str, Any]) -> str:
    """Scores of units with the finding (upward) and without it (downward), as class shares."""
    data = finding["curves"]["histogram"]
    shares = {}
    for side in ("positive", "negative"):
        total = max(1, sum(data[side]))
        shares[side] = [count / total for count in data[side]]
    top = max(0.01, *shares["positive"], *shares["negative"])
    edges = data["edges"]
    axes = Axes(
        *SIZE,
        (edges[0], edges[-1]),
        (-top * 1.12, top * 1.12),
        name=f"Scores of {name} by label",
        figure="histogram",
    )
    span = edges[-1] - edges[0]
    ticks = [(edges[0] + span * i / 5, f"{edges[0] + span * i / 5:.2g}") for i in range(6)]
    levels = [-top, -top / 2, 0.0, top / 2, top]
    axes.grid(ticks, [(v, f"{100 * abs(v):.0f}%") for v in levels], "score", "share of its class")
    for side, sign in (("positive", 1), ("negative", -1)):
        for (low, high), share in zip(pairwise(edges), shares[side], strict=True):
            if share:
                axes.bar(low, high, 0, sign * share, side)
    axes.segment(edges[0], 0, edges[-1], 0, "zero")
    for point in finding["operating_points"]:
        threshold = point["threshold"]
        if threshold is not None and edges[0] <= threshold <= edges[-1]:
            axes.segment(threshold, -top * 1.12, threshold, top * 1.12, "threshold")
    axes.text(edges[0] + span * 0.02, top, "with the finding ↑", "note strong-positive", dy=-4)
    axes.text(edges[0] + span * 0.02, -top, "without it ↓", "note strong-negative", dy=10)
    return axes.render()


def decision_curve(name: str, finding: dict[str, Any]) -> str:
    """Net benefit of the model, of treating all and of treating none, against the threshold
    probability.
    """
    curve = finding["decision_curve"]
    grid, model = curve["threshold"], curve["model"]
    top = max(0.005, *(e["estimate"] for e in model)) * 1.25
    low = -0.25 * top
    axes = Axes(
        *SIZE, (0.0, 1.0), (low, top), name=f"Decision curve of {name}", figure="utility", left=66
    )
    axes.grid(fractions(), round_ticks(low, top), "threshold probability", "net benefit")
    axes.segment(0, 0, 1, 0, "zero")
    everyone = [
        (t, e["estimate"]) for t, e in zip(grid, curve["all"], strict=True) if e["estimate"] >= low
    ]
    axes.line([t for t, _ in everyone], [v for _, v in everyone], "chance")
    band = [(t, e) for t, e in zip(grid, model, strict=True) if e["ci_low"] is not None]
    edge = [(t, e["ci_high"]) for t, e in band] + [(t, e["ci_low"]) for t, e in reversed(band)]
    axes.polygon([t for t, _ in edge], [min(top, max(low, v)) for _, v in edge], "band")
    for xs, ys in _runs([(t, e["estimate"]) for t, e in zip(grid, model, strict=True)], low):
        axes.line(xs, ys, "curve")
    axes.text(0.98, top, "model", "big strong-negative", "end", dy=14)
    if everyone:
        axes.text(everyone[-1][0], max(low, everyone[-1][1]), "treat all", "note", dx=6, dy=-4)
    axes.text(0.98, 0, "treat none", "note", "end", dy=15)
    return axes.render()


def forest(name: str, rows: list[dict[str, Any]], low: float) -> str:
    """Forest plot of AUCs with intervals. rows: {"label", "auc": E or None, "note"}. low: the left
    end of the axis.
    """
    bottom = float(len(rows))
    axes = Axes(
        700,
        26 * len(rows) + 52,
        (low, 1.0),
        (bottom, 0.0),
        name=name,
        left=215,
        right=165,
        top=6,
        bottom=40,
    )
    _forest_axis(axes, low, bottom)
    for i, row in enumerate(rows):
        axes.raw_text(6, axes.y(i + 0.5) + 4, row["label"][:38], "row")
        axes.raw_text(543, axes.y(i + 0.5) + 4, _auc_text(row), "row" if _known(row) else "note")
        _interval(axes, row, i + 0.5, low)
    return axes.render("wide")


def forest_narrow(name: str, rows: list[dict[str, Any]], low: float) -> str:
    """The same for a narrow screen: the text is above each interval."""
    bottom = float(len(rows))
    axes = Axes(
        360,
        48 * len(rows) + 52,
        (low, 1.0),
        (bottom, 0.0),
        name=name,
        left=12,
        right=12,
        top=6,
        bottom=40,
    )
    _forest_axis(axes, low, bottom)
    for i, row in enumerate(rows):
        axes.raw_text(4, axes.y(i + 0.35) + 4, row["label"][:26], "row")
        axes.raw_text(
            356, axes.y(i + 0.35) + 4, _auc_text(row), "row" if _known(row) else "note", "end"
        )
        _interval(axes, row, i + 0.75, low)
    return axes.render("narrow")


def _runs(points: list[tuple[float, float]], low: float) -> list[tuple[list[float], list[float]]]:
    """The parts of a curve above `low`, cut where it crosses; parts below are not drawn."""
    runs: list[tuple[list[float], list[float]]] = [([], [])]
    for (x0, y0), (x1, y1) in pairwise(points):
        if max(y0, y1) < low:
            continue
        a, b = (x0 if y >= low else x0 + (x1 - x0) * (low - y0) / (y1 - y0) for y in (y0, y1))
        start, stop = (a, max(low, y0)), (b if y1 < low else x1, max(low, y1))
        if not runs[-1][0] or runs[-1][0][-1] != start[0]:
            runs.append(([start[0]], [start[1]]))
        runs[-1][0].append(stop[0])
        runs[-1][1].append(stop[1])
    return [run for run in runs if run[0]]


def _forest_axis(axes: Axes, low: float, bottom: float) -> None:
    step = 0.1 if low >= 0.3 else 0.2
    ticks = [
        (low + step * i, f"{low + step * i:.1f}") for i in range(int((1 - low) / step + 1e-9) + 1)
    ]
    axes.grid(ticks, [], "AUC", "")
    if low < 0.5:
        axes.segment(0.5, 0, 0.5, bottom, "chance")


def _known(row: dict[str, Any]) -> bool:
    return row["auc"] is not None and row["auc"]["estimate"] is not None


def _auc_text(row: dict[str, Any]) -> str:
    if not _known(row):
        return str(row["note"])[:26]
    e = row["auc"]
    return f"{e['estimate']:.3f}" + (
        "" if e["ci_low"] is None else f" ({e['ci_low']:.3f}–{e['ci_high']:.3f})"
    )


def _interval(axes: Axes, row: dict[str, Any], y: float, low: float) -> None:
    if not _known(row):
        return
    e = row["auc"]
    if e["ci_low"] is not None:
        axes.segment(max(low, e["ci_low"]), y, e["ci_high"], y, "whisker")
    axes.mark(max(low, e["estimate"]), y, "point bin")

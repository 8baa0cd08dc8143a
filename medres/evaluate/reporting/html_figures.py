"""Figures of a report as inline SVG. They display the numbers of report.json and compute none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from medres.evaluate.metrics.roc_band import band_edge
from medres.evaluate.reporting.narrative import interval, percent
from medres.evaluate.results import CalibrationCurves, Curve, DecisionCurve, Histogram, RocBand
from medres.evaluate.schema import Finding
from medres.evaluate.statistics.estimate import Estimate
from medres.svg import Axes, fractions, round_ticks

SIZE = (430, 400)


class ForestRow(NamedTuple):
    """One line of a forest plot. `note` is shown if there is no AUC."""

    label: str
    auc: Estimate | None
    note: str

    @property
    def is_known(self) -> bool:
        return self.auc is not None and self.auc.estimate is not None


class OtherCurve(NamedTuple):
    """The ROC curve of another model, drawn on paper only."""

    label: str
    xs: list[float]
    ys: list[float]


def roc(
    finding: Finding,
    counts: Curve,
    band: RocBand | None = None,
    others: Sequence[OtherCurve] = (),
) -> str:
    """The empirical ROC curve in its confidence band, with operating points and their intervals."""
    positive, negative, title = finding.n_positive, finding.n_negative, finding.title
    axes = Axes(*SIZE, (0, 1), (0, 1), name=f"ROC curve of {title}", figure="roc")
    axes.grid(fractions(), fractions(), "1 − specificity", "sensitivity")
    xs, ys = [0.0, *(v / negative for v in counts.fp)], [0.0, *(v / positive for v in counts.tp)]
    if band is not None:
        axes.polygon(*band_edge(xs, ys, band), "band")
    axes.segment(0, 0, 1, 1, "chance")
    axes.line(xs, ys, "curve")
    for i, other in enumerate(others):
        axes.line(other.xs, other.ys, f"paper overlay o{i % 4}")
        axes.text(0.98, 0.13 + 0.04 * i, other.label[:30], f"paper note t{i % 4}", "end")
    for point in finding.operating_points:
        sensitivity, specificity = point.rates.sensitivity, point.rates.specificity
        if sensitivity.estimate is None or specificity.estimate is None:
            continue
        x, y = 1 - specificity.estimate, sensitivity.estimate
        if specificity.bounds is not None:
            low, high = specificity.bounds
            axes.segment(1 - high, y, 1 - low, y, "whisker")
        if sensitivity.bounds is not None:
            low, high = sensitivity.bounds
            axes.segment(x, low, x, high, "whisker")
        axes.mark(x, y, f"point {point.origin}", f"{point.name} ({point.origin})")
        axes.text(x, y, point.name, "note", dx=9, dy=16)
    for reader in finding.readers or []:
        se, sp = reader.sensitivity.estimate, reader.specificity.estimate
        if se is not None and sp is not None:
            axes.triangle(1 - sp, se, "reader", f"{reader.reader} {reader.arm}".strip())
    axes.text(0.98, 0.06, f"AUC {finding.auc.estimate:.3f}", "big", "end")
    if finding.auc.bounds is not None:
        axes.text(0.98, 0.02, interval(finding.auc), "note", "end")
    return axes.render()


def precision_recall(finding: Finding, counts: Curve) -> str:
    """Precision against recall as a step curve, with the prevalence as the chance level."""
    axes = Axes(
        *SIZE, (0, 1), (0, 1), name=f"Precision-recall curve of {finding.title}", figure="recall"
    )
    axes.grid(fractions(), fractions(), "recall (sensitivity)", "precision (PPV)")
    share = finding.n_positive / finding.n
    axes.segment(0, share, 1, share, "chance")
    axes.text(0.02, share, "prevalence (chance level)", "note", dy=-6)
    xs, ys, last_recall = [], [], 0.0
    for tp, fp in zip(counts.tp, counts.fp, strict=True):
        recall, precision = tp / finding.n_positive, tp / (tp + fp)
        xs += [last_recall, recall]
        ys += [precision, precision]
        last_recall = recall
    axes.line(xs, ys, "curve")
    if finding.average_precision.estimate is not None:
        value = finding.average_precision.estimate
        text = f"average precision {value:.3f}"
        # away from the curve, which runs along the top if the average precision is high, and from
        # the line of the prevalence with its label
        beside = 0.52 if abs(share - 0.5) > 0.12 else 0.24
        x, y, anchor = (0.98, 0.93, "end") if value < 0.6 else (0.02, beside, "start")
        axes.text(x, y, text, "big", anchor)
        if finding.average_precision.bounds is not None:
            axes.text(x, y - 0.04, interval(finding.average_precision), "note", anchor)
    return axes.render()


def calibration(title: str, curves: CalibrationCurves) -> str:
    """Observed frequency against mean predicted probability, in bins of about equal size, with
    intervals.
    """
    axes = Axes(*SIZE, (0, 1), (0, 1), name=f"Calibration of {title}", figure="calibration")
    axes.grid(fractions(), fractions(), "predicted probability", "observed frequency")
    axes.segment(0, 0, 1, 1, "chance")
    if curves.flexible is not None:
        axes.line(curves.flexible.predicted, curves.flexible.observed, "curve")
    for bin_ in curves.reliability:
        observed = bin_.observed
        if observed.estimate is None:
            continue
        if observed.bounds is not None:
            low, high = observed.bounds
            axes.segment(bin_.predicted, low, bin_.predicted, high, "whisker")
        counts = f"{observed.numerator} of {observed.denominator}"
        text = f"{counts}, predicted {bin_.predicted:.3f}"
        axes.mark(bin_.predicted, observed.estimate, "point bin", text)
    return axes.render()


def histogram(finding: Finding, scores: Histogram) -> str:
    """Scores of units with the finding (upward) and without it (downward), as class shares."""
    up, down = _shares(scores.positive), _shares(scores.negative)
    top, edges = max(0.01, *up, *down), scores.edges
    axes = Axes(
        *SIZE,
        (edges[0], edges[-1]),
        (-top * 1.12, top * 1.12),
        name=f"Scores of {finding.title} by label",
        figure="histogram",
    )
    span = edges[-1] - edges[0]
    ticks = [(edges[0] + span * i / 5, f"{edges[0] + span * i / 5:.2g}") for i in range(6)]
    levels = [-top, -top / 2, 0.0, top / 2, top]
    axes.grid(ticks, [(v, f"{100 * abs(v):.0f}%") for v in levels], "score", "share of its class")
    for css, sign, shares in (("positive", 1, up), ("negative", -1, down)):
        for (low, high), share in zip(pairwise(edges), shares, strict=True):
            if share:
                axes.bar(low, high, 0, sign * share, css)
    axes.segment(edges[0], 0, edges[-1], 0, "zero")
    for point in finding.operating_points:
        if point.threshold is not None and edges[0] <= point.threshold <= edges[-1]:
            axes.segment(point.threshold, -top * 1.12, point.threshold, top * 1.12, "threshold")
    axes.text(edges[0] + span * 0.02, top, "with the finding ↑", "note strong-positive", dy=-4)
    axes.text(edges[0] + span * 0.02, -top, "without it ↓", "note strong-negative", dy=10)
    return axes.render()


def decision_curve(title: str, curve: DecisionCurve) -> str:
    """Net benefit of the model, of treating all and of treating none, against the threshold
    probability, for a curve that exists.
    """
    grid, estimates = curve.threshold or [], curve.model or []
    model, treat_all = _points(grid, estimates), _points(grid, curve.all or [])
    moved = [] if curve.recalibrated is None else _points(grid, curve.recalibrated)
    top = max(0.005, *(benefit for _, benefit in [*model, *moved])) * 1.25
    low = -0.25 * top
    axes = Axes(
        *SIZE, (0.0, 1.0), (low, top), name=f"Decision curve of {title}", figure="utility", left=66
    )
    axes.grid(fractions(), round_ticks(low, top), "threshold probability", "net benefit")
    axes.segment(0, 0, 1, 0, "zero")
    treat_all = [(t, benefit) for t, benefit in treat_all if benefit >= low]
    axes.line([t for t, _ in treat_all], [benefit for _, benefit in treat_all], "chance")
    band = [(t, e.bounds) for t, e in zip(grid, estimates, strict=True) if e.bounds is not None]
    edge = [(t, high) for t, (_, high) in band] + [(t, low) for t, (low, _) in reversed(band)]
    axes.polygon([t for t, _ in edge], [min(top, max(low, limit)) for _, limit in edge], "band")
    for xs, ys in _runs(model, low):
        axes.line(xs, ys, "curve")
    if moved:
        for xs, ys in _runs(moved, low):
            axes.line(xs, ys, "curve recalibrated")
        axes.text(0.98, top, "···  risks recalibrated", "note", "end", dy=48)
    axes.text(0.98, top, "—  model", "big strong-negative", "end", dy=14)
    axes.text(0.98, top, prevalence_words(curve), "note", "end", dy=31)
    if treat_all:
        last_t, last_benefit = treat_all[-1]
        axes.text(last_t, max(low, last_benefit), "treat all", "note", dx=6, dy=-4)
    axes.text(0.98, 0, "treat none", "note", "end", dy=15)
    return axes.render()


def prevalence_words(curve: DecisionCurve) -> str:
    """The prevalence of a decision curve, and whose it is."""
    source = "the stated prevalence" if curve.prevalence_source == "stated" else "a prevalence"
    where = "" if curve.prevalence_source == "stated" else " (in the sample)"
    return f"{source} of {percent(curve.prevalence)}{where}"


def forest(name: str, rows: list[ForestRow], low: float) -> str:
    """Forest plot of AUCs with intervals, for a wide screen. low: the left end of the axis."""
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
    _forest_axis(axes, low)
    if low < 0.5:
        axes.segment(0.5, 0, 0.5, bottom, "chance")
    for i, row in enumerate(rows):
        axes.raw_text(6, axes.y(i + 0.5) + 4, shortened(row.label, 30), "row")
        axes.raw_text(543, axes.y(i + 0.5) + 4, _auc_text(row), "row" if row.is_known else "note")
        _interval(axes, row, i + 0.5, low)
    return axes.render("wide")


def forest_narrow(name: str, rows: list[ForestRow], low: float) -> str:
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
    _forest_axis(axes, low)
    for i, row in enumerate(rows):
        if low < 0.5:  # only beside the interval: the text is above it
            axes.segment(0.5, i + 0.58, 0.5, i + 0.92, "chance")
        css = "row" if row.is_known else "note"
        axes.raw_text(4, axes.y(i + 0.35) + 4, shortened(row.label, 26), "row")
        axes.raw_text(356, axes.y(i + 0.35) + 4, _auc_text(row), css, "end")
        _interval(axes, row, i + 0.75, low)
    return axes.render("narrow")


def shortened(label: str, most: int) -> str:
    """A label of at most so many characters; what stands in parentheses at its end stays.

    >>> shortened("site: North hospital (45 / 97)", 24), shortened("sex: F", 24)
    ('site: North h… (45 / 97)', 'sex: F')
    """
    if len(label) <= most:
        return label
    start = label.rfind(" (") if label.endswith(")") else -1
    end = label[start:] if start >= 0 and len(label) - start < most - 1 else ""
    return label[: most - len(end) - 1] + "…" + end


def _shares(counts: list[int]) -> list[float]:
    total = max(1, sum(counts))
    return [count / total for count in counts]


def _points(grid: list[float], estimates: list[Estimate]) -> list[tuple[float, float]]:
    return [(t, e.estimate) for t, e in zip(grid, estimates, strict=True) if e.estimate is not None]


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


def _forest_axis(axes: Axes, low: float) -> None:
    step = 0.1 if low >= 0.3 else 0.2
    ticks = [
        (low + step * i, f"{low + step * i:.1f}") for i in range(int((1 - low) / step + 1e-9) + 1)
    ]
    axes.grid(ticks, [], "AUC", "")


def _auc_text(row: ForestRow) -> str:
    if row.auc is None or row.auc.estimate is None:
        return row.note[:26]
    limits = "" if row.auc.bounds is None else " ({:.3f}–{:.3f})".format(*row.auc.bounds)
    return f"{row.auc.estimate:.3f}{limits}"


def _interval(axes: Axes, row: ForestRow, y: float, low: float) -> None:
    if row.auc is None or row.auc.estimate is None:
        return
    if row.auc.bounds is not None:
        left, right = row.auc.bounds
        axes.segment(max(low, left), y, right, y, "whisker")
    axes.mark(max(low, row.auc.estimate), y, "point bin")

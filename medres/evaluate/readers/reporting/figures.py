"""Figures of a reader study as inline SVG."""

from __future__ import annotations

from typing import NamedTuple

from medres.evaluate.readers.measures.froc import Froc
from medres.evaluate.readers.measures.roc_curves import ReaderCurve
from medres.evaluate.readers.outcome import ReaderContrast, ReaderStudy
from medres.evaluate.readers.variances.sizing import SampleSizes
from medres.evaluate.reporting.narrative import limits
from medres.evaluate.statistics.estimate import Estimate
from medres.svg import Axes, fractions, round_ticks

SIZE = (430, 400)
STYLES = ("", "o0", "o1", "o2", "o3")  # of modalities, in order
LABELS = ("strong-negative", "t0", "t1", "t2", "note")


class DifferenceRow(NamedTuple):
    """One line of a forest plot of differences."""

    label: str
    difference: Estimate


def roc(curves: list[ReaderCurve]) -> str:
    """Thin: readers; thick: their mean; points: where they decide."""
    axes = Axes(*SIZE, (0, 1), (0, 1), name="ROC curves of the readers", figure="reader-roc")
    axes.grid(fractions(), fractions(), "1 − specificity", "sensitivity")
    axes.segment(0, 0, 1, 1, "chance")
    modalities = list(dict.fromkeys(curve.modality for curve in curves))
    for curve in curves:
        style = STYLES[modalities.index(curve.modality) % len(STYLES)]
        thin = "thin " if curve.reader is not None else ""
        axes.line(curve.fpr, curve.tpr, f"curve {thin}{style}")
    for curve in curves:
        if curve.at is not None:
            who = curve.reader or "mean"
            axes.mark(*curve.at, "point" if curve.reader else "point frozen", _point(who, curve))
    _legend(axes, modalities, {curve.modality for curve in curves if curve.reader is None})
    return axes.render()


def froc(found: Froc) -> str:
    """Step curves of the readers (thin), and the mean at the stated numbers of false marks."""
    wide = max(found.fp_per_image)
    axes = Axes(*SIZE, (0, wide), (0, 1), name="FROC curves of the readers", figure="reader-froc")
    axes.grid(
        [(float(k), f"{k:g}") for k in (0, 1, 2, 4, 8)],
        fractions(),
        "false marks per image",
        "lesions marked",
    )
    modalities = list(dict.fromkeys(curve.modality for curve in found.curves))
    for curve in found.curves:
        xs, ys = _staircase(curve.false_marks, curve.sensitivity, wide)
        style = STYLES[modalities.index(curve.modality) % len(STYLES)]
        axes.line(xs, ys, f"curve thin {style}")
    for values in found.values:
        if values.reader is None and values.images == "all":
            heights = [e.estimate or 0.0 for e in values.sensitivity]
            style = STYLES[modalities.index(values.modality) % len(STYLES)]
            axes.line(found.fp_per_image, heights, f"curve {style}")
    _legend(axes, modalities, {item.modality for item in found.values if item.reader is None})
    return axes.render()


def forest(study: ReaderStudy, a: str, b: str) -> str:
    """The difference a - b of each reader, and on average."""
    rows = [
        DifferenceRow(item.reader, item.difference)
        for item in study.per_reader
        if (item.a, item.b) == (a, b)
    ]
    rows += [
        DifferenceRow("mean of the readers", item.difference)
        for item in study.contrasts
        if (item.a, item.b) == (a, b)
    ]
    return difference_forest(rows, f"{a} − {b}", study.contrasts[0].margin)


def difference_forest(rows: list[DifferenceRow], label: str, margin: float | None) -> str:
    """Differences with intervals around zero; margin: drawn on both sides of zero. For a wide and
    for a narrow screen."""
    return "".join(_differences(rows, label, margin, wide=wide) for wide in (True, False))


def _differences(rows: list[DifferenceRow], label: str, margin: float | None, *, wide: bool) -> str:
    """wide: the texts stand beside the interval, else above it."""
    limits = [limit for row in rows for limit in (row.difference.bounds or ())]
    values = [row.difference.estimate or 0.0 for row in rows]
    ends = [*limits, *values, 0.0, *((margin, -margin) if margin else ())]
    pad = 0.05 * (max(ends) - min(ends)) or 0.1
    low, high = min(ends) - pad, max(ends) + pad
    axes = Axes(
        700 if wide else 360,
        (26 if wide else 48) * len(rows) + 52,
        (low, high),
        (float(len(rows)), 0.0),
        name=f"Difference {label} of each reader and on average",
        left=180 if wide else 12,
        right=190 if wide else 12,
        top=6,
        bottom=40,
    )
    axes.grid(round_ticks(low, high), [], label, "")
    axes.segment(0, 0, 0, len(rows), "zero")
    for edge in (margin, -margin) if margin else ():
        axes.segment(edge, 0, edge, len(rows), "threshold")
    for i, row in enumerate(rows):
        at, words = (i + 0.5, i + 0.5) if wide else (i + 0.75, i + 0.35)
        axes.raw_text(6, axes.y(words) + 4, row.label[:24], "row")
        axes.raw_text(694 if wide else 356, axes.y(words) + 4, _text(row.difference), "row", "end")
        if row.difference.bounds is not None:
            axes.segment(row.difference.bounds[0], at, row.difference.bounds[1], at, "whisker")
        css = "point frozen" if i == len(rows) - 1 else "point"
        axes.mark(row.difference.estimate or 0.0, at, css)
    return axes.render("wide" if wide else "narrow")


def sample_size(sizes: SampleSizes) -> str:
    """Cases against readers, for a power."""
    known = [(row.readers, row.cases) for row in sizes.rows if row.cases is not None]
    if not known:
        return ""
    top = 1.05 * max(cases for _, cases in known)
    first, last = sizes.rows[0].readers, sizes.rows[-1].readers
    axes = Axes(
        *SIZE,
        (first, last),
        (0, top),
        name=f"Cases needed against readers, for a power of {sizes.power}",
        left=64,
    )
    axes.grid(
        [(float(k), str(k)) for k in range(first, last + 1) if k % 5 == 0 or k == first],
        round_ticks(0, top),
        "readers",
        "cases",
    )
    axes.line([r for r, _ in known], [c for _, c in known], "curve")
    for readers, cases in known:
        axes.mark(readers, cases, "point", f"{readers} readers: {cases} cases", 3.0)
    return axes.render()


def _point(who: str, curve: ReaderCurve) -> str:
    x, y = curve.at or (0.0, 0.0)
    return f"{who}, {curve.modality}: sensitivity {y:.3f}, specificity {1 - x:.3f}"


def _legend(axes: Axes, modalities: list[str], with_mean: set[str]) -> None:
    right = axes.xlim[1] * 0.98
    for i, modality in enumerate(modalities):
        height = 0.06 + 0.05 * (len(modalities) - 1 - i)
        mean = " (thick: mean)" if modality in with_mean else ""
        css = LABELS[i % len(LABELS)]
        axes.text(right, height, f"{modality[:24]}{mean}", f"note {css}", "end")


def _staircase(xs: list[float], ys: list[float], wide: float) -> tuple[list[float], list[float]]:
    across, up = [xs[0]], [ys[0]]
    for x, y in zip(xs[1:], ys[1:], strict=True):
        if x > wide:
            break
        across += [x, x]
        up += [up[-1], y]
    return [*across, wide], [*up, up[-1]]


def _text(difference: Estimate) -> str:
    if difference.estimate is None:
        return ""
    return f"{difference.estimate:+.3f} ({limits(difference, 3)})"


def pairs_with_readers(rows: list[ReaderContrast]) -> list[tuple[str, str]]:
    """The pairs of modalities for which single readers have a difference."""
    return list(dict.fromkeys((row.a, row.b) for row in rows))

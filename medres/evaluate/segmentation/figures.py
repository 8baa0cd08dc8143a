"""Figures of the page of a segmentation, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medres.evaluate.reporting.narrative import limits
from medres.evaluate.segmentation.outcome import ClassResult
from medres.svg import Axes, round_ticks

BINS = 20
SIZE = (430, 300)


def dice_forest(findings: Sequence[ClassResult]) -> str:
    """The mean Dice of each class with its interval; for a wide and for a narrow screen."""
    return _forest(findings, wide=True) + _forest(findings, wide=False)


def histogram(title: str, values: Sequence[float], *, name: str, upper: float | None = None) -> str:
    """How many cases have which value. upper: the end of the axis; default the greatest value."""
    top = upper or max(float(np.max(values)), 1e-6)
    counts, edges = np.histogram(np.minimum(values, top), BINS, (0.0, top))
    most = int(counts.max())
    axes = Axes(*SIZE, (0.0, top), (0.0, most * 1.05), name=f"{name} of {title}", figure=name)
    axes.grid(round_ticks(0.0, top), _counts(most), name, "cases")
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            axes.bar(float(low), float(high), 0, count, "negative")
    return axes.render()


def scatter(title: str, sizes: Sequence[float], dices: Sequence[float], unit: str) -> str:
    """Dice by the size of the reference, on a logarithmic axis."""
    logs = np.log10(sizes)
    low, high = float(np.floor(logs.min())), float(np.ceil(logs.max()))
    high = max(high, low + 1.0)
    axes = Axes(*SIZE, (low, high), (0.0, 1.0), name=f"Dice of {title} by size", figure="sizes")
    ticks = [(float(p), f"{10.0**p:g}") for p in range(int(low), int(high) + 1)]
    axes.grid(ticks, round_ticks(0.0, 1.0), f"size of the reference ({unit})", "Dice")
    for x, y in zip(logs.tolist(), dices, strict=True):
        axes.mark(x, y, "negative", radius=2.5)
    return axes.render()


def _forest(findings: Sequence[ClassResult], *, wide: bool) -> str:
    bounds = [f.figures.dice.ci_low for f in findings if f.figures.dice.ci_low is not None]
    low = np.floor(10 * min([*bounds, 0.9])) / 10
    step, width = (30, 700) if wide else (50, 360)
    left, right = (190, 180) if wide else (12, 12)
    axes = Axes(
        width,
        step * len(findings) + 52,
        (float(low), 1.0),
        (float(len(findings)), 0.0),
        name="Dice of each class",
        top=6,
        bottom=40,
        left=left,
        right=right,
    )
    axes.grid(round_ticks(float(low), 1.0), [], "Dice", "")
    for i, found in enumerate(findings):
        _row(axes, i, found, float(low), wide=wide)
    return axes.render("wide" if wide else "narrow")


def _row(axes: Axes, i: int, found: ClassResult, low: float, *, wide: bool) -> None:
    dice = found.figures.dice
    text = "no Dice" if dice.estimate is None else f"{dice.estimate:.3f}"
    if dice.bounds is not None:
        text += f" ({limits(dice)})"
    at, words = (i + 0.5, i + 0.5) if wide else (i + 0.75, i + 0.35)
    axes.raw_text(6, axes.y(words) + 4, found.title[:26], "row")
    axes.raw_text(axes.width - 6, axes.y(words) + 4, text, "row", "end")
    if dice.bounds is not None:
        axes.segment(max(low, dice.bounds[0]), at, dice.bounds[1], at, "whisker")
    if dice.estimate is not None and dice.estimate >= low:
        axes.mark(dice.estimate, at, "negative")


def _counts(most: int) -> list[tuple[float, str]]:
    step = max(1, -(-most // 5))
    return [(float(n), str(n)) for n in range(0, most + 1, step)]

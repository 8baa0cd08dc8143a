"""A small SVG writer for figures: axes in data units, lines, marks and escaped text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, log10


class Axes:
    """A plot area of w x h inside a figure of width x height, in SVG units. `x` and `y` convert
    data units to SVG units.

    xlim, ylim: data range of the axes. name: read by screen readers. figure: the value of the
    attribute data-figure. left, bottom, top, right: margins.

    >>> axes = Axes(300, 200, (0, 1), (0, 1), name="ROC curve")
    >>> axes.line([0, 0.2, 1], [0, 0.9, 1], "curve")
    >>> axes.render().count("<polyline")
    1
    """

    def __init__(
        self,
        width: int,
        height: int,
        xlim: tuple[float, float],
        ylim: tuple[float, float],
        *,
        name: str,
        figure: str = "",
        left: int = 52,
        bottom: int = 46,
        top: int = 12,
        right: int = 22,
    ) -> None:
        self.width, self.height, self.xlim, self.ylim = width, height, xlim, ylim
        self.left, self.top, self.right, self.bottom = left, top, right, bottom
        self.w, self.h = width - left - right, height - top - bottom
        self.parts: list[str] = []
        self.name, self.figure = name, figure

    def x(self, value: float) -> float:
        return self.left + (value - self.xlim[0]) / (self.xlim[1] - self.xlim[0]) * self.w

    def y(self, value: float) -> float:
        return self.top + self.h - (value - self.ylim[0]) / (self.ylim[1] - self.ylim[0]) * self.h

    def grid(
        self,
        xticks: Iterable[tuple[float, str]],
        yticks: Iterable[tuple[float, str]],
        xlabel: str,
        ylabel: str,
    ) -> None:
        """Grid lines, tick labels and axis titles. Ticks are (value, label)."""
        for value, text in xticks:
            self.segment(value, self.ylim[0], value, self.ylim[1], "rule")
            self.raw_text(self.x(value), self.top + self.h + 16, text, "tick", anchor="middle")
        for value, text in yticks:
            self.segment(self.xlim[0], value, self.xlim[1], value, "rule")
            self.raw_text(self.left - 7, self.y(value) + 4, text, "tick", anchor="end")
        self.raw_text(self.left + self.w / 2, self.height - 8, xlabel, "axis", anchor="middle")
        middle = self.top + self.h / 2
        self.parts.append(
            f'<text class="axis" text-anchor="middle" transform="translate(14 {middle:.1f}) '
            f'rotate(-90)">{escape(ylabel)}</text>'
        )

    def segment(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        self.parts.append(
            f'<line class="{css}" x1="{self.x(x1):.1f}" y1="{self.y(y1):.1f}" '
            f'x2="{self.x(x2):.1f}" y2="{self.y(y2):.1f}"/>'
        )

    def line(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        path = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        self.parts.append(f'<polyline class="{css}" points="{path}"/>')

    def polygon(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        path = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        self.parts.append(f'<polygon class="{css}" points="{path}"/>')

    def bar(self, x1: float, x2: float, y1: float, y2: float, css: str) -> None:
        low, high = sorted((self.y(y1), self.y(y2)))
        self.parts.append(
            f'<rect class="{css}" x="{self.x(x1):.2f}" y="{low:.2f}" '
            f'width="{max(0.0, self.x(x2) - self.x(x1) - 0.6):.2f}" '
            f'height="{high - low:.2f}"/>'
        )

    def mark(self, x: float, y: float, css: str, title: str = "", radius: float = 4.5) -> None:
        inner = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<circle class="{css}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" '
            f'r="{radius}">{inner}</circle>'
        )

    def triangle(self, x: float, y: float, css: str, title: str) -> None:
        cx, cy = self.x(x), self.y(y)
        path = f"{cx:.1f},{cy - 6:.1f} {cx - 5.5:.1f},{cy + 4:.1f} {cx + 5.5:.1f},{cy + 4:.1f}"
        self.parts.append(
            f'<polygon class="{css}" points="{path}"><title>{escape(title)}</title></polygon>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        css: str = "note",
        anchor: str = "start",
        dx: float = 0,
        dy: float = 0,
    ) -> None:
        self.raw_text(self.x(x) + dx, self.y(y) + dy, text, css, anchor)

    def raw_text(self, x: float, y: float, text: str, css: str, anchor: str = "start") -> None:
        self.parts.append(
            f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def render(self, css: str = "") -> str:
        """The SVG element. The data- attributes are for the script of the page."""
        box = f"{self.left} {self.top} {self.w} {self.h}"
        return (
            f'<svg class="plot {css}" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.name)}" '
            f'data-figure="{self.figure}" data-box="{box}" data-x="{self.xlim[0]!r} '
            f'{self.xlim[1]!r}" '
            f'data-y="{self.ylim[0]!r} {self.ylim[1]!r}" '
            f'xmlns="http://www.w3.org/2000/svg">{"".join(self.parts)}</svg>'
        )


def fractions(step: float = 0.2) -> list[tuple[float, str]]:
    """Ticks from 0 to 1 with percentages as labels.

    >>> fractions(0.5)
    [(0.0, '0%'), (0.5, '50%'), (1.0, '100%')]
    """
    count = round(1 / step)
    return [(i / count, f"{100 * i / count:g}%") for i in range(count + 1)]


def round_ticks(low: float, high: float, max_ticks: int = 6) -> list[tuple[float, str]]:
    """Ticks between two values, at multiples of 1, 2 or 5 times a power of ten.

    >>> [label for _, label in round_ticks(0, 1)]
    ['0', '0.2', '0.4', '0.6', '0.8', '1.0']
    """
    rough = (high - low) / (max_ticks - 1)
    power = 10.0 ** floor(log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * (1 - 1e-9))
    values = [k * step for k in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
    digits = max(0, -floor(log10(step) + 1e-9))
    return [(value, f"{value:.{digits}f}".replace("-", "−") if value else "0") for value in values]

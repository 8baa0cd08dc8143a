"""The page of `medres inspect`: one HTML file without a script or a request to anywhere. It draws
and computes nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medres.svg import Axes

COLOURS = 6


def page(shown: dict[str, Any], sections: Sequence[Any] = ()) -> str:
    """The self-contained page; its content policy allows its own style and pictures inside the
    file, nothing else.
    """
    css = _asset("inspect.css")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"num": _num, "pct": _pct}
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        f"form-action 'none'"
    )
    drawn = [{**one, "svg": Markup(histogram(one))} for one in shown["histograms"] if one["lines"]]
    return environment.from_string(_asset("inspect.html.j2")).render(
        r=shown, css=Markup(css), policy=policy, histograms=drawn, sections=sections
    )


def histogram(one: dict[str, Any]) -> str:
    """Grey values of one kind as SVG: a line a manufacturer, the share of pixels on a square-root
    scale.
    """
    low, high, bins = one["low"], one["high"], one["bins"]
    top = max(max(line["shares"]) for line in one["lines"]) ** 0.5 * 1.05
    unit = "HU" if one["kind"] == "ct" else "display value"
    axes = Axes(
        680,
        260,
        (low, high),
        (0.0, top),
        name=f"Grey values of {one['kind']} images by manufacturer",
    )
    steps = range(-1000, 1501, 500) if one["kind"] == "ct" else [0, 0.25, 0.5, 0.75, 1]
    shares = [share for share in (0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0) if share**0.5 <= top]
    axes.grid(
        [(v, f"{v:g}") for v in steps],
        [(s**0.5, f"{100 * s:g}%") for s in shares],
        unit,
        "pixels in the bin",
    )
    centres = [low + (n + 0.5) * (high - low) / bins for n in range(bins)]
    for number, line in enumerate(one["lines"]):
        axes.line(centres, [share**0.5 for share in line["shares"]], f"maker m{number % COLOURS}")
    return axes.render()


def _asset(name: str) -> str:
    return (resources.files("medres.inspection") / "templates" / name).read_text(encoding="utf-8")


def _num(value: float | int, digits: int = 2) -> str:
    return (
        f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}".replace(",", "\u202f")
    )


def _pct(value: float) -> str:
    return f"{100 * value:.0f}%"

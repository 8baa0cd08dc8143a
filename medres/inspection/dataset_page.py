"""The page of `medres inspect`: one HTML file without scripts or network requests. It draws
the page and computes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from data_pipelines.kinds import KINDS, image_kind
from data_pipelines.volumes.slice_grid import Resampling
from medres.inspection.page_content import Histogram, PageContent, Section
from medres.svg import Axes

COLORS = 6
#: split_origin of ingest.json, for people
SPLIT_ORIGINS = {
    "given": "given with the labels",
    "drawn": "random, by patient and label",
    "hash": "by a keyed hash of each patient",
    "earlier": "kept from an earlier work folder",
    "external": "an external site is the test split",
    "none": "none, all images are in test",
}


def page(content: PageContent, sections: Sequence[Section] = ()) -> str:
    """The self-contained page. Its content security policy allows only its own style sheet and
    images inside the file.
    """
    css = _asset("inspect.css")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"num": _num, "pct": _pct, "p": _p_value}
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        f"form-action 'none'"
    )
    histograms = [(entry, Markup(histogram(entry))) for entry in content.histograms]
    origin = content.facts.summary["split_origin"]
    units = {kind.name: kind.units for kind in KINDS.values()}
    return environment.from_string(_asset("inspect.html.j2")).render(
        c=content,
        r=content.facts,
        summary=content.facts.summary,
        css=Markup(css),
        policy=policy,
        histograms=histograms,
        units=units,
        limits=Resampling(),
        sections=sections,
        origin=SPLIT_ORIGINS.get(origin, origin),
    )


def histogram(entry: Histogram) -> str:
    """The gray values of one kind of image as SVG: one line per manufacturer, the share of pixels
    on a square-root scale.
    """
    low, high = entry.low, entry.high
    top = max(max(line.shares) for line in entry.lines) ** 0.5 * 1.05
    units = image_kind(entry.kind).units
    axes = Axes(
        680,
        260,
        (low, high),
        (0.0, top),
        name=f"Gray values of {entry.kind} images by manufacturer",
    )
    shares = [share for share in (0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0) if share**0.5 <= top]
    axes.grid(
        [(value, f"{value:g}") for value in _ticks(low, high)],
        [(s**0.5, f"{100 * s:g}%") for s in shares],
        units.name if units.bounds is None else "display value",
        "pixels in the bin",
    )
    centers = [low + (n + 0.5) * (high - low) / entry.bins for n in range(entry.bins)]
    for number, line in enumerate(entry.lines):
        axes.line(centers, [share**0.5 for share in line.shares], f"maker m{number % COLORS}")
    return axes.render()


def _ticks(low: float, high: float) -> list[float]:
    """At most six round numbers from low to high, in steps of 1, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(factor * power for factor in (1, 2.5, 5, 10) if (high - low) / (factor * power) < 6)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _asset(name: str) -> str:
    return (resources.files("medres.inspection") / "templates" / name).read_text(encoding="utf-8")


def _num(value: float | int, digits: int = 2) -> str:
    return (
        f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}".replace(",", "\u202f")
    )


def _pct(value: float) -> str:
    return f"{100 * value:.0f}%"


def _p_value(value: float) -> str:
    if value < 0.001:
        return "p < .001"
    return f"p = {value:.3f}".replace("0.", ".")

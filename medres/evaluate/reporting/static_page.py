"""A page without a script: a template and the style of the report in one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medres.evaluate.reporting.html import format_number, format_p
from medres.evaluate.reporting.narrative import interval, limits


def static_page(
    template: str, filters: dict[str, Callable[..., Any]], *, has_images: bool, **values: Any
) -> str:
    """A self-contained HTML page that requests nothing from the network: its policy allows its own
    style, and images within it where it has any. template: the name of a file in templates/.
    filters: beside num, p, ci and interval.
    """
    css = _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"num": format_number, "p": format_p, "ci": limits, "interval": interval}
    environment.filters |= filters
    return environment.from_string(_asset(template)).render(
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'"
        + ("; img-src data:" if has_images else ""),
        **values,
    )


def _asset(name: str) -> str:
    folder = resources.files("medres.evaluate.reporting") / "templates"
    return (folder / name).read_text(encoding="utf-8")

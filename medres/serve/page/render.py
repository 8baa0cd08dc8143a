"""Templates to responses. Everything that a template shows is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from medres.artefact.card import INTENDED_USE
from medres.serve.intake.access import PAGE
from medres.serve.page import words


class Renderer:
    """The templates of the page."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("medres.serve.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "figure": words.figure,
            "size": words.size,
            "advice": words.advice,
        }
        self._environment.globals |= {"page": PAGE, "intended_use": INTENDED_USE}

    def response(self, template: str, status: int, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._environment.get_template(template).render(**values), status)

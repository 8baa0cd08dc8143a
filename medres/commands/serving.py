"""Verbs about a finished model: verify, predict."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from medres.console import Json, report

Model = Annotated[Path, typer.Argument(help="model.keras of a run.")]


def verify(model: Model, as_json: Json = False) -> None:
    """Check a model file as medres.load does (nothing from it is run before it has passed), and print what it says about itself."""
    from medres import page
    from medres.artefact import load

    found = load(model)
    report(page.as_dict(found) if as_json else None, as_json, page.lines(found))


def predict(
    model: Model,
    path: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of studies.")],
    as_json: Json = False,
) -> None:
    """Probability and decision, or a refusal with its reason, one a study. Research use only; not a medical device."""
    from medres.predict import load
    from medres.progress import Bars

    missing = [p for p in path if not p.exists()]
    if missing:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(missing[0]))
    predictor = load(model)
    found = [prediction.as_dict() for prediction in predictor.predict_many(path, progress=Bars())]
    report(found, as_json, [prediction_line(one) for one in found])


def prediction_line(one: dict[str, Any]) -> str:
    if one["refused"] is not None:
        return f"{one['path']}: refused: {one['refused']}"
    named = ", ".join(f"{name} {value:.3f}" for name, value in one["probabilities"].items())
    decided = ", ".join(
        f"{k}: {v}" if isinstance(v, str) else (k if v else f"no {k}") for k, v in one["decisions"].items()
    )
    unsure = f" (the model abstains: {', '.join(one['abstained'])})" if one["abstained"] else ""
    return f"{one['path']}: {named} -> {decided}{unsure}"

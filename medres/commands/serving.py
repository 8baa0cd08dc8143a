"""Verbs about a finished model: predict."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from data_pipelines.backend import require_tensorflow
from medres.console import Json, report


def predict(
    model: Annotated[Path, typer.Argument(help="model.keras of a run.")],
    path: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of studies.")],
    as_json: Json = False,
) -> None:
    """Probability and decision, or a refusal with its reason, one a study. Research use only; not a medical device."""
    require_tensorflow()
    from medres.predict import load

    predictor = load(model)
    missing = [p for p in path if not p.exists()]
    if missing:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(missing[0]))
    found = [prediction.as_dict() for prediction in predictor.predict_many(path)]
    report(found, as_json, [prediction_line(one) for one in found])


def prediction_line(one: dict[str, Any]) -> str:
    if one["refused"] is not None:
        return f"{one['path']}: refused: {one['refused']}"
    named = ", ".join(f"{name} {value:.3f}" for name, value in one["probabilities"].items())
    decided = ", ".join(
        f"{k}: {v}" if isinstance(v, str) else (k if v else f"no {k}") for k, v in one["decisions"].items()
    )
    return f"{one['path']}: {named} -> {decided}"

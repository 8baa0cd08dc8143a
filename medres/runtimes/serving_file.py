"""`serving.json`: what an engineer needs to serve an exported model without medres
(docs/how-to/serve.md describes each field).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.atomic_files import file_sha256
from medres.artefact.archive import Artefact
from medres.artefact.boxes import BOX
from medres.artefact.card import SERVED, Card
from medres.artefact.orientation import MAX_RATIO
from medres.errors import ExportError
from medres.runtimes.served_graph import INPUT, NOVELTY, ORIENTATION, main_output

SERVING = "serving.json"
SCHEMA = "medres.serving/1"


def write_serving_file(
    artefact: Artefact, folder: Path, *, format: str, file: str, file_sha256: str | None
) -> None:
    """Write serving.json. file: the path of the model, relative to the folder. file_sha256: of that
    file, None for a SavedModel, which is a folder.
    """
    card = artefact.card
    facts = {
        "schema": SCHEMA,
        "model": {
            "format": format,
            "file": file,
            "sha256": file_sha256,
            "exported_from_sha256": artefact.sha256,
        },
        "input": {
            "name": INPUT,
            "dtype": "float32",
            "shape": [None, *card.input_shape],
            "units": card.preprocess.image_kind.units.name,
        },
        "outputs": output_facts(artefact),
        "preprocess": preprocess_facts(card.preprocess),
        "task": card.task,
        "names": card.names,
        "unit": card.unit,
        "pooling": card.pooling,
        "thresholds": {
            point.finding: point.threshold
            for point in card.operating_points
            if (point.name, point.unit) == ("default", SERVED if card.detection is None else BOX)
        },
        **({} if card.detection is None else {"detection": card.detection.model_dump()}),
        "operating_points": [point.model_dump(mode="json") for point in card.operating_points],
        "conformal": [quantile.model_dump(mode="json") for quantile in card.conformal],
        **segmentation_facts(card),
        "domain": None if card.domain is None else card.domain.model_dump(mode="json"),
        "golden": "golden/index.json",
        "intended_use": card.intended_use,
    }
    (folder / SERVING).write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n")


def output_facts(artefact: Artefact) -> dict[str, Any]:
    """Output -> its shape, and where it refuses images the limit above which it does."""
    card = artefact.card
    outputs: dict[str, Any] = {main_output(card): {"shape": [None, *card.output_shape]}}
    if artefact.novelty is not None:
        limit = card.novelty_threshold
        outputs[NOVELTY] = {"shape": [None], "refused_above": limit}
    if artefact.orientation_model is not None:
        outputs[ORIENTATION] = {"shape": [None], "refused_above": MAX_RATIO}
    return outputs


def segmentation_facts(card: Card) -> dict[str, Any]:
    """`segmentation` of a segmenter: colors, post-processing, and how a patch is moved over an
    image (`medres.inference.sliding_windows`).
    """
    fields = card.segmentation
    if fields is None:
        return {}
    facts = fields.model_dump(mode="json")
    if card.input_shape != tuple(card.preprocess.shape):
        facts["windows"] = {
            "sides": list(card.sides),
            "overlap": fields.overlap,
            "starts": "round(i * (size - side) / n) for i = 0 ... n, with n = ceil((size - side) / "
            "max(1, floor(side * (1 - overlap))))",
            "weights": "product over the axes of exp(-((x - (side - 1) / 2) / (side / 8))^2 / 2), "
            "divided at each pixel by the sum over the windows that cover it",
            "label": "the class with the largest weighted mean of the probabilities, then the "
            "post-processing",
            "novelty": "the mean over the windows",
        }
    if fields.flips:
        facts["flipped"] = (
            "the probabilities of an image or a window are the mean over it and its flips along "
            "each set of axes in flips, flipped back"
        )
    return {"segmentation": facts}


def preprocess_facts(spec: PreprocessSpec) -> dict[str, Any]:
    """All fields of a spec, and what follows from its kind of image."""
    return spec.model_dump(mode="json") | {
        "units": spec.image_kind.units.name,
        "dtype": spec.dtype.name,
        "scale": float(spec.scale),
        "fill": spec.fill,
        "sha256": spec.sha256,
    }


@dataclass(frozen=True)
class ServedModel:
    """What serving.json says about the exported model. file: its path. exported_from_sha256: of the
    model file of which it was made.
    """

    format: str
    file: Path
    exported_from_sha256: str


def read_serving_file(folder: Path) -> ServedModel:
    """The exported model of a folder. Raises ExportError (export_folder) if there is none, or if
    its file was changed.
    """
    try:
        facts = json.loads((folder / SERVING).read_text())
        model = facts["model"]
        served = ServedModel(
            str(model["format"]), folder / model["file"], str(model["exported_from_sha256"])
        )
        intact = facts["schema"] == SCHEMA and model["sha256"] in (
            None,
            file_sha256(served.file) if served.file.is_file() else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{folder} is not a complete export ({type(error).__name__} in {SERVING}): export the "
            f"model again",
            code="export_folder",
        ) from None
    if not intact:
        raise ExportError(
            f"{folder}: the exported model was changed, or {SERVING} is of another version: export "
            f"the model again",
            code="export_folder",
        )
    return served

"""The folder `golden` of an export: made-up DICOM files, the prepared integers that they give, and
the outputs of the model, so that a second implementation can be compared step by step.

index.json lists the vectors; NAME.dcm are the files; NAME.bin are prepared integers, little endian,
C order.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.preprocessing.study import prepared_study
from data_pipelines.synthetic.golden_files import GoldenStudy, golden_studies
from medres.artefact.archive import Artefact
from medres.errors import ExportError
from medres.runtimes.served_graph import MAIN, Outputs, reference_outputs

GOLDEN = "golden"
SCHEMA = "medres.golden/1"


@dataclass(frozen=True)
class GoldenVector:
    """A made-up study, its prepared integers (n, *spec.prepared_shape), and the outputs of the
    model for them; of a model that sees patches, for their first patch (`Card.first_patch`).
    """

    study: GoldenStudy
    prepared: np.ndarray
    outputs: Outputs


def dicom_vectors(artefact: Artefact) -> list[GoldenVector]:
    """The vectors of a model, computed with medres and Keras; [] where its kind of image is not
    read from DICOM files.
    """
    spec = artefact.card.preprocess
    if not spec.image_kind.modality:
        return []
    studies = golden_studies(spec.image_kind, spec.rows, spec.cols, series=spec.layout != "image")
    vectors = []
    for study in studies:
        prepared = prepared_study(study.files, spec).pixels
        images = artefact.card.first_patch(to_model_units(prepared, spec))
        outputs = reference_outputs(artefact, images)
        vectors.append(GoldenVector(study, prepared, outputs))
    return vectors


def write_golden_folder(vectors: list[GoldenVector], artefact: Artefact, folder: Path) -> None:
    """Write the vectors and their index into `folder`/golden."""
    target = folder / GOLDEN
    target.mkdir()
    entries = []
    for vector in vectors:
        name = vector.study.name
        files = {
            f"{name}.dcm" if len(vector.study.files) == 1 else f"{name}-{n}.dcm": data
            for n, data in enumerate(vector.study.files, start=1)
        }
        prepared = {f"{name}.bin": np.ascontiguousarray(vector.prepared).tobytes()}
        entries.append(
            {
                "name": name,
                "rule": vector.study.rule,
                "files": _written(target, files),
                "prepared": {
                    **_written(target, prepared)[0],
                    "dtype": vector.prepared.dtype.name,
                    "shape": list(vector.prepared.shape),
                },
                **{key: values.tolist() for key, values in vector.outputs.items()},
            }
        )
    index = {
        "schema": SCHEMA,
        "exported_from_sha256": artefact.sha256,
        "preprocess_sha256": artefact.card.preprocess.sha256,
        "names": artefact.card.names,
        "outputs_of": "the part of each image that begins at its first pixel and has the shape "
        "of the input",
        "vectors": entries,
    }
    (target / "index.json").write_text(json.dumps(index, indent=1, allow_nan=False) + "\n")


def read_golden_folder(folder: Path, spec: PreprocessSpec) -> list[tuple[np.ndarray, Outputs]]:
    """Prepared integers (n, *spec.prepared_shape) and outputs of each vector of an export folder.
    Raises ExportError (export_folder) if the folder is not complete or was changed.
    """
    try:
        index = json.loads((folder / GOLDEN / "index.json").read_text())
        return [_read(folder / GOLDEN, entry, spec) for entry in index["vectors"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{folder}: the golden vectors cannot be read ({type(error).__name__}): export the "
            f"model again",
            code="export_folder",
        ) from None


def _written(folder: Path, files: dict[str, bytes]) -> list[dict[str, str]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [
        {"path": name, "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    ]


def _read(folder: Path, entry: dict[str, Any], spec: PreprocessSpec) -> tuple[np.ndarray, Outputs]:
    data = (folder / Path(entry["prepared"]["path"]).name).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["prepared"]["sha256"]:
        raise ValueError("changed")
    prepared = np.frombuffer(data, spec.dtype).reshape(-1, *spec.prepared_shape)
    outputs = {
        name: np.array(values, np.float64)
        for name, values in entry.items()
        if name not in ("name", "rule", "files", "prepared")
    }
    if not any(name in outputs for name in MAIN):
        raise ValueError("no probability")
    return prepared, outputs

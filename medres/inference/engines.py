"""A predictor that runs on ONNX Runtime or OpenVINO instead of TensorFlow.

The model file is converted once, with TensorFlow. The export is kept in the cache folder of the
user under the SHA-256 of the model file; later openings need no TensorFlow. Every opening compares
the reference outputs of the model file, and the golden vectors of the export.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.preprocessing.preparation import to_model_units
from medres.artefact import archive, golden_vectors
from medres.artefact.archive import Artefact, ArtefactContents
from medres.artefact.model_file import ModelFile, private_copy
from medres.errors import ArtefactError, ExportError
from medres.inference.exporting import compare, export
from medres.runtimes.formats import Format, GraphRunner, check_format, open_graph
from medres.runtimes.golden_folder import read_golden_folder
from medres.runtimes.served_graph import NOVELTY, main_output
from medres.runtimes.serving_file import read_serving_file

Engine = Literal["tensorflow", "onnx", "openvino"]
# float32 images (n, *spec.shape) -> probabilities (n, outputs), distances (n,) or None
Scorer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]

_RUNTIME = {"onnx": "onnxruntime", "openvino": "openvino"}


def open_engine(
    path: Path | str,
    engine: Format,
    exported: Path | str | None = None,
    *,
    signature: Path | str | None = None,
    public_key: Path | str | None = None,
) -> tuple[Artefact, Scorer]:
    """The artefact of a model file, without its Keras model (None), and the function that scores
    images with `engine`.

    exported: a folder that `export` made of this file; None converts the file, or takes the cached
        conversion. A cached one that fails its check is replaced. signature, public_key: as in
        `medres.artefact.archive.load`.

    Raises ArtefactError for the model file; ExportError: package_missing; engine_differs if the
    golden vectors are not reproduced to 1e-5; export_folder if `exported` is not complete;
    other_model if it was made of another model file.
    """
    check_format(engine, writing=False)
    with private_copy(path) as file:
        signer = archive.signer_of(file, signature, public_key)
        contents = archive.contents_of(file)
        run = _graph_of(file, contents, engine, None if exported is None else Path(exported))
    artefact = Artefact(
        model=None,
        card=contents.card,
        sha256=file.sha256,
        signer=signer,
        novelty=contents.novelty,
        orientation_model=contents.orientation_model,
        golden_difference=_golden_difference(run, contents),
    )
    return artefact, _one_by_one(run, main_output(contents.card))


def _graph_of(
    file: ModelFile, contents: ArtefactContents, engine: Format, exported: Path | None
) -> GraphRunner:
    if exported is not None:
        return _checked(exported, engine, contents, file.sha256)
    folder = _cached_export(engine, file.sha256)
    try:
        return _checked(folder, engine, contents, file.sha256)
    except ExportError:
        folder = _convert(file, engine, folder)
        return _checked(folder, engine, contents, file.sha256)


def check_engine(engine: str, exported: Path | str | None) -> None:
    """Raise InputError (unknown_engine, unused_export) for a request that has no meaning."""
    if engine not in get_args(Engine):
        raise InputError(
            f"unknown engine {engine!r}: choose one of {', '.join(get_args(Engine))}",
            code="unknown_engine",
        )
    if exported is not None and engine not in _RUNTIME:
        raise InputError(
            f'exported is for engine="onnx" or "openvino"; received engine={engine!r}',
            code="unused_export",
        )


def cache_root() -> Path:
    """The folder of this user for what can be made again: below XDG_CACHE_HOME where it is set."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "medres"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "medres" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "medres"
    return Path.home() / ".cache" / "medres"


def _cached_export(engine: Format, sha256: str) -> Path:
    runtime = _RUNTIME[engine]
    versions = f"medres{metadata.version('medres')}-{runtime}{metadata.version(runtime)}"
    return cache_root() / "engines" / sha256 / f"{engine}-{versions}"


def _convert(file: ModelFile, engine: Format, folder: Path) -> Path:
    """Export the model file and put the result at `folder`; if it cannot be written there, into a
    temporary folder that is left to the system.
    """
    artefact = archive.open_file(file)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        parent = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError:
        parent = Path(tempfile.mkdtemp(prefix="medres-"))
        folder = parent / "kept"
    try:
        made = export(artefact, engine, parent / "export").folder
        shutil.rmtree(folder, ignore_errors=True)
        try:
            made.rename(folder)
        except OSError:  # another process put its own there
            if not folder.is_dir():
                raise
    finally:
        if folder.parent != parent:
            shutil.rmtree(parent, ignore_errors=True)
    return folder


def _checked(folder: Path, engine: Format, contents: ArtefactContents, sha256: str) -> GraphRunner:
    """The exported model in a folder, after a comparison with the model file."""
    facts = read_serving_file(folder)
    if facts.exported_from_sha256 != sha256:
        raise ExportError(
            f"{folder}: this export was made of another model file", code="other_model"
        )
    if facts.format != engine:
        raise ExportError(
            f"{folder}: this is an export for {facts.format}, requested was {engine}",
            code="export_folder",
        )
    try:
        run = open_graph(engine, facts.file, batch=1)
    except Exception as error:  # each runtime has errors of its own
        raise ExportError(
            f"{folder}: {engine} cannot open the model ({type(error).__name__}): export it again",
            code="export_folder",
        ) from error
    spec = contents.card.preprocess
    try:
        _golden_difference(run, contents)
        for prepared, outputs in read_golden_folder(folder, spec):
            images = contents.card.first_patch(to_model_units(prepared, spec))
            rows = [run(image[np.newaxis]) for image in images]
            joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            compare(joined, outputs, contents.card, engine)
    except (ExportError, ArtefactError) as error:
        code = error.code if error.code == "export_folder" else "engine_differs"
        raise ExportError(f"{engine}: {error}", code=code) from None
    return run


def _golden_difference(run: GraphRunner, contents: ArtefactContents) -> float:
    images = to_model_units(contents.inputs, contents.card.preprocess)
    name = main_output(contents.card)
    outputs = np.concatenate([run(image[np.newaxis])[name] for image in images])
    return golden_vectors.compare(outputs, contents.outputs, contents.card)


def _one_by_one(run: GraphRunner, predicted: str) -> Scorer:
    """Each image alone, so that its digits do not depend on the others (decision 34)."""

    def scored(images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        rows = [run(images[n : n + 1]) for n in range(len(images))]
        novelty = None
        if NOVELTY in rows[0]:
            novelty = np.concatenate([row[NOVELTY] for row in rows]).astype(np.float64)
        return np.concatenate([row[predicted] for row in rows]), novelty

    return scored

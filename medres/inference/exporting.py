"""Export a model to other runtimes: ONNX, OpenVINO, SavedModel. An exported model is run after it
is written, and kept only if its outputs agree with those of the original.

A segmenter that sees patches is exported as it is: what moves it over an image is not in its graph,
and `serving.json` says how that is done.

Beside the model lie `serving.json`, which says how it is served, and `golden`, DICOM files with
their prepared integers and outputs. The card is exported too: in ONNX as the metadata property
`medres.json`, else as a file of that name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.runtime.atomic_files import file_sha256, sync_folder
from medres.artefact import golden_vectors
from medres.artefact.archive import Artefact
from medres.artefact.boxes import boxes_of_outputs, comparable
from medres.artefact.card import Card
from medres.artefact.validation import CARD
from medres.errors import ExportError
from medres.runtimes.formats import (
    MODEL_FILE,
    Format,
    check_format,
    open_graph,
    without_warnings,
    write_graph,
)
from medres.runtimes.golden_folder import dicom_vectors, write_golden_folder
from medres.runtimes.served_graph import (
    MAIN,
    Outputs,
    main_output,
    reference_outputs,
    served_graph,
)
from medres.runtimes.serving_file import write_serving_file
from medres.tasks import task_named

TOLERANCE = 1e-5
DISTANCE_TOLERANCE = 1e-3  # relative, of distances: the graph computes them in float32
SAME_PIXEL = 0.01  # of the corners of a box, in pixels of the input
IMAGES = 16
# float32 images (n, *spec.shape) in model units -> probabilities (n, outputs)
ExportRunner = Callable[[np.ndarray], np.ndarray]

_SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class Exported:
    """An exported model. path: the file or folder to open. difference: greatest difference between
    its probabilities and those of the artefact, on `images` check images. folder: holds
    serving.json and the folder golden.
    """

    path: Path
    difference: float
    images: int
    folder: Path


def export(
    artefact: Artefact, format: Format, out: Path | str, *, optimise: bool = False
) -> Exported:
    """Write the model in another format, run it there, and keep it only if its outputs agree with
    those of the artefact.

    out: a new folder. It gets model.onnx, or model.xml and model.bin, or the SavedModel; with
        serving.json and golden. A path that ends in .onnx or .xml is the file of the model; then
        serving.json and golden are in the folder NAME.serving beside it.
    optimise: fold each batch normalization into the convolution before it.

    On 16 check images (see `check_inputs`) and all golden vectors the probabilities may differ by
    at most 1e-5, distances by a thousandth, and all decisions must be equal. Raises ExportError
    (unknown_format, package_missing, export_shape, export_differs, decision_differs)
    and leaves nothing behind; InputError (output_exists) if `out` exists.
    """
    check_format(format, writing=True)
    out = Path(out)
    named = out if out.suffix == _SUFFIX.get(format) else None
    folder = out if named is None else out.with_suffix(".serving")
    for path in {out, folder}:
        if path.exists():
            raise InputError(
                f"{path} already exists: give another path, or remove it.", code="output_exists"
            )
    model = _with_folded_norm(artefact.model) if optimise else artefact.model
    graph, names = served_graph(artefact, model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".exporting-") as temporary:
        stage = Path(temporary) / "export"
        stage.mkdir()
        images = to_model_units(check_inputs(artefact.card), artefact.card.preprocess)
        images = artefact.card.first_patch(images)
        graph(images[:1])  # Keras exports only a model that has been called
        write_graph(graph, names, format, stage, artefact.card.model_dump_json(indent=1))
        with without_warnings():
            run = open_graph(format, stage)
            difference = compare(
                run(images), reference_outputs(artefact, images), artefact.card, format
            )
            vectors = dicom_vectors(artefact)
            for vector in vectors:
                prepared = to_model_units(vector.prepared, artefact.card.preprocess)
                outputs = run(artefact.card.first_patch(prepared))
                golden = compare(outputs, vector.outputs, artefact.card, format)
                difference = max(difference, golden)
        write_golden_folder(vectors, artefact, stage)
        file = MODEL_FILE[format] if named is None else f"../{named.name}"
        written = stage / MODEL_FILE[format]
        write_serving_file(
            artefact,
            stage,
            format=format,
            file=file,
            file_sha256=file_sha256(written) if written.is_file() else None,
        )
        _move(stage, folder, named)
    sync_folder(out.parent)
    path = named or (folder / MODEL_FILE[format] if format == "onnx" else folder)
    return Exported(path, difference, len(images), folder)


def runtime(format: Format, path: Path, *, hints: dict[str, Any] | None = None) -> ExportRunner:
    """The exported model at `path` as a function that gives the probabilities (of a detector the
    raw maps). hints: see
    `open_graph`.
    """
    run = open_graph(format, path, hints=hints)

    def runner(images: np.ndarray) -> np.ndarray:
        outputs = run(images)
        return next(outputs[name] for name in MAIN if name in outputs)

    return runner


def check_inputs(card: Card) -> np.ndarray:
    """Check images as prepared integers (16, *spec.prepared_shape): the golden inputs, and
    mixtures, mirror images and contrast changes of them.
    """
    base, rng = (
        golden_vectors.golden_inputs(card.preprocess).astype(np.float64),
        np.random.default_rng(1),
    )
    low, high = base.min(), base.max()
    images = [*base]
    while len(images) < IMAGES:
        share, gain = rng.random(), rng.uniform(0.2, 1.0)
        mixture = share * base[0] + (1 - share) * base[-1][::-1]
        images.append(low + gain * (rng.permutation([mixture - low, high - mixture])[0]))
    return np.rint(np.stack(images)).astype(card.preprocess.dtype)


def compare(
    outputs: Outputs,
    reference: Outputs,
    card: Card,
    name: str,
    tolerance: float = TOLERANCE,
) -> float:
    """The greatest difference of a probability between two sets of outputs for the same images.
    Raises ExportError as `agree` does, and if an output is missing (export_shape) or a distance
    differs by more than a thousandth (export_differs). name: for messages.
    """
    if {*outputs} != {*reference}:
        raise ExportError(
            f"{name}: the exported model has the outputs {', '.join(sorted(outputs))}, expected "
            f"{', '.join(sorted(reference))}; the export was discarded",
            code="export_shape",
        )
    main = main_output(card)
    difference = agree(outputs[main], reference[main], card, name, tolerance)
    for key in {*reference} - {main}:
        if not np.allclose(outputs[key], reference[key], rtol=DISTANCE_TOLERANCE, atol=1e-6):
            raise ExportError(
                f"{name}: the output {key} differs by more than {DISTANCE_TOLERANCE:.0e} of its "
                f"value; the export was discarded",
                code="export_differs",
            )
    return difference


def agree(
    outputs: np.ndarray,
    reference: np.ndarray,
    card: Card,
    name: str,
    tolerance: float = TOLERANCE,
) -> float:
    """The greatest difference between two arrays of probabilities (images, outputs). Raises
    ExportError if it is NaN or above the tolerance (export_differs), a decision differs
    (decision_differs) or the shapes do (export_shape). name: for messages.
    """
    if outputs.shape != reference.shape:
        raise ExportError(
            f"{name}: the exported model gives outputs of shape {outputs.shape}, expected "
            f"{reference.shape}; the export was discarded",
            code="export_shape",
        )
    difference = _difference(outputs, reference, card)
    if not difference <= tolerance:
        raise ExportError(
            f"{name}: probabilities differ by {difference:.1e} (limit {tolerance:.0e}); the export "
            f"was discarded",
            code="export_differs",
        )
    if not same_decisions(outputs, reference, card):
        raise ExportError(
            f"{name}: a decision at a frozen threshold differs; the export was discarded",
            code="decision_differs",
        )
    return difference


def _difference(outputs: np.ndarray, reference: np.ndarray, card: Card) -> float:
    """The greatest one, of raw maps as `comparable` makes them."""
    pair = outputs.astype(np.float64), reference.astype(np.float64)
    if card.detection is not None:
        pair = comparable(pair[0], card.decoding), comparable(pair[1], card.decoding)
    return float(np.abs(pair[0] - pair[1]).max())


def same_decisions(outputs: np.ndarray, reference: np.ndarray, card: Card) -> bool:
    """Whether two arrays of probabilities (images, outputs) lead to the same decisions: at every
    frozen threshold, or the most probable of exclusive classes; of a detector to the same positive
    boxes, to a hundredth of a pixel.
    """
    if card.detection is not None:
        return _same_boxes(outputs, reference, card)
    if task_named(card.task).exclusive:
        return bool((outputs.argmax(axis=1) == reference.argmax(axis=1)).all())
    return all(
        bool(((outputs[:, i] >= p.threshold) == (reference[:, i] >= p.threshold)).all())
        for i, name in enumerate(card.names)
        for p in card.operating_points
        if p.finding == name
    )


def _same_boxes(outputs: np.ndarray, reference: np.ndarray, card: Card) -> bool:
    """Boxes whose score is a rounding error from the threshold count as positive in both."""
    tables = [boxes_of_outputs(raw, card.decoding) for raw in (outputs, reference)]
    limits = np.array([card.box_thresholds[name] for name in card.names])
    for ours, theirs in (tables, tables[::-1]):
        clear = ours[:, 5] >= limits[ours[:, 6].astype(int)] + TOLERANCE
        for box in ours[clear]:
            same = (theirs[:, 0] == box[0]) & (theirs[:, 6] == box[6])
            near = np.abs(theirs[:, 1:5] - box[1:5]).max(axis=1) <= SAME_PIXEL
            if not (same & near & (np.abs(theirs[:, 5] - box[5]) <= SAME_PIXEL)).any():
                return False
    return True


def _with_folded_norm(model: Any) -> Any:
    """A copy of the model whose batch normalization is folded into its convolutions."""
    from medres.backbones import fold_batch_norm
    from medres.models.test_time_augmentation import core_of, with_core

    core = core_of(model)
    return fold_batch_norm(model) if core is model else with_core(model, fold_batch_norm(core))


def _move(stage: Path, folder: Path, named: Path | None) -> None:
    """Move a checked export to its final place. named: the path of the model file, if it lies
    beside the folder.
    """
    if named is not None:
        for file in sorted(stage.iterdir(), reverse=True):
            if file.stem == "model":
                shutil.move(file, named.with_suffix(file.suffix))
            elif file.name == CARD:
                shutil.move(file, named.with_name(f"{named.stem}.{CARD}"))
    shutil.move(stage, folder)

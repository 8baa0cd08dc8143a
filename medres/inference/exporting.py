"""Export a model to other runtimes: ONNX, OpenVINO, SavedModel. An exported model is run after it
is written, and kept only if its probabilities agree with those of the original.

The card is exported too: in ONNX as the metadata property `medres.json`, else as a file of that
name beside the model.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.runtime.atomic_files import sync_folder
from data_pipelines.runtime.backend import require_tensorflow
from medres.artefact import golden_vectors
from medres.artefact.archive import Artefact
from medres.artefact.card import Card
from medres.artefact.validation import CARD
from medres.errors import ExportError
from medres.tasks import task_named

Format = Literal["onnx", "openvino", "saved_model"]
FORMATS: tuple[Format, ...] = ("onnx", "openvino", "saved_model")
TOLERANCE = 1e-5
IMAGES = 16
# float32 images (n, *spec.shape) in model units -> probabilities (n, outputs)
ExportRunner = Callable[[np.ndarray], np.ndarray]

_FILE = {"onnx": "model.onnx", "openvino": "model.xml", "saved_model": "saved_model"}
_PACKAGES = {
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "saved_model": (),
}


@dataclass(frozen=True)
class Exported:
    """An exported model. path: the file or folder to open. difference: greatest difference between
    its probabilities and those of the artefact, on `images` check images.
    """

    path: Path
    difference: float
    images: int


def export(
    artefact: Artefact, format: Format, out: Path | str, *, optimise: bool = False
) -> Exported:
    """Write the model in another format, run it there, and keep it only if its probabilities agree
    with those of the artefact.

    out: a new path. onnx: a file (.onnx is added if the path has no such suffix). openvino: a
        folder with model.xml and model.bin, or a path that ends in .xml. saved_model: a folder.
    optimise: fold each batch normalization into the convolution before it.

    On 16 check images (see `check_inputs`) the probabilities may differ by at most 1e-5, and all
    decisions must be equal. Raises ExportError (unknown_format, package_missing, export_shape,
    export_differs, decision_differs) and leaves nothing behind; InputError (output_exists) if `out`
    exists.
    """
    if format not in FORMATS:
        raise ExportError(
            f"unknown format {format!r}: choose one of {', '.join(FORMATS)}", code="unknown_format"
        )
    _check_packages(format)
    target = _target(Path(out), format)
    if target.exists():
        raise InputError(
            f"{target} already exists: give another path, or remove it.", code="output_exists"
        )
    images = to_model_units(check_inputs(artefact.card), artefact.card.preprocess)
    reference = np.concatenate(
        [np.asarray(artefact.model(images[i : i + 1], training=False)) for i in range(len(images))]
    )
    model = _with_folded_norm(artefact.model) if optimise else artefact.model
    model(images[:1])  # Keras exports only a model that has been called
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".exporting-") as folder:
        written = Path(folder) / _FILE[format]
        with _no_warnings():
            _write(model, format, written)
        _add_card(written, format, artefact.card)
        with _no_warnings():
            outputs = runtime(format, written)(images)
        difference = agree(outputs, reference, artefact.card, format)
        _move(written, target, format)
    sync_folder(target.parent)
    return Exported(target, difference, len(images))


def runtime(format: Format, path: Path, *, hints: dict[str, Any] | None = None) -> ExportRunner:
    """The exported model at `path` as a function. hints: configuration of OpenVINO, by default
    float32 arithmetic (OpenVINO's own default is bfloat16 on processors that support it).
    """
    _check_packages(format)
    if format == "saved_model":
        served = require_tensorflow().saved_model.load(str(path))
        return lambda images: np.asarray(served.serve(images))
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images})[0]
    import openvino

    core = openvino.Core()
    graph = core.read_model(path / "model.xml" if path.is_dir() else path)
    compiled = core.compile_model(graph, "CPU", hints or {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0]


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
    difference = float(np.abs(outputs.astype(np.float64) - reference).max())
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


def same_decisions(outputs: np.ndarray, reference: np.ndarray, card: Card) -> bool:
    """Whether two arrays of probabilities (images, outputs) lead to the same decisions: at every
    frozen threshold, or the most probable of exclusive classes.
    """
    if task_named(card.task).exclusive:
        return bool((outputs.argmax(axis=1) == reference.argmax(axis=1)).all())
    return all(
        bool(((outputs[:, i] >= p.threshold) == (reference[:, i] >= p.threshold)).all())
        for i, name in enumerate(card.names)
        for p in card.operating_points
        if p.finding == name
    )


def _write(model: Any, format: Format, path: Path) -> None:
    if format == "onnx":
        model.export(str(path), format="onnx", verbose=False)
    elif format == "saved_model":
        model.export(str(path), format="tf_saved_model", verbose=False)
    else:
        # Through a SavedModel: OpenVINO 2026.4 accepts the TensorFlow function that Keras would
        # pass on Python 3.11 and 3.12 only.
        import openvino

        with tempfile.TemporaryDirectory(prefix="medres-") as served:
            model.export(served, format="tf_saved_model", verbose=False)
            openvino.save_model(openvino.convert_model(served), path, compress_to_fp16=False)


def _with_folded_norm(model: Any) -> Any:
    """A copy of the model whose batch normalization is folded into its convolutions."""
    from medres.backbones import fold_batch_norm
    from medres.models.test_time_augmentation import core_of, with_core

    core = core_of(model)
    return fold_batch_norm(model) if core is model else with_core(model, fold_batch_norm(core))


def _check_packages(format: Format) -> None:
    missing = [name for name in _PACKAGES[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f'{format} needs {", ".join(missing)}: run pip install "medres[export]"',
            code="package_missing",
        )


def _target(out: Path, format: Format) -> Path:
    if format == "onnx" and out.suffix != ".onnx":
        return out.with_name(f"{out.name}.onnx")
    return out


def _add_card(path: Path, format: Format, card: Card) -> None:
    text = card.model_dump_json(indent=1)
    if format == "onnx":
        import onnx

        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {CARD: text})
        onnx.save(model, str(path))
    else:
        (path if path.is_dir() else path.parent).joinpath(CARD).write_text(text)


def _move(written: Path, target: Path, format: Format) -> None:
    """Move the checked model to its final path."""
    if format == "openvino" and target.suffix == ".xml":
        for file in sorted(written.parent.iterdir(), reverse=True):
            name = (
                f"{target.stem}.{CARD}"
                if file.name == CARD
                else target.with_suffix(file.suffix).name
            )
            shutil.move(file, target.with_name(name))
    elif format == "openvino":
        target.mkdir()
        for file in sorted(written.parent.iterdir()):
            shutil.move(file, target / file.name)
    else:
        shutil.move(written, target)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Without warnings: the exporters warn about their own internals (old names of numpy)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""A model for other runtimes: ONNX, OpenVINO, SavedModel. Each is run after writing, and kept only
where its numbers agree.

The card travels along: in ONNX as the metadata property `medres.json`, else as a file of that name
beside the model.
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

Format = Literal["onnx", "openvino", "saved_model"]
FORMATS: tuple[Format, ...] = ("onnx", "openvino", "saved_model")
TOLERANCE = 1e-5
IMAGES = 16
ExportRunner = Callable[
    [np.ndarray], np.ndarray
]  # float32 images (n, ...) in model units -> probabilities (n, outputs)

_FILE = {"onnx": "model.onnx", "openvino": "model.xml", "saved_model": "saved_model"}
_PACKAGES = {
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "saved_model": (),
}


@dataclass(frozen=True)
class Exported:
    """Where the model is (the file or folder to open), and its greatest difference of probability
    from the artefact.
    """

    path: Path
    difference: float
    images: int


def export(
    artefact: Artefact, format: Format, out: Path | str, *, optimise: bool = False
) -> Exported:
    """Write the model in another format, run it there, and keep it only where its probabilities are
    those of the artefact.

    out: a new path. onnx: a file (PATH.onnx where no ending is given). openvino: a folder with
        model.xml and model.bin, or a path that
    ends in .xml. saved_model: a folder. optimise: fold each batch normalisation into the
    convolution before it. Compared on the golden inputs and variations of them, 1e-5 at most,
    decisions equal. Raises ExportError, with nothing left behind, where they differ, or a package
    is missing; InputError where `out` exists.
    """
    if format not in FORMATS:
        raise ExportError(f"unknown format {format!r}: choose one of {', '.join(FORMATS)}")
    _check_packages(format)
    target = _target(Path(out), format)
    if target.exists():
        raise InputError(
            f"{target} exists already: name another path, or remove it.", code="output_exists"
        )
    images = to_model_units(check_inputs(artefact.card), artefact.card.preprocess)
    want = np.concatenate(
        [np.asarray(artefact.model(images[i : i + 1], training=False)) for i in range(len(images))]
    )
    model = _folded(artefact.model) if optimise else artefact.model
    model(images[:1])  # Keras exports only what has been called
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".exporting-") as folder:
        made = Path(folder) / _FILE[format]
        with _quiet():
            _write(model, format, made)
        _add_card(made, format, artefact.card)
        with _quiet():
            found = runtime(format, made)(images)
        difference = agree(found, want, artefact.card, format)
        _move(made, target, format)
    sync_folder(target.parent)
    return Exported(target, difference, len(images))


def runtime(format: Format, path: Path, *, hints: dict[str, Any] | None = None) -> ExportRunner:
    """The exported model at `path` as a function. hints: OpenVINO's; float32 arithmetic unless
    given (its own default is bfloat16, where the processor has it).
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
    """Prepared integers (16, *spec.prepared_shape): the golden inputs, and mixtures, mirror images
    and other contrasts of them.
    """
    base, rng = (
        golden_vectors.golden_inputs(card.preprocess).astype(np.float64),
        np.random.default_rng(1),
    )
    low, high = base.min(), base.max()
    made = [*base]
    while len(made) < IMAGES:
        share, gain = rng.random(), rng.uniform(0.2, 1.0)
        one = share * base[0] + (1 - share) * base[-1][::-1]
        made.append(low + gain * (rng.permutation([one - low, high - one])[0]))
    return np.rint(np.stack(made)).astype(card.preprocess.dtype)


def agree(
    found: np.ndarray, want: np.ndarray, card: Card, name: str, tolerance: float = TOLERANCE
) -> float:
    """The greatest difference of probability. Raises ExportError where it is over the tolerance, or
    a decision differs.
    """
    if found.shape != want.shape:
        raise ExportError(f"{name}: {found.shape} probabilities where {want.shape} were expected")
    difference = float(np.abs(found.astype(np.float64) - want).max())
    if not difference <= tolerance:
        raise ExportError(
            f"{name}: probabilities differ by {difference:.1e}, more than {tolerance:.0e}; "
            f"nothing is kept"
        )
    if not same_decisions(found, want, card):
        raise ExportError(f"{name}: a decision differs at a frozen threshold; nothing is kept")
    return difference


def same_decisions(found: np.ndarray, want: np.ndarray, card: Card) -> bool:
    """Whether all images (n, outputs) are decided alike: at every frozen threshold, or by the most
    probable class.
    """
    if card.task == "multiclass":
        return bool((found.argmax(axis=1) == want.argmax(axis=1)).all())
    return all(
        bool(((found[:, i] >= p.threshold) == (want[:, i] >= p.threshold)).all())
        for i, name in enumerate(card.names)
        for p in card.operating_points
        if p.finding == name
    )


def _write(model: Any, format: Format, made: Path) -> None:
    if format == "onnx":
        model.export(str(made), format="onnx", verbose=False)
    elif format == "saved_model":
        model.export(str(made), format="tf_saved_model", verbose=False)
    # by way of a SavedModel: OpenVINO 2026.4 takes a TensorFlow function, as Keras gives it one, on
    # Python 3.11 and 3.12 alone
    else:
        import openvino

        with tempfile.TemporaryDirectory(prefix="medres-") as served:
            model.export(served, format="tf_saved_model", verbose=False)
            openvino.save_model(openvino.convert_model(served), made, compress_to_fp16=False)


def _folded(model: Any) -> Any:
    from medres.backbones import fold_batch_norm
    from medres.models.test_time_augmentation import core_of, with_core

    core = core_of(model)
    return fold_batch_norm(model) if core is model else with_core(model, fold_batch_norm(core))


def _check_packages(format: Format) -> None:
    missing = [name for name in _PACKAGES[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f'{format} needs {", ".join(missing)}: run pip install "medres[export]"')


def _target(out: Path, format: Format) -> Path:
    if format == "onnx" and out.suffix != ".onnx":
        return out.with_name(f"{out.name}.onnx")
    return out


def _add_card(made: Path, format: Format, card: Card) -> None:
    text = card.model_dump_json(indent=1)
    if format == "onnx":
        import onnx

        model = onnx.load(str(made))
        onnx.helper.set_model_props(model, {CARD: text})
        onnx.save(model, str(made))
    else:
        (made if made.is_dir() else made.parent).joinpath(CARD).write_text(text)


def _move(made: Path, target: Path, format: Format) -> None:
    """Put what was checked in its place."""
    if format == "openvino" and target.suffix == ".xml":
        for file in sorted(made.parent.iterdir(), reverse=True):
            name = (
                f"{target.stem}.{CARD}"
                if file.name == CARD
                else target.with_suffix(file.suffix).name
            )
            shutil.move(file, target.with_name(name))
    elif format == "openvino":
        target.mkdir()
        for file in sorted(made.parent.iterdir()):
            shutil.move(file, target / file.name)
    else:
        shutil.move(made, target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of their own internals (numpy's old names)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

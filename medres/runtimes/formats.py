"""The file formats of exported models: how each is written and opened. All have the same names of
tensors (`medres.runtimes.served_graph`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data_pipelines.runtime.backend import require_tensorflow
from medres.artefact.validation import CARD
from medres.errors import ExportError
from medres.runtimes.served_graph import INPUT, Outputs

if TYPE_CHECKING:
    import keras

Format = Literal["onnx", "openvino", "saved_model"]
FORMATS: tuple[Format, ...] = ("onnx", "openvino", "saved_model")
#: the file of the model within an export folder; "." is the folder itself
MODEL_FILE: dict[Format, str] = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "saved_model": ".",
}
# float32 images (n, *spec.shape) in model units -> all outputs of the graph
GraphRunner = Callable[[np.ndarray], Outputs]

_WRITE_PACKAGES = {
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "saved_model": (),
}
_OPEN_PACKAGES = {"onnx": ("onnxruntime",), "openvino": ("openvino",), "saved_model": ()}
_F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def check_format(format: str, *, writing: bool) -> None:
    """Raise ExportError (unknown_format, package_missing) unless the format can be used here."""
    packages = _WRITE_PACKAGES if writing else _OPEN_PACKAGES
    if format not in packages:
        raise ExportError(
            f"unknown format {format!r}: choose one of {', '.join(FORMATS)}", code="unknown_format"
        )
    missing = [name for name in packages[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f'{format} needs {", ".join(missing)}: run pip install "medres[export]"',
            code="package_missing",
        )


def write_graph(
    model: keras.Model, names: list[str], format: Format, folder: Path, card: str
) -> None:
    """Write a model whose outputs have `names` into a folder. card: JSON text, the metadata
    property `medres.json` of ONNX, else a file of that name.
    """
    with without_warnings():
        if format == "onnx":
            _write_onnx(model, names, folder / MODEL_FILE[format], card)
            return
        if format == "saved_model":
            _write_saved_model(model, names, folder)
        else:
            _write_openvino(model, names, folder / MODEL_FILE[format])
    (folder / CARD).write_text(card)


def open_graph(
    format: Format, path: Path, *, hints: dict[str, Any] | None = None, batch: int | None = None
) -> GraphRunner:
    """The exported model at `path` (a file, or a folder that holds it) as a function that several
    threads can call. hints: configuration of OpenVINO, by default float32 arithmetic (its own
    default is bfloat16 on processors that support it). batch: OpenVINO compiles for this number of
    images only, which is faster.
    """
    check_format(format, writing=False)
    if format == "saved_model":
        served = require_tensorflow().saved_model.load(str(path))
        signature = served.signatures["serving_default"]
        constant = require_tensorflow().constant

        def run_saved_model(images: np.ndarray) -> Outputs:
            outputs = signature(**{INPUT: constant(images)})
            return {name: np.asarray(value) for name, value in outputs.items()}

        return run_saved_model
    file = path / MODEL_FILE[format] if path.is_dir() else path
    return _open_onnx(file) if format == "onnx" else _open_openvino(file, hints or _F32, batch)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Without warnings: the exporters warn about their own internals (old names of numpy)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_onnx(file: Path) -> GraphRunner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    return lambda images: dict(
        zip(outputs, session.run(outputs, {name: np.asarray(images, np.float32)}), strict=True)
    )


def _open_openvino(file: Path, hints: dict[str, Any], batch: int | None) -> GraphRunner:
    import openvino

    core = openvino.Core()
    graph = core.read_model(file)
    if batch is not None:
        _, *shape = graph.input(0).get_partial_shape()
        graph.reshape([batch, *shape])
    compiled = core.compile_model(graph, "CPU", hints)
    names = [output.get_any_name() for output in compiled.outputs]
    requests = threading.local()  # one request must not serve two threads

    def run(images: np.ndarray) -> Outputs:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        results = requests.own.infer([np.asarray(images, np.float32)])
        return {name: np.array(results[n]) for n, name in enumerate(names)}

    return run


def _write_onnx(model: keras.Model, names: list[str], path: Path, card: str) -> None:
    import onnx

    model.export(str(path), format="onnx", verbose=False)
    written = onnx.load(str(path))
    graph = written.graph
    renamed = {graph.input[0].name: INPUT} | {
        output.name: name for output, name in zip(graph.output, names, strict=True)
    }
    # A name of the export may be that of an inner tensor already.
    inner = {name for node in graph.node for name in node.output} - set(renamed)
    renamed |= {name: f"{name}_inner" for name in inner & {INPUT, *names}}
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [renamed.get(name, name) for name in tensors]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = renamed.get(value.name, value.name)
    onnx.helper.set_model_props(written, {CARD: card})
    onnx.checker.check_model(written)
    onnx.save(written, str(path))


def _write_saved_model(model: keras.Model, names: list[str], folder: Path) -> None:
    """The signature `serving_default` gives all outputs by name; `serve` the first one."""
    import keras

    tf = require_tensorflow()
    module, shape = tf.Module(), model.input.shape[1:]
    module.parameters = [variable.value for variable in model.variables]
    signature = [tf.TensorSpec((None, *shape), tf.float32, name=INPUT)]

    def named(image: Any) -> dict[str, Any]:
        outputs = keras.tree.flatten(model(image, training=False))
        return {name: tf.identity(each) for name, each in zip(names, outputs, strict=True)}

    module.named = tf.function(named, input_signature=signature)
    module.serve = tf.function(lambda image: named(image)[names[0]], input_signature=signature)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.named})


def _write_openvino(model: keras.Model, names: list[str], path: Path) -> None:
    """Through a SavedModel: OpenVINO 2026.4 accepts the TensorFlow function that Keras would pass
    on Python 3.11 and 3.12 only.
    """
    import openvino

    with tempfile.TemporaryDirectory(prefix="medres-") as served:
        _write_saved_model(model, names, Path(served))
        converted = openvino.convert_model(served)
        converted.input(0).get_tensor().set_names({INPUT})
        results = [converted.output(name).get_node() for name in names]
        ordered = openvino.Model(results, converted.get_parameters(), model.name)
        openvino.save_model(ordered, path, compress_to_fp16=False)

"""Reference outputs: synthetic inputs and the probabilities of the model for them, stored in the
model file and compared whenever the file is opened.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.kinds import image_kind
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.backend import require_tensorflow
from medres.artefact.boxes import boxes_of_outputs, comparable
from medres.artefact.card import Card
from medres.artefact.masks import SegmentationFields, postprocessed
from medres.artefact.validation import GOLDEN, read_arrays
from medres.errors import ArtefactError

if TYPE_CHECKING:
    import keras

TOLERANCE = 1e-5  # of a probability, on another type of processor; the same one differs by < 1e-6
TIMEOUT_S = 600.0
MAX_BYTES = 4 << 20
MAX_OUTPUT_BYTES = 16 << 20  # of two reference outputs; above it there is one

# What a user with Keras and without medres does. Run with -I: no PYTHONPATH, no user packages.
# The limit of memory, argument 4 if given, counts from the moment at which TensorFlow is ready.
_PLAIN_KERAS = """
import sys
sys.modules["medres"] = sys.modules["data_pipelines"] = None
import keras, numpy
numpy.asarray(keras.ops.ones(1) + 1)
if len(sys.argv) > 4 and sys.platform.startswith("linux"):
    import resource
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], numpy.asarray(model(numpy.load(sys.argv[2]), training=False)))
"""


def golden_inputs(spec: PreprocessSpec) -> np.ndarray:
    """Synthetic images as prepared integers (2, *spec.prepared_shape) of dtype spec.dtype: smooth
    waves, and waves with noise. For images above 4 MiB only the second: (1, *spec.prepared_shape).
    """
    shape = spec.prepared_shape
    noise = np.random.default_rng(0).random(shape)
    y, x, *z = np.roll(np.indices(shape), -1 if spec.form == "volume" else 0, axis=0) / max(shape)
    waves = 0.5 + 0.25 * np.sin(9 * x + 3 * y + 2 * sum(z)) + 0.25 * np.cos(7 * y)
    unit = np.stack([waves, 0.7 * waves + 0.3 * noise])[
        -1 if noise.size * spec.dtype.itemsize > MAX_BYTES else 0 :
    ]
    low, high = (round(value / float(spec.scale)) for value in image_kind(spec.kind).tissue_range)
    return np.rint(low + unit * (high - low)).astype(spec.dtype)


def golden_shape(card: Card) -> tuple[int, ...]:
    """The shape of one reference input: of a prepared image, or of a patch of it."""
    sides, shape = card.sides, card.preprocess.prepared_shape
    return shape if card.segmentation is None else (*sides, *shape[len(sides) :])


def golden_member(model: keras.Model, card: Card) -> bytes:
    """The bytes of golden.npz: `inputs` (prepared integers), `outputs` (probabilities of this
    model), and of a segmenter `labels`, uint8 (n, *card.sides), after the post-processing; of a
    detector raw maps as `outputs` and `boxes` (see `boxes_of_outputs`).
    """
    spec, buffer = card.preprocess, io.BytesIO()
    inputs = golden_inputs(spec)[(slice(None), *map(slice, golden_shape(card)))]
    outputs = outputs_of(model, inputs, spec)
    if outputs.nbytes > MAX_OUTPUT_BYTES:
        inputs, outputs = inputs[-1:], outputs[-1:]
    arrays = {"inputs": inputs, "outputs": outputs} | _derived(outputs, card)
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def check_derived(member: bytes, outputs: np.ndarray, card: Card) -> None:
    """Raise ArtefactError (golden_shape) unless the label maps or boxes of golden.npz are those
    that the post-processing or the decoding on the card makes of its outputs.
    """
    arrays = read_arrays(member, GOLDEN)
    for name, expected in _derived(outputs, card).items():
        if name not in arrays or not np.array_equal(arrays[name], expected):
            raise ArtefactError(
                f"the {name} in {GOLDEN} are not those that the settings on the card make of its "
                f"outputs",
                code="golden_shape",
            )


def _derived(outputs: np.ndarray, card: Card) -> dict[str, np.ndarray]:
    """What is made of the outputs of a segmenter or a detector: by the names in golden.npz."""
    if card.segmentation is not None:
        return {"labels": _labels(outputs, card.segmentation)}
    return {} if card.detection is None else {"boxes": boxes_of_outputs(outputs, card.decoding)}


def _labels(outputs: np.ndarray, fields: SegmentationFields) -> np.ndarray:
    labels = outputs.argmax(axis=-1).astype(np.uint8)
    return np.stack([postprocessed(one, fields.postprocess) for one in labels])


def read_golden(member: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs of golden.npz. Raises ArtefactError (malformed_arrays, golden_shape)."""
    arrays = read_arrays(member, GOLDEN)
    if {*arrays} - {"labels", "boxes"} != {"inputs", "outputs"} or arrays["inputs"].ndim == 0:
        raise ArtefactError(f"{GOLDEN} does not hold inputs and outputs", code="golden_shape")
    return arrays["inputs"], arrays["outputs"]


def outputs_of(model: keras.Model, prepared: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Probabilities (n, outputs) of prepared integers (n, *spec.prepared_shape), computed on the
    CPU, since a GPU rounds differently. Raises ArtefactError (golden_shape).
    """
    tf = require_tensorflow()
    try:
        with tf.device("CPU:0"):
            return np.asarray(model(to_model_units(prepared, spec), training=False))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ArtefactError(
            f"the inputs in {GOLDEN} do not fit the graph of the model ({type(error).__name__})",
            code="golden_shape",
        ) from None


@dataclass(frozen=True)
class ProcessLimits:
    """What a process that opens a model may take: bytes of memory beyond those of Keras itself, and
    seconds.
    """

    memory: int
    seconds: float


def outputs_in_plain_keras(
    path: Path,
    prepared: np.ndarray,
    spec: PreprocessSpec,
    limits: ProcessLimits | None = None,
) -> np.ndarray:
    """Probabilities (n, outputs) that a fresh process with Keras and without medres computes.
    Raises ArtefactError (keras_cannot_open) if it fails or exceeds a limit.
    """
    seconds = TIMEOUT_S if limits is None else min(TIMEOUT_S, limits.seconds)
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        inputs, outputs = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        np.save(inputs, to_model_units(prepared, spec))
        command = [sys.executable, "-I", "-c", _PLAIN_KERAS, str(path), str(inputs), str(outputs)]
        command += [] if limits is None else [str(limits.memory)]
        environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        try:
            process = subprocess.run(
                command, env=environment, capture_output=True, timeout=seconds, text=True
            )
        except subprocess.TimeoutExpired:
            raise ArtefactError(
                f"plain Keras did not open the model in a fresh process within {seconds:g} s",
                code="keras_cannot_open",
            ) from None
        if process.returncode or not outputs.is_file():
            lines = process.stderr.strip().splitlines() or ["no message"]
            last_line = "".join(c for c in lines[-1][:200] if c.isprintable())
            fault = last_line if process.returncode >= 0 else f"signal {-process.returncode}"
            raise ArtefactError(
                f"plain Keras cannot open the model in a fresh process: {fault}",
                code="keras_cannot_open",
            )
        return np.load(outputs)


def compare(outputs: np.ndarray, golden: np.ndarray, card: Card | None = None) -> float:
    """The greatest difference between probabilities and the reference outputs, both (n, outputs);
    of a detector as `comparable` makes them. Raises ArtefactError (golden_shape, outputs_differ) if
    it is NaN or above 1e-5.
    """
    if outputs.shape != golden.shape:
        raise ArtefactError(
            f"the model gives outputs of shape {outputs.shape}, {GOLDEN} holds {golden.shape}",
            code="golden_shape",
        )
    if card is not None and card.detection is not None:
        outputs, golden = (comparable(values, card.decoding) for values in (outputs, golden))
    difference = float(np.abs(outputs - golden).max())
    if not difference <= TOLERANCE:
        raise ArtefactError(
            f"reference outputs not reproduced: probabilities differ by {difference:.1e} (limit "
            f"{TOLERANCE:.0e}) from those of the machine that wrote the file",
            code="outputs_differ",
        )
    return difference

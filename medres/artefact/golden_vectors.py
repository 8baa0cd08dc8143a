"""Made-up inputs and the probabilities that a model gives for them: kept in its file, compared
whenever it is opened.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.backend import require_tensorflow
from medres.artefact.validation import GOLDEN, read_arrays
from medres.errors import ArtefactError

if TYPE_CHECKING:
    import keras

TOLERANCE = 1e-5  # another processor; 1e-6 and less on the same one
TIMEOUT_S = 600.0
MAX_BYTES = 4 << 20

# What anybody does who has Keras and not medres. Run with -I: no PYTHONPATH, no user packages.
_PLAIN_KERAS = """
import sys
sys.modules["medres"] = sys.modules["data_pipelines"] = None
import keras, numpy
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], numpy.asarray(model(numpy.load(sys.argv[2]), training=False)))
"""


def golden_inputs(spec: PreprocessSpec) -> np.ndarray:
    """Made-up pictures as prepared integers (2, *spec.prepared_shape), over the useful range:
    smooth waves, and waves with noise; of records over 4 MiB the second alone.
    """
    shape = spec.prepared_shape
    noise = np.random.default_rng(0).random(shape)
    y, x, *z = np.roll(np.indices(shape), -1 if spec.form == "volume" else 0, axis=0) / max(shape)
    waves = 0.5 + 0.25 * np.sin(9 * x + 3 * y + 2 * sum(z)) + 0.25 * np.cos(7 * y)
    unit = np.stack([waves, 0.7 * waves + 0.3 * noise])[
        -1 if noise.size * spec.dtype.itemsize > MAX_BYTES else 0 :
    ]
    low, high = (-1024, 1024) if spec.kind == "ct" else (0, 65535)
    return np.rint(low + unit * (high - low)).astype(spec.dtype)


def golden_member(model: keras.Model, spec: PreprocessSpec) -> bytes:
    """The member golden.npz: `inputs` (prepared integers) and `outputs` (probabilities) of this
    model.
    """
    buffer, inputs = io.BytesIO(), golden_inputs(spec)
    np.savez(buffer, inputs=inputs, outputs=outputs_of(model, inputs, spec))
    return buffer.getvalue()


def read_golden(member: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs of golden.npz. Raises ArtefactError."""
    arrays = read_arrays(member, GOLDEN)
    if {*arrays} != {"inputs", "outputs"} or not len(arrays["inputs"]):
        raise ArtefactError(f"{GOLDEN} does not hold inputs and outputs")
    return arrays["inputs"], arrays["outputs"]


def outputs_of(model: keras.Model, prepared: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Probabilities of prepared integers, computed on the processor (a GPU rounds otherwise).
    Raises ArtefactError.
    """
    tf = require_tensorflow()
    try:
        with tf.device("CPU:0"):
            return np.asarray(model(to_model_units(prepared, spec), training=False))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ArtefactError(
            f"its golden inputs do not fit its graph ({type(error).__name__})"
        ) from None


def outputs_in_plain_keras(path: Path, prepared: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Probabilities that a fresh process gives which has Keras and not medres. Raises ArtefactError
    where it fails.
    """
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        given, answer = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        np.save(given, to_model_units(prepared, spec))
        command = [sys.executable, "-I", "-c", _PLAIN_KERAS, str(path), str(given), str(answer)]
        environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, timeout=TIMEOUT_S, text=True
            )
        except subprocess.TimeoutExpired:
            raise ArtefactError(
                f"a fresh process with plain Keras did not open it within {TIMEOUT_S:g} s"
            ) from None
        if done.returncode or not answer.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ArtefactError(f"plain Keras cannot open it in a fresh process: {last}")
        return np.load(answer)


def compare(found: np.ndarray, golden: np.ndarray) -> float:
    """The greatest difference of probabilities. Raises ArtefactError where it is above the
    tolerance or not a number.
    """
    if found.shape != golden.shape:
        raise ArtefactError(f"gives {found.shape} probabilities where {golden.shape} were written")
    difference = float(np.abs(found - golden).max())
    if not difference <= TOLERANCE:
        raise ArtefactError(
            f"gives other probabilities here than where it was made (difference {difference:.1e})"
        )
    return difference

"""The model file: one `.keras` zip that plain Keras opens, and that also holds what a clinic needs
besides the weights.

metadata.json, config.json,
model.weights.h5    as Keras writes them: built-in layers, float32, not compiled
medres.json         the card: classes, preprocessing, operating points, training, and the SHA-256 of
                    every member
golden.npz          synthetic prepared integers and the probabilities of this model for them
novelty.npz         distribution of the features of the training images (optional)
upright.npz         distribution of the training images at 16 x 16 pixels (optional; only if they
                    share one orientation)
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from data_pipelines.errors import SpecError
from data_pipelines.runtime.atomic_files import file_sha256, write_atomic
from data_pipelines.runtime.backend import require_tensorflow
from medres.artefact import golden_vectors
from medres.artefact.card import Calibration, Card, parse_card
from medres.artefact.feature_distance import FeatureGaussian, dump_gaussian, parse_gaussian
from medres.artefact.orientation import SIDE
from medres.artefact.validation import (
    CARD,
    GOLDEN,
    KERAS_MEMBERS,
    NOVELTY,
    UPRIGHT,
    WEIGHTS,
    card_sha256,
    read_members,
)
from medres.errors import ArtefactError
from medres.tasks import task_named

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Artefact:
    """A loaded model file.

    model: float32 images in model units (batch, *spec.shape) -> probabilities (batch, outputs).
    sha256: of the file. novelty, orientation_model: distributions of the features and of the
    thumbnails of the training images, None if the file does not hold them.
    golden_difference: greatest difference between the reference outputs of the file and those that
    the model gives on this machine.
    """

    model: keras.Model
    card: Card
    sha256: str
    novelty: FeatureGaussian | None
    orientation_model: FeatureGaussian | None
    golden_difference: float


def with_probability(logit_model: keras.Model, calibration: Calibration, task: str) -> keras.Model:
    """The served model: `logit_model` followed by its calibration and the sigmoid or softmax of the
    task, as built-in layers.
    """
    import keras

    x = logit_model.output
    x = keras.layers.Rescaling(
        calibration.scale, calibration.offset, dtype="float32", name="calibration"
    )(x)
    x = keras.layers.Activation(task_named(task).activation, dtype="float32", name="probability")(x)
    return keras.Model(logit_model.input, x, name=logit_model.name)


def save(
    path: Path | str,
    model: keras.Model,
    card: Card,
    novelty: FeatureGaussian | None = None,
    orientation_model: FeatureGaussian | None = None,
) -> None:
    """Write the model file atomically, after a check that it opens here, and with plain Keras in a
    fresh process, and gives the same probabilities. If not, nothing at `path` is changed.

    model: functional, built-in layers, float32, output `probability`. novelty, orientation_model:
        distributions of the features and of the thumbnails of the training images. Raises
        ArtefactError.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        plain_file, complete_file = Path(folder) / "plain.keras", Path(folder) / path.name
        model.save(plain_file)
        with zipfile.ZipFile(plain_file) as archive:
            members = {name: archive.read(name) for name in KERAS_MEMBERS}
        members[GOLDEN] = golden_vectors.golden_member(model, card.preprocess)
        gaussians = {NOVELTY: novelty, UPRIGHT: orientation_model}
        members |= {
            name: dump_gaussian(gaussian)
            for name, gaussian in gaussians.items()
            if gaussian is not None
        }
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        digests[CARD] = card_sha256(card.model_dump(mode="json"))
        members[CARD] = (
            card.model_copy(update={"members": digests}).model_dump_json(indent=1).encode()
        )
        complete_file.write_bytes(_zip(members))
        load(complete_file)
        inputs, outputs = golden_vectors.read_golden(members[GOLDEN])
        golden_vectors.compare(
            golden_vectors.outputs_in_plain_keras(complete_file, inputs, card.preprocess), outputs
        )
        write_atomic(path, complete_file.read_bytes())


@dataclass(frozen=True)
class ArtefactContents:
    """What a checked model file holds besides its weights.

    inputs, outputs: reference inputs (prepared integers) and the probabilities for them. members:
    the bytes of all members except the weights. The rest as in `Artefact`.
    """

    card: Card
    inputs: np.ndarray
    outputs: np.ndarray
    novelty: FeatureGaussian | None
    orientation_model: FeatureGaussian | None
    members: dict[str, bytes]


def read_contents(path: Path | str, *, weights_to: IO[bytes] | None = None) -> ArtefactContents:
    """Check a model file without TensorFlow, and read everything in it except the weights.

    weights_to: a file opened for reading and writing, to which the weights are copied. Raises
        ArtefactError; see `medres.artefact.validation.read_members` for most of its codes.
    """
    members = read_members(path, weights_to=weights_to)
    try:
        inputs, outputs = golden_vectors.read_golden(members[GOLDEN])
        novelty, orientation_model = (
            parse_gaussian(members[name], name) if name in members else None
            for name in (NOVELTY, UPRIGHT)
        )
        if orientation_model is not None and len(orientation_model.mean) != SIDE * SIDE:
            raise ArtefactError(
                f"{UPRIGHT} does not describe {SIDE} x {SIDE} pixels", code="malformed_gaussian"
            )
        card = parse_card(members[CARD])
        spec = card.preprocess
        if (inputs.shape[1:], inputs.dtype) != (spec.prepared_shape, spec.dtype):
            raise ArtefactError(
                f"{CARD} states the preprocessing {spec.name}, which does not match the shape or "
                f"dtype of the inputs in {GOLDEN}: one of them was altered",
                code="golden_shape",
            )
        return ArtefactContents(card, inputs, outputs, novelty, orientation_model, members)
    except (ArtefactError, SpecError) as error:
        raise ArtefactError(f"{Path(path).name}: {error}", code=error.code) from None


def load(path: Path | str) -> Artefact:
    """Check the file, open the model from the same bytes that were checked, and compare its outputs
    with the reference outputs in the file.

    Raises ArtefactError. Probabilities may differ by at most 1e-5 (another type of processor).
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        plain_file, weights = Path(folder) / "model.keras", Path(folder) / WEIGHTS
        with weights.open("w+b") as file:
            contents = read_contents(path, weights_to=file)
        with zipfile.ZipFile(plain_file, "w") as archive:
            archive.write(weights, WEIGHTS)
            for name in KERAS_MEMBERS[:2]:
                archive.writestr(name, contents.members[name])
        model = _open_with_keras(plain_file, path.name)
    try:
        difference = golden_vectors.compare(
            golden_vectors.outputs_of(model, contents.inputs, contents.card.preprocess),
            contents.outputs,
        )
    except ArtefactError as error:
        raise ArtefactError(f"{path.name}: {error}", code=error.code) from None
    return Artefact(
        model=model,
        card=contents.card,
        sha256=file_sha256(path),
        novelty=contents.novelty,
        orientation_model=contents.orientation_model,
        golden_difference=difference,
    )


def _open_with_keras(plain_file: Path, name: str) -> keras.Model:
    require_tensorflow()
    import keras

    try:
        return keras.saving.load_model(plain_file, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        raise ArtefactError(
            f"{name}: Keras {keras.__version__} cannot open the model ({type(error).__name__})",
            code="keras_cannot_open",
        ) from error


def versions() -> dict[str, str]:
    """Versions of the software that computed the model."""
    return {
        "python": platform.python_version(),
        "tensorflow": require_tensorflow().__version__,
        **{name: metadata.version(name) for name in ("medres", "keras", "numpy", "pydicom")},
    }


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def summary_hash(value: object) -> str:
    """SHA-256 of the JSON of a value, with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()

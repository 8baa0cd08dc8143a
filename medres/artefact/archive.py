"""One `.keras` file that plain Keras opens, with what a clinic needs beside the weights inside the
same zip.

metadata.json, config.json,
model.weights.h5    as Keras writes them: built-in layers, float32, not compiled
medres.json         the card: classes, preprocessing, operating points, origin, SHA-256 of all
                    members
golden.npz          made-up prepared integers and the probabilities that this model gives for them
novelty.npz         what the features of training images look like (optional)
upright.npz         what they look like at 16 x 16 pixels, where they stand one way (optional)
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
from medres.artefact.card import Calibration, Card, card_from
from medres.artefact.feature_distance import FeatureGaussian, novelty_from, novelty_member
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
    """A loaded model (image in model units -> probability), its card, the SHA-256 of its file, what
    its training features and the
    small pictures of its training images look like (None: not known), and by how much its golden
    outputs differ here.
    """

    model: keras.Model
    card: Card
    sha256: str
    novelty: FeatureGaussian | None
    upright: FeatureGaussian | None
    golden_difference: float


def with_probability(core: keras.Model, calibration: Calibration, task: str) -> keras.Model:
    """The served model: `core` (logits) followed by calibration and sigmoid or softmax, in built-in
    layers.
    """
    import keras

    x = core.output
    x = keras.layers.Rescaling(
        calibration.scale, calibration.offset, dtype="float32", name="calibration"
    )(x)
    x = keras.layers.Activation(task_named(task).activation, dtype="float32", name="probability")(x)
    return keras.Model(core.input, x, name=core.name)


def save(
    path: Path | str,
    model: keras.Model,
    card: Card,
    novelty: FeatureGaussian | None = None,
    upright: FeatureGaussian | None = None,
) -> None:
    """Write the artefact atomically; nothing is left at `path` unless it opens here and, with plain
    Keras alone, in a fresh process, with the same probabilities.

    model: functional, built-in layers, float32, output `probability`. novelty, upright: of the
        training images' features, and of their small pictures.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        plain, whole = Path(folder) / "plain.keras", Path(folder) / path.name
        model.save(plain)
        with zipfile.ZipFile(plain) as archive:
            members = {name: archive.read(name) for name in KERAS_MEMBERS}
        members[GOLDEN] = golden_vectors.golden_member(model, card.preprocess)
        known = {NOVELTY: novelty, UPRIGHT: upright}
        members |= {name: novelty_member(one) for name, one in known.items() if one is not None}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        digests[CARD] = card_sha256(card.model_dump(mode="json"))
        members[CARD] = (
            card.model_copy(update={"members": digests}).model_dump_json(indent=1).encode()
        )
        whole.write_bytes(_zip(members))
        load(whole)
        inputs, outputs = golden_vectors.read_golden(members[GOLDEN])
        golden_vectors.compare(
            golden_vectors.outputs_in_plain_keras(whole, inputs, card.preprocess), outputs
        )
        write_atomic(path, whole.read_bytes())


@dataclass(frozen=True)
class ArtefactContents:
    """What a checked model file holds besides its weights: the card, golden inputs (prepared
    integers) and outputs, and the rest.
    """

    card: Card
    inputs: np.ndarray
    outputs: np.ndarray
    novelty: FeatureGaussian | None
    upright: FeatureGaussian | None
    members: dict[str, bytes]


def read_contents(path: Path | str, *, weights_to: IO[bytes] | None = None) -> ArtefactContents:
    """Check a model file without TensorFlow and read all of it but the weights, which are copied to
    `weights_to` where one is given (opened for reading and writing). Raises ArtefactError.
    """
    members = read_members(path, weights_to=weights_to)
    try:
        inputs, outputs = golden_vectors.read_golden(members[GOLDEN])
        novelty, upright = (
            novelty_from(members[n], n) if n in members else None for n in (NOVELTY, UPRIGHT)
        )
        if upright is not None and len(upright.mean) != SIDE * SIDE:
            raise ArtefactError(f"{UPRIGHT} does not describe {SIDE} x {SIDE} pixels")
        card = card_from(members[CARD])
        spec = card.preprocess
        if (inputs.shape[1:], inputs.dtype) != (spec.prepared_shape, spec.dtype):
            raise ArtefactError(
                f"{CARD} prepares {spec.name}, and the golden inputs are not: one of them was "
                f"altered"
            )
        return ArtefactContents(card, inputs, outputs, novelty, upright, members)
    except (ArtefactError, SpecError) as error:
        raise ArtefactError(f"{Path(path).name}: {error}") from None


def load(path: Path | str) -> Artefact:
    """Check the file, open the model from the very bytes that were checked, and compare the golden
    outputs.

    Raises ArtefactError. Outputs may differ by 1e-5 (another CPU), no more.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        plain, weights = Path(folder) / "model.keras", Path(folder) / WEIGHTS
        with weights.open("w+b") as file:
            found = read_contents(path, weights_to=file)
        with zipfile.ZipFile(plain, "w") as archive:
            archive.write(weights, WEIGHTS)
            for name in KERAS_MEMBERS[:2]:
                archive.writestr(name, found.members[name])
        model = _opened(plain, path.name)
    try:
        difference = golden_vectors.compare(
            golden_vectors.outputs_of(model, found.inputs, found.card.preprocess), found.outputs
        )
    except ArtefactError as error:
        raise ArtefactError(f"{path.name}: {error}") from None
    return Artefact(model, found.card, file_sha256(path), found.novelty, found.upright, difference)


def _opened(plain: Path, name: str) -> keras.Model:
    require_tensorflow()
    import keras

    try:
        return keras.saving.load_model(plain, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        raise ArtefactError(
            f"{name}: Keras {keras.__version__} cannot open it ({type(error).__name__})"
        ) from error


def versions() -> dict[str, str]:
    """Versions of what computed the model."""
    names = ("medres", "keras", "numpy", "pydicom")
    found = {name: metadata.version(name) for name in names}
    return {
        "python": platform.python_version(),
        "tensorflow": require_tensorflow().__version__,
        **found,
    }


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def summary_hash(value: object) -> str:
    """SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()

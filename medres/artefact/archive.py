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

import contextlib
import hashlib
import io
import json
import platform
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.errors import SpecError
from data_pipelines.runtime.atomic_files import file_sha256, write_atomic
from data_pipelines.runtime.backend import require_tensorflow
from medres.artefact import first_load, golden_vectors
from medres.artefact.card import Calibration, Card, parse_card
from medres.artefact.consistency import ArtefactContents, check_contents, check_graph
from medres.artefact.feature_distance import FeatureGaussian, dump_gaussian, parse_gaussian
from medres.artefact.graph import rebuild
from medres.artefact.graph_check import checked_graph
from medres.artefact.model_file import ModelFile, private_copy
from medres.artefact.signature import verified_signer
from medres.artefact.validation import (
    CARD,
    GOLDEN,
    KERAS_MEMBERS,
    NOVELTY,
    UPRIGHT,
    card_sha256,
    checked_members,
    parse_json,
)
from medres.errors import ArtefactError
from medres.tasks import task_named

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Artefact:
    """A loaded model file.

    model: float32 images in model units (batch, *card.input_shape) -> probabilities (batch,
        *card.output_shape).
    sha256: of the file. novelty, orientation_model: distributions of the features and of the
    thumbnails of the training images, None if the file does not hold them.
    golden_difference: greatest difference between the reference outputs of the file and those that
    the model gives on this machine. signer: fingerprint of the public key whose signature of the
    file was verified, None if no signature was given.
    """

    model: keras.Model
    card: Card
    sha256: str
    novelty: FeatureGaussian | None
    orientation_model: FeatureGaussian | None
    golden_difference: float
    signer: str | None = None


def with_probability(logit_model: keras.Model, calibration: Calibration, task: str) -> keras.Model:
    """The served model: `logit_model` followed by its calibration and the sigmoid or softmax of the
    task, as built-in layers. A detector is served as it is: with raw maps.
    """
    import keras

    if task_named(task).finds_boxes:
        return logit_model
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
        distributions of the features and of the thumbnails of the training images. Without
        `novelty` the card is written without its limit of the distance, which nothing could check.
        Raises ArtefactError.
    """
    path = Path(path)
    if novelty is None:
        card = card.model_copy(update={"novelty_threshold": None})
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        plain_file, complete_file = Path(folder) / "plain.keras", Path(folder) / path.name
        model.save(plain_file)
        with zipfile.ZipFile(plain_file) as archive:
            members = {name: archive.read(name) for name in KERAS_MEMBERS}
        members[GOLDEN] = golden_vectors.golden_member(model, card)
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
        read_contents(complete_file)
        inputs, outputs = golden_vectors.read_golden(members[GOLDEN])
        golden_vectors.compare(
            golden_vectors.outputs_in_plain_keras(complete_file, inputs, card.preprocess),
            outputs,
            card,
        )
        first_load.remember(file_sha256(complete_file))
        load(complete_file)
        write_atomic(path, complete_file.read_bytes())


def read_contents(path: Path | str) -> ArtefactContents:
    """Check the model file at a path without TensorFlow, and read everything in it except the
    weights. Raises ArtefactError, with the codes of `private_copy` and `contents_of`.
    """
    with private_copy(path) as file:
        return contents_of(file)


def contents_of(file: ModelFile) -> ArtefactContents:
    """As `read_contents`, for a file that was read already.

    Raises ArtefactError, with the codes of `medres.artefact.validation.checked_members`,
    `medres.artefact.card.parse_card` and `medres.artefact.consistency.check_contents`.
    """
    members = checked_members(file)
    with _named(file.name):
        inputs, outputs = golden_vectors.read_golden(members[GOLDEN])
        novelty, orientation_model = (
            parse_gaussian(members[name], name) if name in members else None
            for name in (NOVELTY, UPRIGHT)
        )
        card = parse_card(members[CARD])
        contents = ArtefactContents(card, inputs, outputs, novelty, orientation_model, members)
        check_contents(contents)
        return contents


def load(
    path: Path | str, *, signature: Path | str | None = None, public_key: Path | str | None = None
) -> Artefact:
    """Read the file once, check it, open the model from the same bytes, and compare its outputs
    with the reference outputs in the file.

    signature, public_key: paths of a detached signature of the file and of the public key with
        which it is verified, also on the same bytes (see `medres.artefact.signature`).

    Raises ArtefactError. Probabilities may differ by at most 1e-5 (another type of processor).
    """
    with private_copy(path) as file:
        return open_file(file, signer=signer_of(file, signature, public_key))


def signer_of(
    file: ModelFile, signature: Path | str | None, public_key: Path | str | None
) -> str | None:
    """Who signed the bytes of a file; None where neither path is given. Raises ArtefactError."""
    if signature is None and public_key is None:
        return None
    return verified_signer(file, signature, public_key)


def open_file(file: ModelFile, *, signer: str | None = None) -> Artefact:
    """As `load`, for a file that was read already."""
    contents = contents_of(file)
    model = _open_with_keras(file, contents)
    with _named(file.name):
        check_graph(model, contents)
        difference = golden_vectors.compare(
            golden_vectors.outputs_of(model, contents.inputs, contents.card.preprocess),
            contents.outputs,
            contents.card,
        )
    return Artefact(
        model=model,
        card=contents.card,
        sha256=file.sha256,
        novelty=contents.novelty,
        orientation_model=contents.orientation_model,
        golden_difference=difference,
        signer=signer,
    )


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of the block name the file."""
    try:
        yield
    except (ArtefactError, SpecError) as error:
        raise ArtefactError(f"{name}: {error}", code=error.code) from None


def _open_with_keras(file: ModelFile, contents: ArtefactContents) -> keras.Model:
    """The model of a checked file. A network of medres is built from the settings on the card, and
    only its weights are read; any other graph is opened in a limited process first.
    """
    card, graph = contents.card, parse_json(contents.members["config.json"], "config.json")
    is_own = rebuild.is_own_network(card)
    with _named(file.name):
        if is_own:
            rebuild.check_settings(card, graph)
        else:
            first_load.require_pass(file, contents, checked_graph(graph))
    require_tensorflow()
    import keras

    try:
        if not is_own:
            return keras.saving.load_model(file.path, compile=False, safe_mode=True)
        with _named(file.name):
            model = rebuild.logit_model(card)
            model = with_probability(model, Calibration(**card.calibration), card.task)
            rebuild.check_equal(json.loads(model.to_json()), graph)
        model.load_weights(file.path)
        return model
    except ArtefactError:
        raise
    except Exception as error:  # whatever Keras raises, the model cannot be opened
        raise ArtefactError(
            f"{file.name}: Keras {keras.__version__} cannot open the model "
            f"({type(error).__name__})",
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

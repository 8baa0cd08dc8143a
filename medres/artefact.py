"""One `.keras` file that plain Keras opens, with what a clinic needs beside the weights inside the same zip.

metadata.json config.json model.weights.h5    as Keras writes them: built-in layers, float32, not compiled
medres.json                                   the card: classes, preprocessing, operating points, origin, SHA-256 of the others
golden.npz                                    made-up prepared integers and the probabilities that this model gives for them
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
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from data_pipelines.backend import require_tensorflow
from data_pipelines.errors import SpecError
from data_pipelines.files import write_atomic
from data_pipelines.preprocess import PreprocessSpec, to_model_units
from medres.errors import ArtefactError
from medres.preflight import CARD, GOLDEN, KERAS_MEMBERS, parse_json, read_members

if TYPE_CHECKING:
    import keras

    from medres.training.calibrate import Calibration

SERVED = "study"  # the unit that `Predictor` answers for
INTENDED_USE = "Research use only. Not a medical device; not for diagnosis or treatment of patients."
GOLDEN_TOLERANCE = 1e-5


class OperatingPoint(BaseModel):
    """A frozen threshold: `score >= threshold` is positive, at `unit`; found by `criterion` on `split` with `n_patients`.

    sha256: hash of the scores table that it was found on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: str
    name: str
    threshold: float
    criterion: str
    unit: str
    split: str
    n_patients: int
    sha256: str


class ConformalQuantile(BaseModel):
    """Split-conformal quantile of the nonconformity 1 - p(label) on served probabilities, at the unit that is served.

    finding: its name, or the class of a multi-class model. label: 0 or 1 of a finding; the class for multiclass.
    The label belongs to the prediction set where 1 - p(label) <= quantile. n_patients: those that it was found on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: str
    label: int | str
    alpha: float
    quantile: float
    n_patients: int


class Card(BaseModel):
    """Everything about a model that its weights do not say. `names`: findings, or classes for multiclass, in output order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["medres.artefact/1"] = "medres.artefact/1"
    task: Literal["binary", "multilabel", "multiclass"]
    names: list[str]
    preprocess: PreprocessSpec
    unit: Literal["image", "series", "study", "patient"]
    pooling: Literal["max", "mean"]
    calibration: dict
    operating_points: list[OperatingPoint]
    conformal: list[ConformalQuantile] = []
    training: dict
    versions: dict[str, str]
    intended_use: str = INTENDED_USE
    members: dict[str, str] = {}

    def threshold(self, finding: str, *, unit: str, name: str = "default") -> float:
        """The frozen threshold of a finding at a unit. Raises ArtefactError where none was found in training."""
        for point in self.operating_points:
            if (point.finding, point.name, point.unit) == (finding, name, unit):
                return point.threshold
        raise ArtefactError(f"the model has no operating point {name!r} for {finding!r} at unit {unit}")


@dataclass(frozen=True)
class Artefact:
    """A loaded model (image in model units -> probability), its card, and the SHA-256 of its file."""

    model: keras.Model
    card: Card
    sha256: str


def with_probability(core: keras.Model, calibration: Calibration, task: str) -> keras.Model:
    """The served model: `core` (logits) followed by calibration and sigmoid or softmax, in built-in layers."""
    import keras

    x = core.output
    x = keras.layers.Rescaling(calibration.scale, calibration.offset, dtype="float32", name="calibration")(x)
    x = keras.layers.Activation("softmax" if task == "multiclass" else "sigmoid", dtype="float32", name="probability")(
        x
    )
    return keras.Model(core.input, x, name=core.name)


def save(path: Path | str, model: keras.Model, card: Card) -> None:
    """Write the artefact atomically and open it again; nothing is left at `path` unless it verifies.

    model: functional, built-in layers, float32, output `probability`.
    """
    path = Path(path)
    inputs = golden_inputs(card.preprocess)
    golden = io.BytesIO()
    np.savez_compressed(golden, inputs=inputs, outputs=_run(model, inputs, card.preprocess))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        plain = Path(folder) / "plain.keras"
        model.save(plain)
        with zipfile.ZipFile(plain) as archive:
            members = {name: archive.read(name) for name in KERAS_MEMBERS}
        members[GOLDEN] = golden.getvalue()
        card = card.model_copy(update={"members": {name: _digest(data) for name, data in members.items()}})
        members[CARD] = card.model_dump_json(indent=1).encode()
        whole = Path(folder) / path.name
        whole.write_bytes(_zip(members))
        load(whole)
        write_atomic(path, whole.read_bytes())


def read_card(path: Path | str) -> tuple[Card, dict[str, bytes]]:
    """The card and the checked members of a model file, without TensorFlow. Raises ArtefactError."""
    members = read_members(path)
    try:
        return Card.model_validate(parse_json(members[CARD], CARD)), members
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtefactError(
            f"{Path(path).name}: {CARD} does not fit schema medres.artefact/1 at {where}: written by another version of medres?"
        ) from None
    except SpecError as error:
        raise ArtefactError(f"{Path(path).name}: {error}") from None


def load(path: Path | str) -> Artefact:
    """Check the file, open the model from the very bytes that were checked, and compare the golden outputs.

    Raises ArtefactError. Outputs may differ by 1e-5 (another CPU), no more.
    """
    card, members = read_card(path)
    require_tensorflow()
    import keras

    with tempfile.TemporaryDirectory(prefix="medres-") as folder:
        plain = Path(folder) / "model.keras"
        plain.write_bytes(_zip({name: members[name] for name in KERAS_MEMBERS}))
        try:
            model = keras.saving.load_model(plain, compile=False, safe_mode=True)
        except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
            raise ArtefactError(
                f"{Path(path).name}: Keras {keras.__version__} cannot open it ({type(error).__name__})"
            ) from error
    with np.load(io.BytesIO(members[GOLDEN]), allow_pickle=False) as golden:
        inputs, outputs = golden["inputs"], golden["outputs"]
    if not all(np.isfinite(v.numpy()).all() for v in model.variables):
        raise ArtefactError(f"{Path(path).name}: holds weights that are not finite")
    difference = np.abs(_run(model, inputs, card.preprocess) - outputs).max()
    if not difference <= GOLDEN_TOLERANCE:
        raise ArtefactError(
            f"{Path(path).name}: gives other probabilities here than where it was made (difference {difference:.1e})"
        )
    return Artefact(model, card, _digest(Path(path).read_bytes()))


def golden_inputs(spec: PreprocessSpec) -> np.ndarray:
    """Two made-up pictures as prepared integers (2, rows, cols): smooth waves, and waves with noise, over the useful range."""
    noise = np.random.default_rng(0).random((spec.rows, spec.cols))
    y, x = np.mgrid[0 : spec.rows, 0 : spec.cols] / max(spec.rows, spec.cols)
    waves = 0.5 + 0.25 * np.sin(9 * x + 3 * y) + 0.25 * np.cos(7 * y)
    unit = np.stack([waves, 0.7 * waves + 0.3 * noise])
    low, high = (-1024, 1024) if spec.kind == "ct" else (0, 65535)
    return np.rint(low + unit * (high - low)).astype(spec.dtype)


def versions() -> dict[str, str]:
    """Versions of what computed the model."""
    names = ("medres", "keras", "numpy", "pydicom")
    found = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version(), "tensorflow": require_tensorflow().__version__, **found}


def _run(model: keras.Model, prepared: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    return np.asarray(model(to_model_units(prepared, spec), training=False))


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def summary_hash(value: object) -> str:
    """SHA-256 of a JSON-able value."""
    return _digest(json.dumps(value, sort_keys=True, allow_nan=False).encode())

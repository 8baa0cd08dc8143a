"""The card of a model file (medres.json): everything about a model that its weights do not tell.
Does not load TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from data_pipelines.kinds import ColorRule
from data_pipelines.labels.task import TaskName
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.artefact.training_domain import Domain
from medres.artefact.validation import CARD, SCHEMA, parse_json
from medres.errors import ArtefactError

SERVED = "study"  # the unit for which `Predictor` gives one prediction
INTENDED_USE = (
    "Research use only. Not a medical device; not for diagnosis or treatment of patients."
)


@dataclass(frozen=True)
class Calibration:
    """Calibration of the logits: probability = activation(scale * logits + offset), per output.

    method, split, unit: how and on which data it was fitted. n, n_positive: per output, the number
    of units and of positive units.
    """

    method: str
    scale: list[float]
    offset: list[float]
    n: list[int]
    n_positive: list[int]
    unit: str = SERVED
    split: str = "tune"


class OperatingPoint(BaseModel):
    """A frozen threshold: `score >= threshold` is positive, at the unit `unit`.

    criterion, split, n_patients: how and on which data the threshold was chosen. sha256: hash of
    the scores table of those data.
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
    """Split-conformal quantile of the nonconformity score 1 - p(label), on calibrated probabilities
    of the served unit. A label belongs to the prediction set if 1 - p(label) <= quantile.

    finding: name of the finding, or the class of a multi-class model. label: 0 or 1 for a finding;
    the class for a multi-class model. n_patients: the patients on whom the quantile was computed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: str
    label: int | str
    alpha: float
    quantile: float
    n_patients: int


class Card(BaseModel):
    """Everything about a model that its weights do not tell.

    names: findings, or the classes of a multi-class model, in output order.
    windows: (center, width) in HU of the windows inside the graph, None for radiographs.
    domain: what the model was trained on. novelty_threshold: the largest distance from the training
        images, in feature space, at which an image is still accepted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["medres.artefact/1"] = "medres.artefact/1"
    task: TaskName
    names: list[str]
    preprocess: PreprocessSpec
    unit: Literal["image", "series", "study", "patient"]
    pooling: Literal["max", "mean"]
    calibration: dict
    operating_points: list[OperatingPoint]
    conformal: list[ConformalQuantile] = []
    training: dict
    input_units: Literal["HU", "display"] | None = None
    windows: list[tuple[float, float]] | None = None
    domain: Domain | None = None
    novelty_threshold: float | None = None
    versions: dict[str, str]
    intended_use: str = INTENDED_USE
    members: dict[str, str] = {}

    @property
    def color(self) -> ColorRule:
        """What becomes of an image in color, as it was for the training images."""
        return "refuse" if self.domain is None else self.domain.color

    def threshold(self, finding: str, *, unit: str, name: str = "default") -> float:
        """The frozen threshold of a finding at a unit. Raises ArtefactError (no_operating_point) if
        training froze none.
        """
        for point in self.operating_points:
            if (point.finding, point.name, point.unit) == (finding, name, unit):
                return point.threshold
        raise ArtefactError(
            f"the model has no operating point {name!r} for {finding!r} at unit {unit}",
            code="no_operating_point",
        )


def parse_card(data: bytes) -> Card:
    """The card from the bytes of its member. Raises ArtefactError (malformed_json, card_schema)."""
    try:
        return Card.model_validate(parse_json(data, CARD))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtefactError(
            f"{CARD} does not match the schema {SCHEMA} at {where}: was it written by another "
            f"version of medres?",
            code="card_schema",
        ) from None

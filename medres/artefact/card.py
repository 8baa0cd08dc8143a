"""The card of a model file, medres.json: everything about a model that its weights do not say.
Loads no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from data_pipelines.labels.task import TaskName
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.artefact.training_domain import Domain
from medres.artefact.validation import CARD, SCHEMA, parse_json
from medres.errors import ArtefactError

SERVED = "study"  # the unit that `Predictor` answers for
INTENDED_USE = (
    "Research use only. Not a medical device; not for diagnosis or treatment of patients."
)


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid or softmax of scale * logits + offset, by output.

    Where it comes from: `method`, the split, the unit, and by output the units and the positive
    units that it was found on.
    """

    method: str
    scale: list[float]
    offset: list[float]
    n: list[int]
    n_positive: list[int]
    unit: str = SERVED
    split: str = "tune"


class OperatingPoint(BaseModel):
    """A frozen threshold: `score >= threshold` is positive, at `unit`; found by `criterion` on
    `split` with `n_patients`.

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
    """Split-conformal quantile of the nonconformity 1 - p(label) on served probabilities, at the
    unit that is served.

    finding: its name, or the class of a multi-class model. label: 0 or 1 of a finding; the class
        for multiclass. The label belongs to the prediction set where 1 - p(label) <= quantile.
        n_patients: those that it was found on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: str
    label: int | str
    alpha: float
    quantile: float
    n_patients: int


class Card(BaseModel):
    """Everything about a model that its weights do not say. `names`: findings, or classes for
    multiclass, in output order.

    windows: (centre, width) in HU of the windows inside the graph, None for radiographs. domain,
        novelty_threshold: what the model was trained on, and how far an image may lie from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["medres.artefact.archive/1"] = "medres.artefact.archive/1"
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

    def threshold(self, finding: str, *, unit: str, name: str = "default") -> float:
        """The frozen threshold of a finding at a unit. Raises ArtefactError where none was found in
        training.
        """
        for point in self.operating_points:
            if (point.finding, point.name, point.unit) == (finding, name, unit):
                return point.threshold
        raise ArtefactError(
            f"the model has no operating point {name!r} for {finding!r} at unit {unit}"
        )


def card_from(data: bytes) -> Card:
    """The card of the member's bytes. Raises ArtefactError."""
    try:
        return Card.model_validate(parse_json(data, CARD))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtefactError(
            f"{CARD} does not fit schema {SCHEMA} at {where}: written by another version of medres?"
        ) from None

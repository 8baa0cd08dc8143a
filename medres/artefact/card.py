"""The card of a model file (medres.json): everything about a model that its weights do not tell.
Does not load TensorFlow.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from data_pipelines.kinds import ColorRule, ModelUnitName
from data_pipelines.labels.task import TaskName
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.plain_text import escaped
from medres.artefact.boxes import BOX, DetectionFields
from medres.artefact.card_fields import (
    MAX_NAMES,
    Alpha,
    CalibrationFields,
    Count,
    Distance,
    Hounsfield,
    Name,
    Probability,
    Sha256,
    Text,
    Threshold,
    TrainingFields,
    WindowWidth,
    require_bounded,
    require_names,
)
from medres.artefact.masks import SegmentationFields
from medres.artefact.training_domain import Domain
from medres.artefact.validation import CARD, SCHEMA, parse_json
from medres.detection import DecodingSettings
from medres.errors import ArtefactError, ModelError
from medres.tasks import task_named

if TYPE_CHECKING:
    import numpy as np

MAX_POSITIONS = 1 << 20
SERVED = "study"  # the unit for which `Predictor` gives one prediction
INTENDED_USE = (
    "Research use only. Not a medical device; not for diagnosis or treatment of patients."
)
_STATED = f'{INTENDED_USE} The author of this model states, unchecked by medres: "'
_QUOTES = re.compile(r'["\u201c-\u201f\u00ab\u00bb]')


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


def intended_use_text(text: str) -> str:
    """The fixed text of medres, followed by what the author of a model states, in quotes and
    marked as such. Nothing that an author writes stands alone, or outside of the quotes.

    >>> intended_use_text("For triage.").removeprefix(INTENDED_USE)
    ' The author of this model states, unchecked by medres: "For triage."'
    """
    if text == INTENDED_USE:
        return text
    stated = text.removeprefix(_STATED).removesuffix('"') if text.startswith(_STATED) else text
    return f'{_STATED}{_QUOTES.sub(chr(39), stated)}"'


class OperatingPoint(BaseModel):
    """A frozen threshold: `score >= threshold` is positive, at the unit `unit`.

    criterion, split, n_patients: how and on which data the threshold was chosen. sha256: hash of
    the scores table of those data. n_class_patients: the patients of the class that fixes it
    (`class_patients`), None in the card of an older model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: Name
    name: Name
    threshold: Threshold
    criterion: Text
    unit: Name
    split: Name
    n_patients: Count
    sha256: Sha256
    n_class_patients: Count | None = None


class ConformalQuantile(BaseModel):
    """Split-conformal quantile of the nonconformity score 1 - p(label), on calibrated probabilities
    of the served unit. A label belongs to the prediction set if 1 - p(label) <= quantile.

    finding: name of the finding, or the class of a multi-class model. label: 0 or 1 for a finding;
    the class for a multi-class model. n_patients: the patients on whom the quantile was computed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: Name
    label: int | Name
    alpha: Alpha
    quantile: Probability
    n_patients: Count


class Card(BaseModel):
    """Everything about a model that its weights do not tell.

    names: findings, or the classes of a multi-class model, in output order.
    windows: (center, width) in HU of the windows inside the graph, None for radiographs.
    domain: what the model was trained on. novelty_threshold: the largest distance from the training
        images, in feature space, at which an image is still accepted.
    segmentation: of a segmenter, whose first name is the background; None for other tasks.
    detection: of a detector, whose operating points are thresholds of boxes; None for other tasks.
    intended_use: a fixed text of medres, followed by a quoted statement of the author, if any.

    A field that this version does not know is an error: it could state a condition of use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["medres.artefact/1"] = "medres.artefact/1"
    task: TaskName
    names: Annotated[list[Name], Field(min_length=1, max_length=MAX_NAMES)]
    preprocess: PreprocessSpec
    unit: Literal["image", "series", "study", "patient"]
    pooling: Literal["max", "mean"]
    calibration: CalibrationFields
    operating_points: list[OperatingPoint]
    conformal: list[ConformalQuantile] = []
    training: TrainingFields
    input_units: ModelUnitName | None = None
    windows: Annotated[list[tuple[Hounsfield, WindowWidth]], Field(max_length=64)] | None = None
    domain: Domain | None = None
    novelty_threshold: Distance | None = None
    versions: Annotated[dict[Name, Name], Field(max_length=64)]
    intended_use: Annotated[Text, AfterValidator(intended_use_text)] = INTENDED_USE
    segmentation: SegmentationFields | None = None
    detection: DetectionFields | None = None
    members: dict[Name, Sha256] = {}

    @model_validator(mode="after")
    def _check_fields_agree(self) -> Card:
        require_names(self.names, self.task)
        self._check_kind()
        self._check_segmentation()
        self._check_detection()
        for key in ("scale", "offset", "n", "n_positive"):
            if len(self.calibration.get(key, self.names)) != len(self.names):
                raise ValueError(f"calibration.{key} does not have one value per name")
        _require_distinct(
            "operating points", [(p.finding, p.name, p.unit) for p in self.operating_points]
        )
        _require_distinct("quantiles", [(q.finding, q.label, q.alpha) for q in self.conformal])
        points, quantiles = self.operating_points, self.conformal
        if not {p.finding for p in points} | {q.finding for q in quantiles} <= {*self.names}:
            raise ValueError("an operating point or a quantile is of a finding without a name")
        exclusive = task_named(self.task).exclusive
        if any(q.label not in ((q.finding,) if exclusive else (0, 1)) for q in self.conformal):
            raise ValueError("the label of a quantile is not a label of its finding")
        return self

    def _check_kind(self) -> None:
        kind = self.preprocess.image_kind
        if self.windows is not None and not kind.has_windows:
            raise ValueError(f"a model of {kind.name} images has no windows")
        if self.input_units not in (None, kind.units.name):
            raise ValueError(f"input_units are not those of {kind.name} images")

    def _check_segmentation(self) -> None:
        if task_named(self.task).is_dense != (self.segmentation is not None):
            raise ValueError("segmentation is stated for segmenters, and for them alone")
        if self.segmentation is None:
            return
        self.segmentation.check_names(self.names)
        shape = self.preprocess.mask_shape
        sides = self.segmentation.patch or shape
        if len(sides) != len(shape) or any(
            side > whole for side, whole in zip(sides, shape, strict=True)
        ):
            raise ValueError("segmentation.patch does not fit into the prepared images")
        self.segmentation.check_flips(len(shape))

    def _check_detection(self) -> None:
        if task_named(self.task).finds_boxes != (self.detection is not None):
            raise ValueError("detection is stated for detectors, and for them alone")
        if self.detection is None:
            return
        if self.preprocess.layout == "volume":
            raise ValueError("a detector has no volumes")
        try:
            decoding = self.decoding
        except ModelError as error:
            raise ValueError(f"detection: {error}") from None
        if decoding.n_positions > MAX_POSITIONS:
            raise ValueError("detection.strides give too many positions")
        if {point.finding for point in self.operating_points if point.unit == BOX} != {*self.names}:
            raise ValueError("a class of a detector has no threshold of its boxes")

    @property
    def decoding(self) -> DecodingSettings:
        """Of a detector: how its raw maps become boxes. Raises ArtefactError (no_detector)."""
        if self.detection is None:
            raise ArtefactError("the model is no detector and has no boxes", code="no_detector")
        return self.detection.settings(self.preprocess.mask_shape)

    @property
    def box_thresholds(self) -> dict[str, float]:
        """Of a detector: class -> the score from which a box is positive."""
        return {name: self.threshold(name, unit=BOX) for name in self.names}

    @property
    def sides(self) -> tuple[int, ...]:
        """Of a segmenter: the sizes of what the network sees, without channels."""
        patch = None if self.segmentation is None else self.segmentation.patch
        return self.preprocess.mask_shape if patch is None else tuple(patch)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an input of the network, with its channels."""
        shape = self.preprocess.shape
        return shape if self.segmentation is None else (*self.sides, shape[-1])

    def first_patch(self, images: np.ndarray) -> np.ndarray:
        """Images (n, *spec.shape), of a network that sees patches their part from the first pixel
        on: (n, *input_shape).
        """
        return images[(slice(None), *map(slice, self.input_shape))]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of an output of the network: one value per name, for each pixel of a
        segmenter; of a detector raw maps.
        """
        if self.detection is not None:
            return (self.decoding.n_positions, 2 * self.decoding.rank + 1 + len(self.names))
        return (len(self.names),) if self.segmentation is None else (*self.sides, len(self.names))

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
        value = parse_json(data, CARD)
        require_bounded(value)
        return Card.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"at {escaped(where)[:60] or 'the top'} ({first['msg'][:120]})"
    except ValueError as error:
        reason = f"({error})"
    raise ArtefactError(
        f"{CARD} does not match the schema {SCHEMA} {reason}: was it altered, or written by "
        f"another version of medres?",
        code="card_schema",
    )


def _require_distinct(what: str, keys: list[tuple]) -> None:
    if len({*keys}) != len(keys):
        raise ValueError(f"two {what} are for the same decision")

"""A result: the prediction for one study, the model that made it, and the images it is about."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydicom.dataset import Dataset

from medres.errors import ResultError
from medres.results.identity import Content, content_of, result_key, result_uid
from medres.results.source_study import SourceStudy, source_study

if TYPE_CHECKING:
    from medres.artefact.card import Card

RESEARCH_USE = "RESEARCH USE ONLY"
NOTICE = (
    "RESEARCH USE ONLY. Not a medical device; not for diagnosis or treatment of patients. "
    "Computed by a model and verified by nobody."
)
MAX_LINES = 12  # of findings in an overlay
CLASS = "class"  # the key of the decision and of the set of a model of exclusive classes


class PredictionLike(Protocol):
    """What is read of a prediction; `medres.Prediction` has it."""

    @property
    def probabilities(self) -> Mapping[str, float]: ...
    @property
    def thresholds(self) -> Mapping[str, float]: ...
    @property
    def decisions(self) -> Mapping[str, bool | str]: ...
    @property
    def sets(self) -> Mapping[str, Sequence[int] | Sequence[str]]: ...
    @property
    def conformal(self) -> Mapping[str, Any] | None: ...
    @property
    def refused(self) -> str | None: ...
    @property
    def code(self) -> str | None: ...
    @property
    def novelty(self) -> float | None: ...
    @property
    def images(self) -> Sequence[Mapping[str, float]]: ...
    @property
    def slices(self) -> Sequence[Sequence[tuple[str, int]]]: ...
    @property
    def masks(self) -> Sequence[MaskLike]: ...


class MaskLike(Protocol):
    """What is read of a predicted label map; `StudyMask` has it. volumes: class -> `ml`, with
    `ml_low`, `ml_high` and `alpha` where there is an interval; of one image `mm2`; {} without a
    spacing. counts: class -> voxels. slices: (SOP Instance UID, frame from 0 on) of each slice.
    """

    @property
    def volumes(self) -> Mapping[str, Mapping[str, float | None]]: ...
    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def slices(self) -> Sequence[tuple[str, int]]: ...


class BoxLike(Protocol):
    """A box in one image. Coordinates are edges in pixels of the original image: 0 is the outer
    edge of the first pixel. frame: from 0 on.
    """

    @property
    def label(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def x_min(self) -> float: ...
    @property
    def y_min(self) -> float: ...
    @property
    def x_max(self) -> float: ...
    @property
    def y_max(self) -> float: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def frame(self) -> int: ...


@dataclass(frozen=True)
class ModelIdentity:
    """The model of a result. sha256: of the model file; preprocessing_sha256: of the settings by
    which images are prepared (`Card.preprocess.sha256`); both 64 hexadecimal digits.
    """

    name: str
    version: str
    sha256: str
    preprocessing_sha256: str

    def __post_init__(self) -> None:
        """Raises ResultError (bad_model): DICOM has no empty name, version or serial number."""
        hashes = (self.sha256, self.preprocessing_sha256)
        if not (self.name.strip() and self.version.strip()) or not all(
            re.fullmatch("[0-9a-f]{64}", value) for value in hashes
        ):
            raise ResultError(
                "the model of a result needs a name, a version and two SHA-256 of 64 hexadecimal "
                "digits",
                code="bad_model",
            )


def model_identity(card: Card, sha256: str, *, name: str = "classifier") -> ModelIdentity:
    """The identity of a loaded model. card, sha256: of the model file (`predictor.card`,
    `prediction.model_sha256`). The version is the beginning of its SHA-256.
    """
    return ModelIdentity(name, sha256[:12], sha256, card.preprocess.sha256)


@dataclass(frozen=True, eq=False)
class Result:
    """One prediction with everything that its objects state.

    key: see `result_key`. created: when the result was made; the same result with the same time
        gives the same bytes. boxes: of a detector. notes: further sentences for people, such as
        that the model is unsigned. predecessor: the key of the result that this one replaces,
        since the study has grown; '' for the first.
    """

    key: str
    prediction: PredictionLike
    model: ModelIdentity
    sources: SourceStudy = field(repr=False)
    created: dt.datetime
    boxes: tuple[BoxLike, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    predecessor: str = ""

    def uid(self, role: str) -> str:
        """The UID of a part of this result; see `result_uid`."""
        return result_uid(self.key, role)


def results_of(
    prediction: PredictionLike,
    datasets: Sequence[Dataset],
    model: ModelIdentity,
    *,
    contents: Iterable[Content] | None = None,
    key: str | None = None,
    created: dt.datetime | None = None,
    boxes: Sequence[BoxLike] = (),
    notes: Sequence[str] = (),
    predecessor: str = "",
) -> Result:
    """The result of a prediction for the images of one study.

    datasets: the images; their pixels are not needed where `contents` is given, which is
        `content_of` each file. None encodes the data sets again, which then must be complete.
    key: of the result, where it is known; None is the `result_key` of the contents.
    created: None is now. The other arguments: see `Result`.

    Raises ResultError as `source_study` does.
    """
    sources = source_study(datasets)
    if key is None:
        contents = map(content_of, datasets) if contents is None else contents
        key = result_key(model.sha256, model.preprocessing_sha256, contents)
    return Result(
        key,
        prediction,
        model,
        sources,
        created or dt.datetime.now().astimezone(),
        tuple(boxes),
        tuple(notes),
        predecessor,
    )


def decision_text(prediction: PredictionLike, name: str) -> str:
    """The decision for one finding in words, with `(uncertain)` or `(atypical)`; '' without a
    decision.
    """
    decision = prediction.decisions.get(name)
    if decision is None:
        return ""
    words = decision if isinstance(decision, str) else "positive" if decision else "negative"
    labels = prediction.sets.get(name)
    if labels is None or len(labels) == 1:
        return words
    return f"{words} ({'uncertain' if labels else 'atypical'})"


def summary_lines(result: Result) -> list[str]:
    """What an overlay says: one line per finding, the most probable ones where there are many."""
    prediction = result.prediction
    if prediction.refused is not None:
        return [f"REFUSED: {prediction.code or 'refused'}"]
    lines = []
    ranked = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])
    for name, probability in ranked[:MAX_LINES]:
        threshold = prediction.thresholds.get(name)
        limit = "" if threshold is None else f", threshold {threshold:.3f}"
        decision = decision_text(prediction, name)
        lines.append(f"{name}: p = {probability:.3f}{limit}{': ' if decision else ''}{decision}")
    if len(ranked) > MAX_LINES:
        lines.append(f"and {len(ranked) - MAX_LINES} less probable ones")
    if CLASS in prediction.decisions:
        lines.append(f"class: {decision_text(prediction, CLASS)}")
    for mask in prediction.masks[:1] if len(prediction.masks) == 1 else ():
        lines += [size_text(mask, name) for name in list(mask.counts)[:MAX_LINES]]
    return lines


def size_text(mask: MaskLike, name: str) -> str:
    """How large a class is: "tumor: 12.30 ml (9.80 to 14.80)", in mm2 of one image, or in voxels
    without a spacing.
    """
    size = mask.volumes.get(name, {})
    if "mm2" in size:
        return f"{name}: {size['mm2']:.1f} mm2"
    if "ml" not in size:
        return f"{name}: {mask.counts[name]} voxels"
    interval = f" ({size['ml_low']:.2f} to {size['ml_high']:.2f})" if "ml_low" in size else ""
    return f"{name}: {size['ml']:.2f} ml{interval}"

"""What the card of a detector says beside that of a classifier: how its raw maps become boxes. Does
not load TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from medres.detection import DecodingSettings, Detections, decode
from medres.detection.settings import positions

BOX = "box"  # the unit of a detector's thresholds
_Stride = Annotated[int, Field(ge=1, le=1024)]
_Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
_Number = Annotated[int, Field(ge=1, le=100_000)]
BOX_COLUMNS = 7  # image, x_min, y_min, x_max, y_max, score, class


class DetectionFields(BaseModel):
    """The part `detection` of a card; see `DecodingSettings`. The input size is that of the
    preprocessing, and the thresholds of the classes are the operating points.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strides: Annotated[list[_Stride], Field(min_length=1, max_length=8)]
    score_threshold: _Share
    nms_iou: _Share
    candidates: _Number
    most: _Number

    @classmethod
    def of(cls, settings: DecodingSettings) -> Self:
        """The fields of the settings of a run."""
        return cls(
            strides=list(settings.strides),
            score_threshold=settings.score_threshold,
            nms_iou=settings.nms_iou,
            candidates=settings.candidates,
            most=settings.most,
        )

    def settings(self, input_size: Sequence[int]) -> DecodingSettings:
        """What `medres.decode` needs. Raises ModelError."""
        return DecodingSettings(tuple(input_size), **self.model_dump())


def boxes_of_outputs(raw: np.ndarray, settings: DecodingSettings) -> np.ndarray:
    """The boxes of several images in one table, float32 (boxes, 7): the number of the image, x_min,
    y_min, x_max, y_max, score and class.
    """
    tables = [_table(number, found) for number, found in enumerate(decode(raw, settings))]
    return np.concatenate(tables) if tables else np.zeros((0, BOX_COLUMNS), np.float32)


def comparable(raw: np.ndarray, settings: DecodingSettings) -> np.ndarray:
    """Raw maps in numbers that can be compared by one limit: log(1 + distance in strides), and the
    probabilities of the logits.
    """
    sides = 2 * settings.rank
    counts = [len(level) for level in positions(settings.input_size, settings.strides)]
    stride = np.repeat(np.array(settings.strides, np.float64), counts)[:, None]
    values = raw.astype(np.float64)
    distances = np.log1p(np.maximum(values[..., :sides], 0.0) / stride)
    logits = 0.5 * (1.0 + np.tanh(0.5 * values[..., sides:]))
    return np.concatenate([distances, logits], axis=-1)


def _table(number: int, found: Detections) -> np.ndarray:
    image = np.full(len(found), number)
    return np.column_stack([image, found.corners, found.scores, found.labels]).astype(np.float32)

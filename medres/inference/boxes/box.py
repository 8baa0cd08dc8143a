"""`Box`: an object that a detector has found, in the pixels of the original image. Loads no
TensorFlow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Box:
    """An object in one image.

    x_min, y_min, x_max, y_max: half-open edges in pixels of the original image; x along the
        columns, 0, 0 is the outer corner of the first pixel. label: its class. score: 0 to 1.
    sop_instance_uid, frame: of the image; frame counts from 0. '' where there is no DICOM file.
    is_positive: whether the score reaches the frozen threshold of the class.
    spacing_mm: distance between rows and between columns, None where the header does not give it.
    at_detector: whether that is the spacing at the detector of a radiograph, so that the object
        itself is smaller.
    """

    label: str
    score: float
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    sop_instance_uid: str = field(default="", repr=False)
    frame: int = 0
    is_positive: bool = True
    spacing_mm: tuple[float, float] | None = None
    at_detector: bool = False

    @property
    def size_mm(self) -> tuple[float, float] | None:
        """Width and height in mm; None without a spacing."""
        if self.spacing_mm is None:
            return None
        rows, columns = self.spacing_mm
        return (self.x_max - self.x_min) * columns, (self.y_max - self.y_min) * rows

    def scaled(self, factor: float) -> Box:
        """The same box in an image that is enlarged by a factor."""
        return replace(
            self,
            x_min=factor * self.x_min,
            y_min=factor * self.y_min,
            x_max=factor * self.x_max,
            y_max=factor * self.y_max,
        )

    def as_dict(self) -> dict[str, Any]:
        """What JSON has of it: all fields, and size_mm (width, height)."""
        size = self.size_mm
        return asdict(self) | {"size_mm": None if size is None else list(size)}


@dataclass(frozen=True, eq=False)
class BoxPreview:
    """A prepared image, and its boxes in its own pixels, for pictures. shape: (rows, columns) of
    the original image.
    """

    image: np.ndarray
    boxes: tuple[Box, ...]
    shape: tuple[int, int]
    sop_instance_uid: str = ""
    frame: int = 0

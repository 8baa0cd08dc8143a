"""The boxes of one image, as edges: half-open, in pixels of the original image.

x grows along the columns and y along the rows; 0, 0 is the outer corner of the first pixel. A box
around the pixels of columns 3 to 5 has x_min 3 and x_max 6. Every reader converts once, by the
functions below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Edges = tuple[float, float, float, float]
BoxState = Literal["annotated", "not_annotated", "rejected"]


@dataclass(frozen=True, eq=False)
class EdgeBoxes:
    """What was annotated in one image.

    edges: float64 (boxes, 4): x_min, y_min, x_max, y_max, half-open, in pixels of the image.
    labels: int32 (boxes,), positions in `classes`. size: (rows, columns) of the image.
    scores: float64 (boxes,), NaN where there is none. readers: '' where there is none.
    ignore: bool (boxes,), regions such as a crowd: neither an object nor background.
    state: "annotated" also where nothing was found (no box): a real negative. "not_annotated":
        nobody looked. "rejected": there are boxes that cannot be used. Only an annotated image may
        be trained on.

    >>> boxes = EdgeBoxes.of([(3, 2, 6, 4)], [0], ("cyst",), (10, 20))
    >>> boxes.areas.tolist(), boxes.corners_by_axis.tolist()
    ([6.0], [[2.0, 3.0, 4.0, 6.0]])
    """

    edges: NDArray[np.float64]
    labels: NDArray[np.int32]
    classes: tuple[str, ...]
    size: tuple[int, int]
    scores: NDArray[np.float64]
    ignore: NDArray[np.bool_]
    readers: tuple[str, ...] = ()
    image: str = ""
    state: BoxState = "annotated"
    flags: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls,
        edges: Sequence[Sequence[float]] | NDArray,
        labels: Sequence[int] | NDArray,
        classes: Sequence[str],
        size: tuple[int, int],
        **fields: object,
    ) -> EdgeBoxes:
        """Boxes without scores and ignore regions, unless `fields` has them."""
        count = len(labels)
        values = {
            "edges": np.asarray(edges, np.float64).reshape(count, 4),
            "labels": np.asarray(labels, np.int32).reshape(count),
            "classes": tuple(classes),
            "size": size,
            "scores": np.full(count, np.nan),
            "ignore": np.zeros(count, np.bool_),
            "readers": ("",) * count,
        }
        return cls(**{**values, **fields})  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.edges)

    @property
    def annotated(self) -> bool:
        """Whether somebody looked, so that what is in no box is known to be background."""
        return self.state == "annotated"

    @property
    def areas(self) -> NDArray[np.float64]:
        """(boxes,), in square pixels."""
        sides = self.edges[:, 2:] - self.edges[:, :2]
        return np.asarray(sides[:, 0] * sides[:, 1])

    @property
    def corners_by_axis(self) -> NDArray[np.float64]:
        """(boxes, 4): y_min, x_min, y_max, x_max, the order of `augment.move_edge_boxes`."""
        return self.edges[:, [1, 0, 3, 2]]

    def changed(self, **fields: object) -> EdgeBoxes:
        """A copy with other fields."""
        return EdgeBoxes(**{**vars(self), **fields})

    def only(self, kept: NDArray[np.bool_]) -> EdgeBoxes:
        """The boxes where `kept` is true."""
        readers = tuple(r for r, keep in zip(self.readers, kept, strict=True) if keep)
        rows = {n: getattr(self, n)[kept] for n in ("edges", "labels", "scores", "ignore")}
        return self.changed(**rows, readers=readers)


def edges_from_xywh(x: float, y: float, width: float, height: float) -> Edges:
    """COCO and tables: the outer corner of the first pixel, and the size.

    >>> edges_from_xywh(3, 2, 3, 2)
    (3, 2, 6, 4)
    """
    return x, y, x + width, y + height


def edges_from_inclusive(x_min: float, y_min: float, x_max: float, y_max: float) -> Edges:
    """Pascal VOC: the numbers of the first and the last pixel, counted from 1.

    >>> edges_from_inclusive(4, 3, 6, 4)
    (3, 2, 6, 4)
    """
    return x_min - 1, y_min - 1, x_max, y_max


def edges_from_center(x: float, y: float, width: float, height: float) -> Edges:
    """YOLO: the center and the size, in shares of the image; so is the result.

    >>> edges_from_center(0.5, 0.5, 0.5, 0.25)
    (0.25, 0.375, 0.75, 0.625)
    """
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def edges_from_points(points: Sequence[Sequence[float]]) -> Edges:
    """The box around points (x, y) that are edge coordinates, as those of DICOM SCOORD are: 0, 0 is
    the outer corner of the first pixel (PS3.3 C.18.6).

    >>> edges_from_points([(3, 2), (6, 4), (4, 3)])
    (3.0, 2.0, 6.0, 4.0)
    """
    values = np.asarray(points, np.float64).reshape(-1, 2)
    (x_min, y_min), (x_max, y_max) = values.min(axis=0).tolist(), values.max(axis=0).tolist()
    return x_min, y_min, x_max, y_max

"""Boxes from PNG masks: of every label (instance masks), or of every connected component of each
label (label maps of classes). An image that has a mask was assessed, also where it is empty.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from data_pipelines.annotations.boxes.edge_boxes import Edges
from data_pipelines.annotations.boxes.readers.raw_boxes import NAME, ListedImage, RawBox
from data_pipelines.annotations.raster_mask import raster_labels

#: "labels": every label is one object. "components": every label is a class, and each of its
#: 8-connected components is an object.
MaskObjects = Literal["labels", "components"]
#: the class of instances, unless box_classes names another one
OBJECT = "object"
_EIGHT = np.ones((3, 3), np.int8)


def read_mask_boxes(data: bytes, name: str, objects: MaskObjects) -> list[ListedImage]:
    """The image of a PNG mask, with a box per object; its classes are the labels as text.

    Raises as `read_raster_mask`.
    """
    labels = raster_labels(data)
    boxes = tuple(
        RawBox(f"{name} label {number}", class_name, edges)
        for number, class_name, edges in _objects(labels, objects)
    )
    stem = str(PurePosixPath(name).with_suffix(""))
    size = (labels.shape[0], labels.shape[1])
    return [ListedImage(name, NAME, (stem,), boxes, size=size)]


def boxes_of_labels(labels: NDArray) -> list[tuple[int, Edges]]:
    """The label and the edges of every label above 0, in ascending order.

    >>> boxes_of_labels(np.array([[0, 2, 2], [0, 2, 0]]))
    [(2, (1.0, 0.0, 3.0, 2.0))]
    """
    return [
        (number, _edges(slices))
        for number, slices in enumerate(find_objects(labels), start=1)
        if slices is not None
    ]


def boxes_of_components(mask: NDArray) -> list[Edges]:
    """The edges of every 8-connected component of a mask (rows, columns)."""
    components, _ = label(mask, structure=_EIGHT)
    return [edges for _, edges in boxes_of_labels(components)]


def _objects(labels: NDArray, objects: MaskObjects) -> list[tuple[int, str, Edges]]:
    if objects == "labels":
        return [(number, str(number), edges) for number, edges in boxes_of_labels(labels)]
    return [
        (int(number), str(number), edges)
        for number in np.unique(labels[labels > 0])
        for edges in boxes_of_components(labels == number)
    ]


def _edges(slices: tuple[slice, ...]) -> Edges:
    rows, columns = slices
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)

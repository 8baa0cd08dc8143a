"""Boxes from the pixels of their image to those of a preset, in step with the image, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipelines.annotations.boxes.edge_boxes import EdgeBoxes
from data_pipelines.annotations.preparation import plane_axes
from data_pipelines.errors import AnnotationError, SpecError
from data_pipelines.preprocessing.resize import AxisResize
from data_pipelines.preprocessing.spec import PreprocessSpec


def prepare_boxes(
    boxes: EdgeBoxes, spec: PreprocessSpec, *, aspect: float = 1.0, min_visible: float = 0.0
) -> EdgeBoxes:
    """The boxes of a prepared image: edges in the pixels of (spec.rows, spec.cols).

    aspect: of the image, as `Image.aspect`. min_visible: a box stays where more than this share of
    its area (0..1) is inside of the prepared image; what is outside is cut off.

    Raises AnnotationError (not_annotated) unless the boxes are annotated, and SpecError
    (volume_boxes) for a preset of volumes.
    """
    if not boxes.annotated:
        raise AnnotationError(
            f"The image is {boxes.state.replace('_', ' ')}: where it has no box, nothing is known.",
            code="not_annotated",
        )
    require_planes(spec)
    scale, shift = _map(plane_axes(boxes.size, aspect, spec))
    moved = boxes.changed(edges=boxes.edges * scale + shift)
    limits = np.array([spec.cols, spec.rows] * 2, np.float64)
    clipped = moved.changed(edges=np.clip(moved.edges, 0.0, limits), size=(spec.rows, spec.cols))
    return clipped.only(clipped.areas > min_visible * moved.areas)


def boxes_to_original(
    edges: NDArray, size: tuple[int, int], spec: PreprocessSpec, *, aspect: float = 1.0
) -> NDArray[np.float64]:
    """Edges (boxes, 4) in the prepared image as edges in the original one, clipped to it. size:
    (rows, columns) of the original image.
    """
    require_planes(spec)
    return restored_edges(edges, plane_axes(size, aspect, spec))


def restored_edges(edges: NDArray, axes: Sequence[AxisResize]) -> NDArray[np.float64]:
    """Edges (boxes, 4) in the prepared image as edges in the original one, clipped to it. axes: how
    its rows and its columns were resized.
    """
    scale, shift = _map(axes)
    limits = np.array([axes[1].size, axes[0].size] * 2, np.float64)
    return np.clip((np.asarray(edges, np.float64) - shift) / scale, 0.0, limits)


def require_planes(spec: PreprocessSpec) -> None:
    """Raise SpecError (volume_boxes) for a preset of volumes."""
    if spec.layout == "volume":
        raise SpecError("Detection is 2D: choose a preset of images.", code="volume_boxes")


def _map(axes: Sequence[AxisResize]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What x_min, y_min, x_max and y_max are multiplied by, and what is then added."""
    rows, columns = axes
    axes = (columns, rows)
    scale = [axis.inner / axis.size for axis in axes]
    shift = [-((axis.inner - axis.out) // 2) for axis in axes]
    return np.array(scale * 2), np.array(shift * 2, np.float64)

"""A label map from the grid of its image to that of a preset, in step with the image itself.

The image is resized and padded by `AxisResize`; its label map goes through the same axes. An axis
that becomes finer takes the nearest voxel; one that becomes coarser takes the share that a label
has of each new voxel, and a label is kept from one half on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipelines.annotations.label_map import LabelMap, Layers
from data_pipelines.errors import AnnotationError
from data_pipelines.preprocessing.original_grid import volume_axes
from data_pipelines.preprocessing.resize import AxisResize, fit_within, stretch
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.volumes.resampling import Affine, to_regular_grid
from data_pipelines.volumes.series import Group
from data_pipelines.volumes.volume import grid_of

_TOLERANCE = 1e-9


def prepare_label_map(
    label_map: LabelMap,
    spec: PreprocessSpec,
    *,
    aspect: float = 1.0,
    group: Group | None = None,
    order: str | None = None,
) -> Layers:
    """The labels of a prepared sample: uint8 (spec.rows, spec.cols) of an image or of the middle
    slice of a stack, (slices, rows, cols) of a volume.

    label_map: of the slices of the sample, in their order. aspect: of the image, as `Image.aspect`;
    for images and stacks. group: the slices of a volume, if they have gaps or a tilt. order: see
    `LabelMap.single`. Outside the image is background.

    Raises AnnotationError: not_annotated unless the label map is annotated, overlapping_classes,
    no_position for a volume without an affine and without a group.
    """
    if not label_map.annotated:
        raise AnnotationError(
            f"The sample is {label_map.state.replace('_', ' ')}: its background is not known.",
            code="not_annotated",
        )
    labels = label_map.resolved(order).layers[0]
    if spec.layout != "volume":
        flat = plane_axes(labels.shape[1:], aspect, spec)
        return resize_labels(labels[len(labels) // 2], flat)
    labels, affine = _regular(labels, label_map.affine, group, spec)
    return resize_labels(labels, volume_axes(labels.shape, affine, spec))


def resize_labels(labels: Layers, axes: Sequence[AxisResize]) -> Layers:
    """Labels with one AxisResize for each of their axes. Of two labels with equal shares, the
    smaller one is kept.
    """
    if all(axis.inner >= axis.size for axis in axes):  # the nearest voxel on every axis
        for number, axis in enumerate(axes):
            labels = np.moveaxis(_padded(np.moveaxis(labels, number, 0), axis, _nearest), 0, number)
        return np.ascontiguousarray(labels)
    size = tuple(axis.out for axis in axes)
    best, result = np.full(size, 0.5 - _TOLERANCE), np.zeros(size, np.uint8)
    for label in np.unique(labels):
        if label:
            share = (labels == label).astype(np.float64)
            for number, axis in enumerate(axes):
                moved = np.moveaxis(share, number, 0)
                share = np.moveaxis(_padded(moved, axis, _shares), 0, number)
            wins = share > best + _TOLERANCE * (result > 0)
            best[wins], result[wins] = share[wins], label
    return result


def _padded(values: NDArray, axis: AxisResize, resize: object) -> NDArray:
    """Resized to `axis.inner` samples, then padded or cropped about the middle, as AxisResize."""
    resized = values if axis.size == axis.inner else resize(values, axis)  # type: ignore[operator]
    offset = (axis.inner - axis.out) // 2
    if axis.inner >= axis.out:
        return resized[offset : offset + axis.out]
    grid = np.zeros((axis.out, *values.shape[1:]), values.dtype)
    grid[-offset : -offset + axis.inner] = resized
    return grid


def _nearest(values: NDArray, axis: AxisResize) -> NDArray:
    centers = (np.arange(axis.inner) + 0.5) * axis.size / axis.inner
    return values[np.minimum(np.floor(centers + _TOLERANCE).astype(np.intp), axis.size - 1)]


def _shares(values: NDArray, axis: AxisResize) -> NDArray:
    """The mean over each new sample where it is coarser, else the nearest sample."""
    if axis.inner > axis.size:
        return _nearest(values, axis)
    edges = np.arange(axis.inner + 1) * axis.size / axis.inner
    total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    whole = np.minimum(np.floor(edges + _TOLERANCE).astype(np.intp), axis.size)
    rest = np.clip(edges - whole, 0, 1).reshape(-1, *[1] * (values.ndim - 1))
    following = values[np.minimum(whole, axis.size - 1)]
    return np.diff(total[whole] + rest * following, axis=0) * axis.inner / axis.size


def plane_axes(sizes: Sequence[int], aspect: float, spec: PreprocessSpec) -> list[AxisResize]:
    output_sizes = (spec.rows, spec.cols)
    if spec.fit == "stretch":
        return stretch(sizes, output_sizes)
    return fit_within(sizes, (aspect, 1.0), output_sizes)


def _regular(
    labels: Layers, affine: Affine | None, group: Group | None, spec: PreprocessSpec
) -> tuple[Layers, Affine]:
    """The labels on the regular grid that the image is put on, where it is (gaps, a tilt)."""
    if group is not None and spec.policy == "resample" and group.verdict != "REGULAR":
        return _regular_grid(labels, group, spec)
    if affine is None and group is not None:
        affine = group.affine
    if affine is None:
        raise AnnotationError(
            "The slices have no constant step: give the group of slices.", code="no_position"
        )
    return labels, affine


def _regular_grid(labels: Layers, group: Group, spec: PreprocessSpec) -> tuple[Layers, Affine]:
    """Each label is interpolated as the image is, and kept from one half on."""
    first = group.planes[0]
    axes = np.asarray(first.orientation, np.float64).reshape(2, 3)
    positions = np.asarray([plane.position for plane in group.planes], np.float64)
    grid_of(group, spec.resampling)  # raises where the group has no grid
    best: NDArray | None = None
    result, affine = np.zeros(0, np.uint8), np.eye(4)
    for label in [0, *np.unique(labels[labels > 0])]:
        share, affine = to_regular_grid(
            (labels == label).astype(np.float32) if label else np.zeros(labels.shape, np.float32),
            positions,
            axes,
            first.spacing or (1.0, 1.0),
            0.0,
            spec.resampling.step,
        )
        if best is None:
            best, result = np.full(share.shape, 0.5 - 1e-6), np.zeros(share.shape, np.uint8)
        wins = share > best + 1e-6 * (result > 0)
        best[wins], result[wins] = share[wins], label
    return result, affine

"""Smooth random fields: cubic B-splines over a coarse grid of control values."""

from __future__ import annotations

from types import ModuleType

import numpy as np
from keras import ops

from data_pipelines.augment.tensors import Tensor


def field(control: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Values (batch, *sizes) of the spline over an image of these sizes; control (batch, cells + 3,
    ... per axis).

    A cell is size / cells pixels. A control value of 1 everywhere gives 1 everywhere, and no value
    leaves the range of the control values.
    """
    dims = len(sizes)
    for axis, size in enumerate(sizes):
        basis = ops.convert_to_tensor(_basis_matrix(size, control.shape[axis + 1]))
        shape = (1,) * axis + (1, size) + (1,) * (dims - 1 - axis)
        before, after = (slice(None),) * (axis + 1), (slice(None),) * (dims - 1 - axis)
        terms = [
            control[(*before, slice(k, k + 1), *after)] * ops.reshape(basis[:, k], shape)
            for k in range(control.shape[axis + 1])
        ]
        control = sum(terms[1:], terms[0])
    return control


def field_at(control: Tensor, points: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Values (batch, n) at pixel coordinates points (batch, n, dims): `field` between the
    pixels.
    """
    values = ops.expand_dims(control, 1)
    for axis, size in enumerate(sizes):
        count = control.shape[axis + 1]
        position = (points[..., axis : axis + 1] + 0.5) * ((count - 3) / size) + 1.0
        weights = _cubic(position - ops.arange(count, dtype="float32"), ops)
        shape = (*weights.shape[:2], count) + (1,) * (len(sizes) - 1 - axis)
        values = ops.sum(values * ops.reshape(weights, shape), 2)
    return values


def _basis_matrix(size: int, count: int) -> np.ndarray:
    """Weight of each control value at each pixel, float32 (size, count)."""
    position = (np.arange(size) + 0.5) * ((count - 3) / size) + 1.0
    return _cubic(position[:, None] - np.arange(count), np).astype(np.float32)


def _cubic(t: Tensor, lib: ModuleType) -> Tensor:
    """The cubic B-spline, with support -2..2."""
    t = lib.abs(t)
    inner, outer = 2.0 / 3.0 - t * t * (1.0 - 0.5 * t), lib.maximum(2.0 - t, 0.0) ** 3 / 6.0
    return lib.where(t < 1.0, inner, outer)

"""Smooth random fields: cubic B-splines over a coarse grid of control values."""

from __future__ import annotations

import numpy as np
from keras import ops


def field(control, sizes: tuple[int, ...]):
    """Values (batch, *sizes) of the spline over an image of these sizes; control (batch, cells + 3,
    ... one an axis).

    A cell is size / cells pixels; a control value of 1 everywhere gives 1 everywhere, and no value
    leaves the control values' range.
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


def field_at(control, points, sizes: tuple[int, ...]):
    """Values (batch, n) at pixel coordinates points (batch, n, dims): `field` between the
    pixels.
    """
    values = ops.expand_dims(control, 1)
    for axis, size in enumerate(sizes):
        count = control.shape[axis + 1]
        place = (points[..., axis : axis + 1] + 0.5) * ((count - 3) / size) + 1.0
        weights = _cubic(place - ops.arange(count, dtype="float32"), ops)
        values = ops.sum(
            values
            * ops.reshape(weights, (*weights.shape[:2], count) + (1,) * (len(sizes) - 1 - axis)),
            2,
        )
    return values


def _basis_matrix(size: int, count: int) -> np.ndarray:
    place = (np.arange(size) + 0.5) * ((count - 3) / size) + 1.0
    return _cubic(place[:, None] - np.arange(count), np).astype(np.float32)


def _cubic(t, lib):
    """The cubic B-spline, support -2..2."""
    t = lib.abs(t)
    inner, outer = 2.0 / 3.0 - t * t * (1.0 - 0.5 * t), lib.maximum(2.0 - t, 0.0) ** 3 / 6.0
    return lib.where(t < 1.0, inner, outer)

"""Losses of a poorer picture: blur, low resolution, noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from data_pipelines.augment.philox import normals
from data_pipelines.augment.spec import AugmentSpec

#: Exposure behind lung and behind mediastinum or abdomen differ by about two decades on a chest
#: radiograph.
LATITUDE = math.log(100.0)


def degrade(image, drawn: dict[str, Any], spec: AugmentSpec):
    """image (batch, [slices,] rows, cols, channels) float32 -> the same shape, in the plane only
    (slices do not mix).

    Blur, then low resolution, then noise, as in a detector. At rest the image comes back unchanged,
    to the bit.
    """
    axes = (len(image.shape) - 3, len(image.shape) - 2)
    factor = drawn["low_resolution"][:, 0] if "low_resolution" in drawn else None
    if "blur" in drawn or factor is not None:
        variance = drawn["blur"][:, 0] ** 2 if "blur" in drawn else 0.0
        if factor is not None:
            variance = (
                variance + (factor**2 - 1.0) / 12.0
            )  # a pixel `factor` wide averages that much more
        largest = math.sqrt(spec.blur**2 + (spec.low_resolution**2 - 1.0) / 12.0)
        for axis in axes:
            image = _once(image, variance > 0.0, _blurred, variance, math.ceil(3.0 * largest), axis)
    if factor is not None:
        for axis in axes:
            image = _once(image, factor > 1.0, _low_resolution, factor, axis)
    return _noisy(image, drawn, spec)


def _once(image, struck, function: Callable, *arguments):
    """function(image, *arguments) if any image of the batch is struck, else the images as they are.

    A loop of at most one turn, and no cond: XLA would move what comes before into each of a
    filter's taps, and do it all once a tap.
    """
    turns = ops.cast(ops.any(struck), "int32")
    done = ops.while_loop(
        lambda turn, _: turn < turns,
        lambda turn, now: (turn + 1, function(now, *arguments)),
        (0 * turns, image),
    )
    return done[1]


def _blurred(image, variance, radius: int, axis: int):
    """A sampled Gaussian along one axis, `radius` pixels to each side; weights beyond the border go
    to the pixels inside.
    """
    size, rank = image.shape[axis], len(image.shape)
    weights = [
        ops.exp(float(k * k) * (-0.5 / ops.maximum(variance, 1e-6))) for k in range(radius + 1)
    ]

    def summed(values, axis: int):
        widths = [(0, 0)] * len(values.shape)
        widths[axis] = (radius, radius)
        padded = ops.pad(values, widths)
        total: Any = 0.0
        for k in range(-radius, radius + 1):
            cut = [slice(None)] * len(values.shape)
            cut[axis] = slice(radius + k, radius + k + size)
            total = total + padded[tuple(cut)] * _column(weights[abs(k)], len(values.shape))
        return total

    inside = summed(ops.ones((1, size), dtype="float32"), 1)
    return summed(image, axis) / ops.reshape(
        inside, (-1,) + (1,) * (axis - 1) + (size,) + (1,) * (rank - 1 - axis)
    )


def _low_resolution(image, factor, axis: int):
    """Linear interpolation along one axis between every factor-th pixel (the nearest one), each
    image with its own factor.
    """
    size, rank = image.shape[axis], len(image.shape)
    factor = ops.expand_dims(factor, -1)
    place = (ops.arange(size, dtype="float32") + 0.5) / factor - 0.5
    whole = ops.floor(place)

    def pixel(coarse):
        near = ops.floor((coarse + 0.5) * factor)
        return ops.cast(ops.clip(near, 0, size - 1), "int32")

    weight = ops.reshape(
        place - whole, (-1,) + (1,) * (axis - 1) + (size,) + (1,) * (rank - 1 - axis)
    )
    low, high = (_taken(image, pixel(whole + step), axis) for step in (0.0, 1.0))
    return low + (high - low) * weight


def _taken(image, index, axis: int):
    """image with the pixels index (batch, size) along one axis."""
    shape = image.shape
    moved = ops.moveaxis(image, axis, 1)
    rest = moved.shape[2:]
    flat = ops.reshape(moved, (-1, math.prod(rest)))
    start = ops.arange(ops.shape(index)[0], dtype="int32") * shape[axis]
    found = ops.take(flat, index + ops.expand_dims(start, -1), axis=0)
    return ops.moveaxis(ops.reshape(found, (-1, shape[axis], *rest)), 1, axis)


def _noisy(image, drawn: dict[str, Any], spec: AugmentSpec):
    """White noise; for radiographs also quantum noise, whose sigma falls with the exposure: less
    where the picture is dark.
    """
    if "noise" not in drawn and "quantum" not in drawn:
        return image
    rank, variance = len(image.shape), 0.0
    if "noise" in drawn:
        variance = variance + _column(drawn["noise"][:, 0] ** 2, rank)
    if "quantum" in drawn:
        exposure = ops.exp(LATITUDE * (ops.clip(image, 0.0, 1.0) - 1.0))
        variance = variance + _column(drawn["quantum"][:, 0] ** 2, rank) * exposure
    return image + ops.sqrt(variance) * normals(drawn["key"], tuple(image.shape[1:]))


def _column(value, rank: int):
    return ops.reshape(value, (-1,) + (1,) * (rank - 1))

"""Losses of image quality: blur, low resolution, noise."""

from __future__ import annotations

import math
from collections.abc import Callable

from keras import ops

from data_pipelines.augment.philox import normals
from data_pipelines.augment.spec import AugmentSpec
from data_pipelines.augment.tensors import Parameters, Tensor, per_image

#: Exposure behind lung and behind mediastinum or abdomen differ by about two decades on a chest
#: radiograph.
LATITUDE = math.log(100.0)


def degrade(image: Tensor, params: Parameters, spec: AugmentSpec) -> Tensor:
    """image (batch, [slices,] rows, columns, channels) float32 -> the same shape, in the plane only
    (slices do not mix).

    Blur, then low resolution, then noise, as in a detector. If every parameter is zero, the image
    comes back unchanged, to the bit.
    """
    axes = (len(image.shape) - 3, len(image.shape) - 2)
    factor = params["low_resolution"][:, 0] if "low_resolution" in params else None
    if "blur" in params or factor is not None:
        variance = params["blur"][:, 0] ** 2 if "blur" in params else 0.0
        if factor is not None:  # a pixel `factor` wide averages over that much more
            variance = variance + (factor**2 - 1.0) / 12.0
        max_sigma = math.sqrt(spec.blur**2 + (spec.low_resolution**2 - 1.0) / 12.0)
        radius = math.ceil(3.0 * max_sigma)
        for axis in axes:
            image = _apply_if_any(image, variance > 0.0, _blurred, variance, radius, axis)
    if factor is not None:
        for axis in axes:
            image = _apply_if_any(image, factor > 1.0, _low_resolution, factor, axis)
    return _noisy(image, params)


def _apply_if_any(
    image: Tensor, affected: Tensor, function: Callable[..., Tensor], *arguments: object
) -> Tensor:
    """function(image, *arguments) if any image of the batch is affected, otherwise the images as
    they are. affected: bool (batch,).

    A loop of at most one turn instead of a `cond`: XLA would move what comes before into each tap
    of a filter, and compute it again for every tap.
    """
    turns = ops.cast(ops.any(affected), "int32")
    _, result = ops.while_loop(
        lambda turn, _: turn < turns,
        lambda turn, current: (turn + 1, function(current, *arguments)),
        (0 * turns, image),
    )
    return result


def _blurred(image: Tensor, variance: Tensor, radius: int, axis: int) -> Tensor:
    """A sampled Gaussian along one axis, `radius` pixels to each side; weights beyond the border go
    to the pixels inside.
    """
    size, rank = image.shape[axis], len(image.shape)
    weights = [
        ops.exp(float(k * k) * (-0.5 / ops.maximum(variance, 1e-6))) for k in range(radius + 1)
    ]

    def filtered(values: Tensor, axis: int) -> Tensor:
        widths = [(0, 0)] * len(values.shape)
        widths[axis] = (radius, radius)
        padded = ops.pad(values, widths)
        total: Tensor = 0.0
        for k in range(-radius, radius + 1):
            window = [slice(None)] * len(values.shape)
            window[axis] = slice(radius + k, radius + k + size)
            total = total + padded[tuple(window)] * per_image(weights[abs(k)], len(values.shape))
        return total

    inside = filtered(ops.ones((1, size), dtype="float32"), 1)
    return filtered(image, axis) / _along(inside, axis, size, rank)


def _low_resolution(image: Tensor, factor: Tensor, axis: int) -> Tensor:
    """Linear interpolation along one axis between every factor-th pixel (the nearest one); each
    image has its own factor.
    """
    size, rank = image.shape[axis], len(image.shape)
    factor = ops.expand_dims(factor, -1)
    position = (ops.arange(size, dtype="float32") + 0.5) / factor - 0.5
    whole = ops.floor(position)

    def pixel(coarse: Tensor) -> Tensor:
        nearest = ops.floor((coarse + 0.5) * factor)
        return ops.cast(ops.clip(nearest, 0, size - 1), "int32")

    weight = _along(position - whole, axis, size, rank)
    low, high = (_take_pixels(image, pixel(whole + step), axis) for step in (0.0, 1.0))
    return low + (high - low) * weight


def _take_pixels(image: Tensor, index: Tensor, axis: int) -> Tensor:
    """image with the pixels index (batch, size) along one axis."""
    size = image.shape[axis]
    moved = ops.moveaxis(image, axis, 1)
    rest = moved.shape[2:]
    flat = ops.reshape(moved, (-1, math.prod(rest)))
    start = ops.arange(ops.shape(index)[0], dtype="int32") * size
    pixels = ops.take(flat, index + ops.expand_dims(start, -1), axis=0)
    return ops.moveaxis(ops.reshape(pixels, (-1, size, *rest)), 1, axis)


def _noisy(image: Tensor, params: Parameters) -> Tensor:
    """White noise; for radiographs also quantum noise, whose sigma falls with the exposure: less
    where the image is dark.
    """
    if "noise" not in params and "quantum" not in params:
        return image
    rank, variance = len(image.shape), 0.0
    if "noise" in params:
        variance = variance + per_image(params["noise"][:, 0] ** 2, rank)
    if "quantum" in params:
        exposure = ops.exp(LATITUDE * (ops.clip(image, 0.0, 1.0) - 1.0))
        variance = variance + per_image(params["quantum"][:, 0] ** 2, rank) * exposure
    return image + ops.sqrt(variance) * normals(params["key"], tuple(image.shape[1:]))


def _along(values: Tensor, axis: int, size: int, rank: int) -> Tensor:
    """(batch, size) -> the shape that broadcasts along one axis of images of this rank."""
    return ops.reshape(values, (-1,) + (1,) * (axis - 1) + (size,) + (1,) * (rank - 1 - axis))

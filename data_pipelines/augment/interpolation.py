"""Values of an image between its pixels. A border around the image gives the value outside."""

from __future__ import annotations

import itertools

import keras
from keras import ops

from data_pipelines.augment.tensors import Tensor


def interpolate(
    image: Tensor, coordinates: list[Tensor], fill: float, *, nearest: bool = False
) -> Tensor:
    """image (batch, [slices,] rows, columns, channels) at coordinates, in pixels: one tensor for
    each axis, and they broadcast to (batch, *size). Returns (batch, *size, channels).

    Linear in each axis, or the nearest pixel. Beyond the outermost pixels values go over to `fill`
    within one pixel. At whole pixels the value is exact.
    """
    sizes, channels = image.shape[1:-1], image.shape[-1]
    border = 1 if nearest else 2
    padded = ops.pad(image, [(0, 0), *[(1, border)] * len(sizes), (0, 0)], constant_values=fill)
    sides = [size + 1 + border for size in sizes]
    flat = ops.reshape(padded, (-1,) if channels == 1 else (-1, channels))
    steps = [1]
    for side in reversed(sides[1:]):
        steps.insert(0, steps[0] * side)
    index = _starts(ops.shape(image)[0], sides[0] * steps[0], len(sizes))
    weights = []
    for position, size, step in zip(coordinates, sizes, steps, strict=True):
        position = ops.clip(position + 0.5 if nearest else position, -1.0, float(size))
        whole = ops.floor(position)
        weights.append(position - whole)
        index = index + (ops.cast(whole, "int32") + 1) * step
    if nearest:
        values = _gather(flat, index)
        return ops.expand_dims(values, -1) if channels == 1 else values
    corners = [
        _gather(flat, index + sum(corner))
        for corner in itertools.product(*[(0, step) for step in steps])
    ]
    for weight in reversed(weights):
        weight = weight if channels == 1 else ops.expand_dims(weight, -1)
        corners = [
            low + (high - low) * weight
            for low, high in zip(corners[::2], corners[1::2], strict=True)
        ]
    return ops.expand_dims(corners[0], -1) if channels == 1 else corners[0]


def _starts(batch: Tensor, size: int, dims: int) -> Tensor:
    """Index of the first pixel of each image, (batch, 1, ... per axis)."""
    return ops.reshape(ops.arange(batch, dtype="int32") * size, (-1,) + (1,) * dims)


def _gather(flat: Tensor, index: Tensor) -> Tensor:
    if keras.backend.backend() == "tensorflow":  # ops.take would first look for negative numbers
        import tensorflow as tf

        return tf.gather(flat, index)
    return ops.take(flat, index, axis=0)

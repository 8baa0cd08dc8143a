"""Values of an image between its pixels: one gather a corner, the value outside given by a
border.
"""

from __future__ import annotations

import itertools

import keras
from keras import ops


def sample(image, places: list, fill: float, *, nearest: bool = False):
    """image (batch, [slices,] rows, cols, channels) at places, pixel coordinates of each axis that
    broadcast to (batch, *size).

    Linear in each axis, or the nearest pixel; beyond the outermost pixels values go over to `fill`
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
    for place, size, step in zip(places, sizes, steps, strict=True):
        place = ops.clip(place + 0.5 if nearest else place, -1.0, float(size))
        whole = ops.floor(place)
        weights.append(place - whole)
        index = index + (ops.cast(whole, "int32") + 1) * step
    if nearest:
        found = _gather(flat, index)
        return ops.expand_dims(found, -1) if channels == 1 else found
    values = [
        _gather(flat, index + sum(corner))
        for corner in itertools.product(*[(0, step) for step in steps])
    ]
    for weight in reversed(weights):
        weight = weight if channels == 1 else ops.expand_dims(weight, -1)
        values = [
            low + (high - low) * weight for low, high in zip(values[::2], values[1::2], strict=True)
        ]
    return ops.expand_dims(values[0], -1) if channels == 1 else values[0]


def _starts(batch, size: int, dims: int):
    return ops.reshape(ops.arange(batch, dtype="int32") * size, (-1,) + (1,) * dims)


def _gather(flat, index):
    if keras.backend.backend() == "tensorflow":  # ops.take would first look for negative numbers
        import tensorflow as tf

        return tf.gather(flat, index)
    return ops.take(flat, index, axis=0)

"""The normalization that pretrained weights expect, as layers between -1..1 and the stem."""

from __future__ import annotations

from typing import Any

import keras

from medres.backbones.weights.adapt import SCALINGS

INPUT_SCALING = "input_scaling"  # the layer before the stem


def scaled_input(x: Any, scaling: str) -> Any:
    """The symbolic image (batch, ..., n) of values -1..1 as 3 channels, or 3n, scaled as the
    weights expect: three channels are red, green and blue; any other number stands three times, as
    n reds, n greens and n blues. float32 under every dtype policy.

    The scaling of each color comes before the zeros around the image, as in the source: a zero is
    the mean of its color. A scaling that is folded into the stem cannot keep that.
    """
    if x.shape[-1] != 3:
        x = keras.layers.Concatenate(dtype="float32", name="rgb")([x, x, x])
    gain, shift = SCALINGS[scaling]
    copies = x.shape[-1] // 3
    scale = [float(g) / 2 for g in gain for _ in range(copies)]
    offset = [
        float(g) / 2 + float(s) for g, s in zip(gain, shift, strict=True) for _ in range(copies)
    ]
    return keras.layers.Rescaling(scale, offset, dtype="float32", name=INPUT_SCALING)(x)


def has_input_scaling(model: keras.Model) -> bool:
    """Whether a network has its input scaling in its graph."""
    return any(layer.name == INPUT_SCALING for layer in model.layers)

"""Pairs of images: mixup and cutmix, with targets that stay right where labels are missing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from data_pipelines.augment.intensity import box
from data_pipelines.augment.parameters import STREAMS
from data_pipelines.augment.philox import uniforms
from data_pipelines.augment.spec import AugmentSpec
from data_pipelines.errors import SpecError

_QUANTILES = 1025


def draw_pairs(key, spec: AugmentSpec, dims: int = 2) -> dict[str, Any]:
    """For each image its own part, `part` (batch, 1) from Beta(alpha, alpha), and for cutmix
    `place` (batch, dims), the box's centre.

    Each image is mixed with the one that follows it in the batch, the last with the first.
    """
    name, alpha = ("mixup", spec.mixup) if spec.mixup else ("cutmix", spec.cutmix)
    part, place = uniforms(key, [(STREAMS[name], 1), (STREAMS["cutmix_place"], dims)])
    drawn = {"part": _beta(part, alpha)}
    return drawn | ({"place": place} if spec.cutmix else {})


def mix(image, label, weight, drawn: dict[str, Any], spec: AugmentSpec) -> tuple:
    """(image, label, weight) with each image mixed with the next one (Zhang 2018), or a box of it
    pasted in (Yun 2019).

    image: float32 (batch, [slices,] rows, cols, channels). label, weight: float32 (batch,
        findings), weight 0 where a label is missing; classes one-hot, their weight (batch,). With
        own part p the loss is p * loss(own label) + (1 - p) * loss(other label), each with its
        weight; as cross-entropy is linear in the label, that is one label, the weighted mean, with
        one weight, the weighted sum. In cutmix p is the part of pixels that were kept, counted.
    Raises SpecError for labels of integers (class numbers cannot be mixed).
    """
    if "float" not in keras.backend.standardize_dtype(label.dtype):
        raise SpecError(
            "mixup and cutmix need float labels: give classes one-hot, float32 (batch, classes)"
        )
    sizes, other = tuple(image.shape[1:-1]), ops.roll(image, -1, axis=0)
    part = drawn["part"][:, 0]
    if "place" in drawn:
        side = ops.repeat(ops.power(1.0 - drawn["part"], 1.0 / len(sizes)), len(sizes), axis=1)
        inside = ops.expand_dims(box(drawn["place"], side, sizes), -1)
        image = ops.where(inside, other, image)
        part = 1.0 - ops.mean(ops.cast(inside, "float32"), axis=tuple(range(1, len(sizes) + 2)))
    else:
        own = ops.reshape(part, (-1,) + (1,) * (len(sizes) + 1))
        image = own * image + (1.0 - own) * other
    per_image = len(weight.shape) == 1
    both = ops.expand_dims(weight, -1) if per_image else weight
    own_weight, other_weight = (
        part[:, None] * both,
        (1.0 - part[:, None]) * ops.roll(both, -1, axis=0),
    )
    total = own_weight + other_weight
    mixed = own_weight * label + other_weight * ops.roll(label, -1, axis=0)
    mixed = ops.where(total > 0, mixed / ops.where(total > 0, total, 1.0), 0.0)
    return image, mixed, total[:, 0] if per_image else total


def _beta(uniform, alpha: float):
    """Quantiles of Beta(alpha, alpha), linear between a thousand exact ones."""
    from scipy.stats import beta

    table = ops.convert_to_tensor(
        beta.ppf(np.linspace(0, 1, _QUANTILES), alpha, alpha).astype(np.float32)
    )
    place = uniform * (_QUANTILES - 1)
    whole = ops.floor(place)
    low = ops.cast(whole, "int32")
    below, above = ops.take(table, low), ops.take(table, low + 1)
    return below + (above - below) * (place - whole)

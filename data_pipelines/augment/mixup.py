"""Pairs of images: mixup and cutmix, with targets that stay correct if labels are missing."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from data_pipelines.augment.intensity import box_mask
from data_pipelines.augment.philox import uniforms
from data_pipelines.augment.spec import AugmentSpec
from data_pipelines.augment.tensors import Parameters, Tensor, per_image
from data_pipelines.errors import SpecError

_QUANTILES = 1025
#: Numbers of the random streams; those of the other parameters are in `parameters.RULES`.
_MIXUP, _CUTMIX, _CUTMIX_CENTER = 21, 22, 23


def draw_pairs(key: Tensor, spec: AugmentSpec, dims: int = 2) -> Parameters:
    """For each image the part that it keeps, `part` (batch, 1) from Beta(alpha, alpha), and for
    cutmix `place` (batch, dims), the center of the box in fractions of the image.

    Each image is mixed with the one that follows it in the batch, the last with the first.
    """
    stream, alpha = (_MIXUP, spec.mixup) if spec.mixup else (_CUTMIX, spec.cutmix)
    part, center = uniforms(key, [(stream, 1), (_CUTMIX_CENTER, dims)])
    pairs = {"part": _beta(part, alpha)}
    return pairs | ({"place": center} if spec.cutmix else {})


def mix(
    image: Tensor, label: Tensor, weight: Tensor, pairs: Parameters, spec: AugmentSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """(image, label, weight) with each image mixed with the next one (Zhang 2018), or a box of it
    pasted in (Yun 2019).

    image: float32 (batch, [slices,] rows, columns, channels). label, weight: float32 (batch,
        findings), weight 0 where a label is missing; classes one-hot, their weight (batch,).
        pairs: from `draw_pairs`.
    With own part p the loss is p * loss(own label) + (1 - p) * loss(other label), each with its
    weight. As cross-entropy is linear in the label, that is one label, the weighted mean, with one
    weight, the weighted sum. In cutmix p is the fraction of pixels that were kept, counted.
    Raises SpecError (code integer_labels) for integer labels: class numbers cannot be mixed.
    """
    if "float" not in keras.backend.standardize_dtype(label.dtype):
        raise SpecError(
            "mixup and cutmix need float labels: give classes one-hot, float32 (batch, classes)",
            code="integer_labels",
        )
    sizes, other = tuple(image.shape[1:-1]), ops.roll(image, -1, axis=0)
    part = pairs["part"][:, 0]
    if "place" in pairs:
        side = ops.repeat(ops.power(1.0 - pairs["part"], 1.0 / len(sizes)), len(sizes), axis=1)
        inside = ops.expand_dims(box_mask(pairs["place"], side, sizes), -1)
        image = ops.where(inside, other, image)
        part = 1.0 - ops.mean(ops.cast(inside, "float32"), axis=tuple(range(1, len(sizes) + 2)))
    else:
        own = per_image(part, len(sizes) + 2)
        image = own * image + (1.0 - own) * other
    is_per_image = len(weight.shape) == 1
    weights = ops.expand_dims(weight, -1) if is_per_image else weight
    own_weight = part[:, None] * weights
    other_weight = (1.0 - part[:, None]) * ops.roll(weights, -1, axis=0)
    total = own_weight + other_weight
    mixed = own_weight * label + other_weight * ops.roll(label, -1, axis=0)
    mixed = ops.where(total > 0, mixed / ops.where(total > 0, total, 1.0), 0.0)
    return image, mixed, total[:, 0] if is_per_image else total


def _beta(uniform: Tensor, alpha: float) -> Tensor:
    """Quantiles of Beta(alpha, alpha), linear between a thousand exact ones."""
    from scipy.stats import beta

    quantiles = beta.ppf(np.linspace(0, 1, _QUANTILES), alpha, alpha)
    table = ops.convert_to_tensor(quantiles.astype(np.float32))
    position = uniform * (_QUANTILES - 1)
    whole = ops.floor(position)
    index = ops.cast(whole, "int32")
    below, above = ops.take(table, index), ops.take(table, index + 1)
    return below + (above - below) * (position - whole)

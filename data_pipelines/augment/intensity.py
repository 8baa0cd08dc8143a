"""Changes of grey values, in model units: what another scanner, exposure or display would have made
of the same picture.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from data_pipelines.augment.bspline import field
from data_pipelines.augment.spec import AugmentSpec

GAINS = ("scale", "contrast", "window_centre", "window_width", "offset")


def adjust(image, drawn: dict[str, Any], spec: AugmentSpec):
    """image (batch, [slices,] rows, cols, channels) float32 -> the same shape.

    In this order: low-frequency bias, gamma inside the window, then scale, contrast, window jitter
    and offset as one gain and one shift. Display values end in 0..1. With every parameter at rest
    the image comes back unchanged, to the bit.
    """
    dims = len(image.shape) - 2
    if "bias" in drawn:
        image = image + ops.expand_dims(field(drawn["bias"], tuple(image.shape[1:-1])), -1)
    if "gamma" in drawn:
        image = _gamma(image, _column(drawn["gamma"], dims), spec.span)
    if any(name in drawn for name in GAINS):
        gain, shift = _gain_and_shift(drawn, spec)
        image = image * _column(gain, dims) + _column(shift, dims)
    touched = any(name in drawn for name in ("bias", "gamma", "noise", "quantum", *GAINS))
    return ops.clip(image, 0.0, 1.0) if spec.units == "display" and touched else image


def cut_out(image, drawn: dict[str, Any], spec: AugmentSpec):
    """Fill one box in each image (DeVries & Taylor 2017)."""
    if "cutout" not in drawn:
        return image
    sizes = tuple(image.shape[1:-1])
    inside = box(drawn["cutout"][:, : len(sizes)], drawn["cutout"][:, len(sizes) :], sizes)
    return ops.where(ops.expand_dims(inside, -1), spec.fill, image)


def box(centres, sides, sizes: tuple[int, ...]):
    """bool (batch, *sizes): the pixels whose centres lie in a box; centres, sides (batch, dims) in
    fractions of the image.
    """
    inside: Any = True
    for axis, size in enumerate(sizes):
        place = (ops.arange(size, dtype="float32") + 0.5) / size
        distance = ops.abs(ops.expand_dims(place, 0) - centres[:, axis : axis + 1])
        within = distance < sides[:, axis : axis + 1] / 2
        inside = inside & ops.reshape(
            within, (-1,) + (1,) * axis + (size,) + (1,) * (len(sizes) - 1 - axis)
        )
    return inside


def _gamma(image, gamma, span: tuple[float, float]):
    """A power law inside the window, which keeps its ends; values outside stay."""
    low, width = span[0], span[1] - span[0]
    unit = ops.clip((image - low) / width, 1e-6, 1.0)  # the floor keeps the logarithm finite at 0
    bent = image + width * (ops.exp(ops.exp(gamma) * ops.log(unit)) - unit)
    return ops.where(gamma == 0.0, image, bent)


def _gain_and_shift(drawn: dict[str, Any], spec: AugmentSpec) -> tuple:
    """(gain, shift), each (batch,)."""
    middle = (spec.span[0] + spec.span[1]) / 2
    gain, shift = ops.ones_like(drawn["key"][:, 0], dtype="float32"), 0.0
    if "scale" in drawn:
        gain = gain * (1.0 + drawn["scale"][:, 0])
    if "contrast" in drawn:
        factor = 1.0 + drawn["contrast"][:, 0]
        gain, shift = gain * factor, shift + middle * (1.0 - factor)
    if "window_centre" in drawn:
        shift = shift - drawn["window_centre"][:, 0]
    if "window_width" in drawn:
        factor = 1.0 / (1.0 + drawn["window_width"][:, 0])
        gain, shift = gain * factor, (shift - middle) * factor + middle
    if "offset" in drawn:
        shift = shift + drawn["offset"][:, 0]
    return gain, shift + 0.0 * gain


def _column(value, dims: int):
    return ops.reshape(value, (-1,) + (1,) * (dims + 1))

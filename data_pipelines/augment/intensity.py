"""Changes of gray values, in model units: what another scanner, exposure or display would have made
of the same image.
"""

from __future__ import annotations

from keras import ops

from data_pipelines.augment.bspline import field
from data_pipelines.augment.spec import AugmentSpec
from data_pipelines.augment.tensors import Parameters, Tensor, per_image

GAINS = ("scale", "contrast", "window_centre", "window_width", "offset")
CHANGES_VALUES = ("bias", "gamma", "noise", "quantum", "saturation", *GAINS)


def adjust(image: Tensor, params: Parameters, spec: AugmentSpec) -> Tensor:
    """image (batch, [slices,] rows, columns, channels) float32 -> the same shape.

    In this order: low-frequency bias, saturation, gamma inside the window, then scale, contrast,
    window jitter and offset as one gain and one shift. Values are clipped to the bounds of the
    units (display: 0..1). If every parameter is zero, the image comes back unchanged, to the bit.
    """
    rank, bounds = len(image.shape), spec.unit.bounds
    if "bias" in params:
        image = image + ops.expand_dims(field(params["bias"], tuple(image.shape[1:-1])), -1)
    if "saturation" in params:
        gray = ops.mean(image, axis=-1, keepdims=True)
        image = image + per_image(params["saturation"], rank) * (image - gray)
    if "gamma" in params:
        image = _gamma(image, per_image(params["gamma"], rank), spec.span)
    if any(name in params for name in GAINS):
        gain, shift = _gain_and_shift(params, spec)
        image = image * per_image(gain, rank) + per_image(shift, rank)
    if bounds is not None and any(name in params for name in CHANGES_VALUES):
        image = ops.clip(image, *bounds)
    return image


def cut_out(image: Tensor, params: Parameters, spec: AugmentSpec) -> Tensor:
    """Fill one box in each image (DeVries & Taylor 2017)."""
    if "cutout" not in params:
        return image
    sizes = tuple(image.shape[1:-1])
    centers, sides = params["cutout"][:, : len(sizes)], params["cutout"][:, len(sizes) :]
    return ops.where(ops.expand_dims(box_mask(centers, sides, sizes), -1), spec.fill, image)


def box_mask(centers: Tensor, sides: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """bool (batch, *sizes): the pixels whose centers lie in a box; centers and sides (batch, dims)
    are fractions of the image.
    """
    mask: Tensor = True
    for axis, size in enumerate(sizes):
        position = (ops.arange(size, dtype="float32") + 0.5) / size
        distance = ops.abs(ops.expand_dims(position, 0) - centers[:, axis : axis + 1])
        within = distance < sides[:, axis : axis + 1] / 2
        shape = (-1,) + (1,) * axis + (size,) + (1,) * (len(sizes) - 1 - axis)
        mask = mask & ops.reshape(within, shape)
    return mask


def _gamma(image: Tensor, gamma: Tensor, span: tuple[float, float]) -> Tensor:
    """A power law inside the window, which keeps its ends; values outside stay."""
    low, width = span[0], span[1] - span[0]
    unit = ops.clip((image - low) / width, 1e-6, 1.0)  # the floor keeps the logarithm finite at 0
    bent = image + width * (ops.exp(ops.exp(gamma) * ops.log(unit)) - unit)
    return ops.where(gamma == 0.0, image, bent)


def _gain_and_shift(params: Parameters, spec: AugmentSpec) -> tuple[Tensor, Tensor]:
    """(gain, shift), each (batch,)."""
    middle = (spec.span[0] + spec.span[1]) / 2
    gain, shift = ops.ones_like(params["key"][:, 0], dtype="float32"), 0.0
    if "scale" in params:
        gain = gain * (1.0 + params["scale"][:, 0])
    if "contrast" in params:
        factor = 1.0 + params["contrast"][:, 0]
        gain, shift = gain * factor, shift + middle * (1.0 - factor)
    if "window_centre" in params:
        shift = shift - params["window_centre"][:, 0]
    if "window_width" in params:
        factor = 1.0 / (1.0 + params["window_width"][:, 0])
        gain, shift = gain * factor, (shift - middle) * factor + middle
    if "offset" in params:
        shift = shift + params["offset"][:, 0]
    return gain, shift + 0.0 * gain

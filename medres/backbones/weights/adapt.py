"""Arithmetic that adapts source weights to another input, to 3D, or to layers without biases."""

from __future__ import annotations

import re

import numpy as np

from medres.errors import WeightsError

Arrays = dict[str, np.ndarray]
DENSE_LAYER = re.compile(r"stage\d_(layer\d+|transition)_")

# How the source scaled x in 0..1, per channel in its own order: gain x + shift.
IMAGENET_MEAN, IMAGENET_DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
#: The n channels of the image stand three times before the stem, as n reds, n greens and n blues.
REPEAT = "repeat"
CAFFE_MEAN = np.array([103.939, 116.779, 123.68])  # blue, green, red
SCALINGS = {
    "imagenet": (1 / IMAGENET_DEVIATION, -IMAGENET_MEAN / IMAGENET_DEVIATION),
    "caffe": (np.full(3, 255.0), -CAFFE_MEAN),
}


def absorb_scaling(arrays: Arrays, scaling: str, adapted: dict[str, str]) -> Arrays:
    """The arrays with the scaling of the source folded into the stem, for an input z = 2 x - 1 in
    the order red, green, blue.

    gain x + shift = gain/2 z + (gain/2 + shift): the factor goes into the kernel, the rest into the
    mean of the batch normalization after it. Raises WeightsError if there is no RGB stem with batch
    normalization.
    """
    name = "stem_conv1" if "stem_conv1/kernel" in arrays else "stem_conv"
    mean = f"{name.replace('conv', 'norm')}/moving_mean"
    kernel = arrays.get(f"{name}/kernel", np.zeros((0, 0)))
    if mean not in arrays or kernel.shape[-2] != 3:
        raise WeightsError(
            f"scaling {scaling!r} needs a stem with 3 input channels and batch normalization; the "
            f"file has none",
            code="scaling",
        )
    gain, shift = SCALINGS[scaling]
    scaled = kernel * (gain / 2)[:, None]
    constant = (kernel * (gain / 2 + shift)[:, None]).sum(axis=tuple(range(kernel.ndim - 1)))
    adapted[mean] = f"the {scaling} scaling of the input was folded in"
    scaled = scaled[..., ::-1, :] if scaling == "caffe" else scaled  # BGR to RGB
    return {**arrays, f"{name}/kernel": scaled, mean: arrays[mean] - constant}


def fold_biases(arrays: Arrays, model_names: set[str], adapted: dict[str, str]) -> Arrays:
    """The arrays, with each convolution bias that the model lacks moved into the batch
    normalization after it: mean - bias. Within a DenseNet the normalization comes before the
    convolution, so those biases stay.
    """
    arrays = dict(arrays)
    for name in [
        name
        for name in arrays
        if "conv" in name
        and name.endswith("/bias")
        and name not in model_names
        and not DENSE_LAYER.match(name)
    ]:
        mean = name.replace("conv", "norm").replace("/bias", "/moving_mean")
        if mean in arrays and arrays[mean].shape == arrays[name].shape:
            arrays[mean] = arrays[mean] - arrays.pop(name)
            how = "the bias of the convolution before it was folded in"
            adapted[mean] = f"{adapted[mean]}; {how}" if mean in adapted else how
    return arrays


def adapt_shape(
    array: np.ndarray, shape: tuple[int, ...], rgb: str | None
) -> tuple[np.ndarray, str]:
    """The array inflated from 2D to 3D and, for the stem (rgb is not None), spread over the
    channels of the model; and a description of what was done, or "". rgb: as in `load_pretrained`,
    or REPEAT.
    """
    how = []
    if array.ndim == 4 and len(shape) == 5:
        array = np.repeat(array[None], shape[0], axis=0) / shape[0]
        how.append(f"inflated to depth {shape[0]}, divided by it")
    if rgb and array.ndim == len(shape) and array.shape[-2] == 3 != shape[-2]:
        count = shape[-2]
        if rgb == REPEAT:
            array = np.repeat(array / (count // 3), count // 3, axis=-2)
        elif rgb == "copy":
            array = np.take(array, np.arange(count) % 3, axis=-2)
        else:
            array = np.repeat(
                array.sum(axis=-2, keepdims=True) / (count if rgb == "sum" else 3), count, axis=-2
            )
        how.append(f"3 input channels to {count}, by {rgb}")
    return array, "; ".join(how)

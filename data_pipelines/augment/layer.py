"""Apply drawn parameters, and the Keras layer that does so while training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from data_pipelines.augment.degradation import degrade
from data_pipelines.augment.intensity import adjust, cut_out
from data_pipelines.augment.parameters import draw
from data_pipelines.augment.spatial import Spacing, warp
from data_pipelines.augment.spec import AugmentSpec, check_dtype, check_fits
from data_pipelines.augment.tensors import Parameters, Tensor
from data_pipelines.errors import SpecError


def apply(
    image: Tensor, params: Parameters, spec: AugmentSpec, spacing: Spacing | None = None
) -> Tensor:
    """Augmented images: geometry, then degradations, gray values, cutout.

    image: (batch, [slices,] rows, columns, channels) in `spec.units`, float, or int16 HU; the
        result is float32.
    params: from `draw`. The same parameters give the same pixels, in eager mode, in a graph and
        under XLA, to 1e-4 of the values' range.
    spacing: mm between (slices,) rows and columns if they differ.
    Raises SpecError; see `check_dtype` and `check_spacing` in `data_pipelines.augment.spec`.

    >>> import numpy as np
    >>> spec, key = AugmentSpec(offset=0.1), np.array([[0, 0]], np.int32)
    >>> apply(np.full((1, 4, 4, 1), 0.5, np.float32), draw(key, spec), spec).shape
    TensorShape([1, 4, 4, 1])
    """
    check_dtype(spec, _dtype(image))
    image = warp(ops.cast(image, "float32"), params, spec, spacing)
    image = adjust(degrade(image, params, spec), params, spec)
    return cut_out(image, params, spec)


@functools.lru_cache(maxsize=32)
def compiled(spec: AugmentSpec, spacing: Spacing | None = None) -> Callable[..., Tensor]:
    """A function (image, key) -> image that draws and applies, compiled by XLA by itself.

    Keras does not compile the training step on a CPU; this part is five times faster when compiled.
    The function may be called inside a step that is compiled or not, in tf.data, and under
    tf.distribute.
    """

    def augmented(image: Tensor, key: Tensor) -> Tensor:
        return apply(image, draw(key, spec, len(image.shape) - 2), spec, spacing)

    if keras.backend.backend() != "tensorflow":
        return augmented
    import tensorflow as tf

    return tf.function(augmented, jit_compile=True, autograph=False)


class Augment(keras.layers.Layer):
    """Applies an AugmentSpec while training, on the device. Outside training it only crops, in the
    center.

    Call it with (image (batch, [slices,] rows, columns, channels) in model units, key int32 (batch,
    2)); it returns float32, whatever the dtype policy, because coordinates and HU do not fit into
    half precision. spacing: mm between (slices,) rows and columns.
    Raises SpecError when the model is built if the spec does not fit the images (see `check_fits`),
    and for pairs, which change labels (code pairs_in_layer).
    """

    def __init__(
        self, spec: AugmentSpec, *, spacing: Spacing | None = None, **options: Any
    ) -> None:
        super().__init__(dtype="float32", autocast=False, **options)
        if spec.mixes_pairs:
            raise SpecError(
                "mixup and cutmix change labels too: use "
                "data_pipelines.augment.augment_in_pipeline",
                code="pairs_in_layer",
            )
        self.spec, self.spacing = spec, None if spacing is None else tuple(spacing)

    def call(self, image: Tensor, key: Tensor, training: bool = False) -> Tensor:
        check_fits(self.spec, tuple(image.shape), _dtype(image), self.spacing)
        if training and self.spec.is_active:
            return compiled(self.spec, self.spacing)(image, key)
        if self.spec.crop is None:
            return ops.cast(image, "float32")
        sides = tuple(image.shape[1:-1])
        starts = [(side - size) // 2 for side, size in zip(sides, self.spec.crop, strict=True)]
        center = tuple(
            slice(start, start + size) for start, size in zip(starts, self.spec.crop, strict=True)
        )
        return ops.cast(image[(slice(None), *center)], "float32")

    def compute_output_spec(
        self, image: Tensor, key: Tensor, training: bool = False
    ) -> keras.KerasTensor:
        check_fits(self.spec, tuple(image.shape), _dtype(image), self.spacing)
        shape = (image.shape[0], *self.spec.size(tuple(image.shape[1:-1])), image.shape[-1])
        return keras.KerasTensor(shape, dtype="float32")


def _dtype(image: Tensor) -> str:
    return keras.backend.standardize_dtype(image.dtype)

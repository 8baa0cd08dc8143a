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
from data_pipelines.errors import SpecError


def apply(image, drawn: dict[str, Any], spec: AugmentSpec, spacing: Spacing | None = None):
    """Images as drawn: geometry, losses, grey values, cutout.

    image: (batch, [slices,] rows, cols, channels) in `spec.units`, float, or int16 HU; the result
        is float32.
    drawn: of `draw`; the same parameters give the same pixels, in eager mode, in a graph and under
        XLA, to 1e-4 of the values' range.
    spacing: mm between (slices,) rows and columns where they are not alike.
    """
    check_dtype(spec, _dtype(image))
    image = ops.cast(image, "float32")
    return cut_out(
        adjust(degrade(warp(image, drawn, spec, spacing), drawn, spec), drawn, spec), drawn, spec
    )


@functools.lru_cache(maxsize=32)
def compiled(spec: AugmentSpec, spacing: Spacing | None = None) -> Callable:
    """image, key -> image: draw and apply, compiled by XLA for itself.

    On a CPU Keras does not compile the training step; this part is five times faster when compiled,
    and it may lie inside a step that is compiled or not, in tf.data, and under tf.distribute.
    """

    def augmented(image, key):
        return apply(image, draw(key, spec, len(image.shape) - 2), spec, spacing)

    if keras.backend.backend() != "tensorflow":
        return augmented
    import tensorflow as tf

    return tf.function(augmented, jit_compile=True, autograph=False)


class Augment(keras.layers.Layer):
    """Applies an AugmentSpec while training, on the device; outside training it only crops, in the
    middle.

    Call with (image (batch, [slices,] rows, cols, channels) in model units, key int32 (batch, 2));
    returns float32, whatever the
    policy: coordinates and HU do not fit into half precision. spacing: mm between (slices,) rows
        and columns.
    Raises SpecError when the model is built where the spec does not fit the images, and for pairs,
    which change labels.
    """

    def __init__(self, spec: AugmentSpec, *, spacing: Spacing | None = None, **options) -> None:
        super().__init__(dtype="float32", autocast=False, **options)
        if spec.mixes:
            raise SpecError(
                "mixup and cutmix change labels too: use data_pipelines.augment.augment_in_pipeline"
            )
        self.spec, self.spacing = spec, None if spacing is None else tuple(spacing)

    def call(self, image, key, training=False):
        check_fits(self.spec, tuple(image.shape), _dtype(image), self.spacing)
        if training and self.spec.acts:
            return compiled(self.spec, self.spacing)(image, key)
        if self.spec.crop is None:
            return ops.cast(image, "float32")
        sizes = tuple(image.shape[1:-1])
        starts = [(side - size) // 2 for side, size in zip(sizes, self.spec.crop, strict=True)]
        cut = tuple(
            slice(start, start + size) for start, size in zip(starts, self.spec.crop, strict=True)
        )
        return ops.cast(image[(slice(None), *cut)], "float32")

    def compute_output_spec(self, image, key, training=False):
        check_fits(self.spec, tuple(image.shape), _dtype(image), self.spacing)
        shape = (image.shape[0], *self.spec.size(tuple(image.shape[1:-1])), image.shape[-1])
        return keras.KerasTensor(shape, dtype="float32")


def _dtype(image) -> str:
    return keras.backend.standardize_dtype(image.dtype)

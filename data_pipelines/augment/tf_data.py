"""Augmentation in tf.data: for an accelerator that is the bottleneck, and for mixup and cutmix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.augment.layer import compiled
from data_pipelines.augment.mixup import draw_pairs, mix
from data_pipelines.augment.spatial import Spacing
from data_pipelines.augment.spec import AugmentSpec, check_fits
from data_pipelines.augment.tensors import Tensor

if TYPE_CHECKING:
    import tensorflow as tf

PARALLEL = 2  # batches at a time; each is computed on all cores


def augment_in_pipeline(
    batches: tf.data.Dataset, spec: AugmentSpec, *, spacing: Spacing | None = None
) -> tf.data.Dataset:
    """The batches ({"image", "key"}, label, weight) of `data_pipelines.datasets`, augmented, in the
    same order.

    The pixels are those that the layer Augment gives for the same keys (to 1e-4 of the values'
    range). With spec.mixup or spec.cutmix, images, labels and weights are mixed afterwards (`mix`).
    Raises SpecError if the spec does not fit the batches (see `check_fits`).
    """
    image = batches.element_spec[0]["image"]
    check_fits(spec, tuple(image.shape), image.dtype.name, spacing)

    def augmented(inputs: dict[str, Tensor], label: Tensor, weight: Tensor) -> tuple:
        image, key = inputs["image"], inputs["key"]
        if spec.is_active:
            image = compiled(spec, spacing)(image, key)
        if spec.mixes_pairs:
            pairs = draw_pairs(key, spec, len(image.shape) - 2)
            image, label, weight = mix(image, label, weight, pairs, spec)
        return inputs | {"image": image}, label, weight

    augmented_batches = batches.map(augmented, num_parallel_calls=PARALLEL, deterministic=True)
    return augmented_batches.prefetch(PARALLEL)

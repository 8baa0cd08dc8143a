"""Augmentation: batched, fused, on the device, in the units of the images.

    spec = augmentation("chest_xray")
    params = draw(key, spec)  # of each image, a function of (seed, epoch, image number)
    image = apply(image, params, spec)  # the same parameters give the same pixels, anywhere

The user decides where it runs: in the training step, `Model(inputs, core(Augment(spec)(image,
key)))`, of which only `core` is saved, or in tf.data, `augment_in_pipeline(batches, spec)`. Masks,
points and boxes move along: `warp_mask`, `move_points`, `move_edge_boxes` (half-open edges) and
`move_boxes` (centers of the first and last pixel). Imports nothing of the other rooms but kinds and
errors.
"""

from __future__ import annotations

from data_pipelines.augment.layer import Augment, apply
from data_pipelines.augment.mixup import draw_pairs, mix
from data_pipelines.augment.parameters import draw
from data_pipelines.augment.presets import PRESETS, augmentation
from data_pipelines.augment.spatial import move_boxes, move_edge_boxes, move_points, warp_mask
from data_pipelines.augment.spec import AugmentSpec
from data_pipelines.augment.tf_data import augment_in_pipeline

__all__ = [
    "PRESETS",
    "Augment",
    "AugmentSpec",
    "apply",
    "augment_in_pipeline",
    "augmentation",
    "draw",
    "draw_pairs",
    "mix",
    "move_boxes",
    "move_edge_boxes",
    "move_points",
    "warp_mask",
]

"""Keras losses for `Model.compile` that leave out missing labels: of images, of pixels, and regions
to ignore among boxes.

Importing it loads TensorFlow and registers the losses, so that Keras opens models compiled with
them. May import data_pipelines.runtime, detection and errors.
"""

from medres.losses.boxes import DetectionLoss
from medres.losses.missing_labels import (
    MaskedBinaryCrossentropy,
    label_mask,
    require_image_weights,
)
from medres.losses.pixels import DiceCrossentropy, FocalCrossentropy, Tversky

__all__ = [
    "DetectionLoss",
    "DiceCrossentropy",
    "FocalCrossentropy",
    "MaskedBinaryCrossentropy",
    "Tversky",
    "label_mask",
    "require_image_weights",
]

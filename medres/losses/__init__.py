"""Keras losses for `Model.compile` that leave out missing labels: of images, and of pixels.

Importing it loads TensorFlow and registers the losses, so that Keras opens models compiled with
them. May import data_pipelines.runtime and errors.
"""

from medres.losses.missing_labels import (
    MaskedBinaryCrossentropy,
    label_mask,
    require_image_weights,
)
from medres.losses.pixels import DiceCrossentropy, FocalCrossentropy, Tversky

__all__ = [
    "DiceCrossentropy",
    "FocalCrossentropy",
    "MaskedBinaryCrossentropy",
    "Tversky",
    "label_mask",
    "require_image_weights",
]

"""Test-time augmentation within the saved model: the mean of the logits of an image and of four
shifted copies.

Since it is part of the saved model, calibration, thresholds and all exports apply to the mean. The
classifier is a single layer (a model within the model) that is called once per view, so its weights
exist once.
"""

from __future__ import annotations

import keras

from medres.backbones.build import functional

SHIFT = 1 / 32  # of the side, down or up and right or left


def with_views(core: keras.Model, views: int, fill: float) -> keras.Model:
    """A model with the mean logits of `views` views of an image.

    core: image -> logits.
    views: 1 returns `core` itself; 5 are the image and four copies that are shifted diagonally by
        1/32 of the side.
    fill: the value of pixels that are shifted in, in model units: -1024 HU (air), or 0. The slices
        of a volume are shifted within their planes.
    """
    if views == 1:
        return core
    image = keras.Input(core.inputs[0].shape[1:], name="image", dtype="float32")
    shifted = [_shifted(image, down, right, fill) for down in (-1, 1) for right in (-1, 1)]
    logits = keras.layers.Average(dtype="float32", name="views")(
        [core(view) for view in (image, *shifted)]
    )
    return functional(image, logits, f"{core.name}_views")


def core_of(model: keras.Model) -> keras.Model:
    """The classifier within a model with several views; any other model is returned unchanged."""
    return next((layer for layer in model.layers if isinstance(layer, keras.Model)), model)


def with_core(model: keras.Model, core: keras.Model) -> keras.Model:
    """A copy of a model with several views that has another classifier within."""
    inner = core_of(model)
    return keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            core if layer is inner else type(layer).from_config(layer.get_config())
        ),
    )


def _shifted(image: keras.KerasTensor, down: int, right: int, fill: float) -> keras.KerasTensor:
    """The image shifted by one step in each direction (1 or -1), by padding and cropping."""
    *planes, rows, columns, _ = image.shape[1:]
    padding = [(0, 0)] * len(planes) + [_padding(rows, down), _padding(columns, right)]
    cropping = [(after, before) for before, after in padding]
    name = f"{'down' if down > 0 else 'up'}_{'right' if right > 0 else 'left'}"
    rank = f"{len(padding)}D"
    pad = getattr(keras.layers, f"ZeroPadding{rank}")
    crop = getattr(keras.layers, f"Cropping{rank}")
    # Keras pads with zeros, so the fill value is moved to 0 and back.
    x = keras.layers.Rescaling(1.0, -fill, dtype="float32", name=f"{name}_from_empty")(image)
    x = pad(tuple(padding), dtype="float32", name=f"{name}_grown")(x)
    x = crop(tuple(cropping), dtype="float32", name=f"{name}_cut")(x)
    return keras.layers.Rescaling(1.0, fill, dtype="float32", name=f"{name}_to_empty")(x)


def _padding(size: int, direction: int) -> tuple[int, int]:
    """The padding (before, after) of an axis that shifts it."""
    step = max(1, round(size * SHIFT))
    return (step, 0) if direction > 0 else (0, step)

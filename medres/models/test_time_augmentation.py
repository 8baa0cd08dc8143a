"""Test-time augmentation inside the graph: the mean of the logits of an image and of four shifted
copies.

It is part of the saved model, so calibration, thresholds and every export are those of the mean.
The net's weights are there once: the net is one layer, a model within the model, that is called for
each view.
"""

from __future__ import annotations

import keras

from medres.backbones.build import functional

SHIFT = 1 / 32  # of the side, down or up and right or left


def with_views(core: keras.Model, views: int, empty: float) -> keras.Model:
    """`core` (image -> logits) where `views` is 1; where it is 5, the mean of its logits over the
    image and four diagonal shifts.

    empty: the value of what shifts in, in model units: air (-1024 HU), or 0. Slices of a volume are
        shifted within their planes.
    """
    if views == 1:
        return core
    image = keras.Input(core.inputs[0].shape[1:], name="image", dtype="float32")
    shifted = [_shifted(image, down, right, empty) for down in (-1, 1) for right in (-1, 1)]
    logits = keras.layers.Average(dtype="float32", name="views")(
        [core(view) for view in (image, *shifted)]
    )
    return functional(image, logits, f"{core.name}_views")


def core_of(model: keras.Model) -> keras.Model:
    """The net within a model of several views; any other model as it is."""
    return next((layer for layer in model.layers if isinstance(layer, keras.Model)), model)


def with_core(model: keras.Model, core: keras.Model) -> keras.Model:
    """A copy of a model of several views around another net."""
    inner = core_of(model)
    return keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            core if layer is inner else type(layer).from_config(layer.get_config())
        ),
    )


def _shifted(image: keras.KerasTensor, down: int, right: int, empty: float) -> keras.KerasTensor:
    *planes, rows, cols, _ = image.shape[1:]
    grown = [(0, 0)] * len(planes) + [_sides(rows, down), _sides(cols, right)]
    cut = [(after, before) for before, after in grown]
    name, kind = (
        f"{'down' if down > 0 else 'up'}_{'right' if right > 0 else 'left'}",
        f"{len(grown)}D",
    )
    x = keras.layers.Rescaling(1.0, -empty, dtype="float32", name=f"{name}_from_empty")(
        image
    )  # padding is of zeros
    x = getattr(keras.layers, f"ZeroPadding{kind}")(
        tuple(grown), dtype="float32", name=f"{name}_grown"
    )(x)
    x = getattr(keras.layers, f"Cropping{kind}")(tuple(cut), dtype="float32", name=f"{name}_cut")(x)
    return keras.layers.Rescaling(1.0, empty, dtype="float32", name=f"{name}_to_empty")(x)


def _sides(size: int, direction: int) -> tuple[int, int]:
    """What is added (before, after) an axis to shift it."""
    step = max(1, round(size * SHIFT))
    return (step, 0) if direction > 0 else (0, step)

"""Models of other people as one flat graph of layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import raises_code

from medres.backbones.inlining import flat_copy
from medres.errors import ModelError

L = keras.layers


def flat(model: keras.Model, prefix: str = "") -> keras.Model:
    image = keras.Input(model.input_shape[1:])
    return keras.Model(image, flat_copy(model, image, prefix))


def mixed_model() -> keras.Model:
    """An adapted Normalization, a Sequential within, and operations between tensors."""
    images = np.random.default_rng(0).normal(3, 2, (8, 8, 8, 2)).astype("float32")
    norm = L.Normalization(axis=-1)
    norm.adapt(images)
    image = keras.Input((8, 8, 2))
    x = norm(image)
    part = keras.Sequential([L.Conv2D(4, 3, padding="same"), L.LeakyReLU()], name="part")
    y = part(x)
    z = L.Conv2D(4, 1)(x)
    return keras.Model(image, keras.ops.maximum(y + z, y * z - z))


def test_a_flat_copy_has_layers_only_and_gives_the_same_outputs() -> None:
    model = mixed_model()
    copy = flat(model, "mine_")
    assert not any(isinstance(layer, keras.Model) for layer in copy.layers)
    assert len(copy.layers) == len(copy.operations)
    assert all(layer.name.startswith("mine_") for layer in copy.layers[1:])
    assert [v.name for v in copy.weights] == ["kernel", "bias"] * 2  # no count of images
    images = np.random.default_rng(1).normal(3, 2, (3, 8, 8, 2)).astype("float32")
    assert np.allclose(copy(images), model(images), atol=1e-6)
    copy.trainable_variables[0].assign(copy.trainable_variables[0] * 0)
    assert not np.allclose(copy(images), model(images))  # the model keeps its weights


def test_layers_of_one_name_in_two_parts_are_told_apart() -> None:
    image = keras.Input((8, 8, 1))
    first, second = (
        keras.Sequential([L.Conv2D(1, 3, name="conv")], name=name) for name in ("a", "b")
    )
    copy = flat(keras.Model(image, second(first(image))))
    assert [layer.name for layer in copy.layers[1:]] == ["conv", "conv_1"]


@pytest.mark.parametrize("code", ["unsupported_operation", "shared_layer", "nested_model"])
def test_what_cannot_be_flattened_is_named(code: str) -> None:
    image = keras.Input((8, 8, 1))
    twice = L.Conv2D(1, 3, padding="same", name="culprit")
    within = keras.Model(image, twice(image), name="culprit")
    output = {
        "unsupported_operation": lambda: keras.ops.add(image, 1.0),
        "shared_layer": lambda: twice(twice(image)),
        "nested_model": lambda: within(image),
    }[code]()
    mention = "add" if code == "unsupported_operation" else "culprit"
    with raises_code(ModelError, code, mention):
        flat(keras.Model(image, output))

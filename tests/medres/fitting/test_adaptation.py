from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import raises_code
from keras import layers

from data_pipelines.pixels.ct_windows import WINDOWS
from medres.errors import ModelError, TrainingError
from medres.fitting.adaptation import adapt

IMAGES = np.random.default_rng(0).random((2, 16, 16, 1)).astype(np.float32)
IMAGENET = {"mean": [0.485, 0.456, 0.406], "variance": [0.229**2, 0.224**2, 0.225**2]}


def identity(channels: int) -> keras.Model:
    """A backbone whose feature map is its input."""
    image = keras.Input((16, 16, channels))
    return keras.Model(image, layers.Activation("linear", name="seen")(image))


def seen(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    """What the backbone receives."""
    return np.asarray(keras.Model(model.input, model.get_layer("seen").output)(images))


@pytest.mark.parametrize("scaling", [(-1.0, 1.0), (0.0, 1.0), (0, 255)])
def test_one_channel_becomes_three_in_the_range_of_the_backbone(scaling: tuple) -> None:
    low, high = scaling
    model = adapt(identity(3), "xray-16", ["nodule"], scaling=scaling)
    expected = np.repeat(low + (high - low) * IMAGES, 3, axis=-1)
    np.testing.assert_allclose(seen(model), expected, rtol=1e-5, atol=1e-5)
    assert model.output_shape == (None, 1)
    assert [layer.name for layer in model.layers][-2:] == ["pooled", "logits"]


def test_scalings_are_those_of_keras_applications() -> None:
    colored = np.repeat(IMAGES, 3, axis=-1)
    torch = keras.applications.imagenet_utils.preprocess_input(colored * 255, mode="torch")
    caffe = keras.applications.imagenet_utils.preprocess_input(colored * 255, mode="caffe")
    for name, expected in (("imagenet", torch), ("caffe", caffe)):
        model = adapt(identity(3), "xray-16", 1, scaling=name)
        np.testing.assert_allclose(seen(model), expected, rtol=1e-4, atol=1e-4)


def test_names_of_a_backbone_do_not_collide_with_the_added_layers() -> None:
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1.0, name="scale")(image)
    backbone = keras.Model(image, layers.Activation("linear", name="input_range")(x))
    model = adapt(backbone, "xray-16", 1, scaling=(0, 255))
    assert np.asarray(model(IMAGES)).shape == (2, 1)


def test_windows_of_ct_are_the_channels() -> None:
    hounsfield = IMAGES * 2000 - 1000
    model = adapt(identity(3), "ct-16", ["a", "b", "c"])
    expected = [
        2 * np.clip((hounsfield - center) / width + 0.5, 0, 1) - 1
        for center, width in (WINDOWS[name] for name in ("lung", "mediastinum", "bone"))
    ]
    np.testing.assert_allclose(seen(model, hounsfield), np.concatenate(expected, -1), atol=1e-4)
    assert model.output_shape == (None, 3)
    one = adapt(identity(3), "ct-16", 1, windows=[(40, 400)])
    assert seen(one, hounsfield).shape == (2, 16, 16, 3)


def test_weights_and_frozen_layers_are_those_of_the_backbone() -> None:
    image = keras.Input((16, 16, 1))
    backbone = keras.Model(image, layers.Conv2D(2, 3, name="conv")(image))
    backbone.trainable = False
    model = adapt(backbone, "xray-16", 1)
    for copy, original in zip(
        model.get_layer("conv").get_weights(), backbone.get_layer("conv").get_weights(), strict=True
    ):
        assert np.array_equal(copy, original)
    assert {v.path.split("/")[0] for v in model.trainable_variables} == {"logits"}


def test_what_does_not_fit_is_refused() -> None:
    for scaling in ("vgg", (1, 0), (0, np.inf), 3):
        with raises_code(ModelError, "bad_scaling"):
            adapt(identity(3), "xray-16", 1, scaling=scaling)  # type: ignore[arg-type]
    with raises_code(ModelError, "bad_scaling", "imagenet"):
        adapt(identity(1), "xray-16", 1, scaling="imagenet")
    with raises_code(TrainingError, "backbone_shape"):
        adapt(identity(2), "ct-16", 1)
    with raises_code(ModelError, "bad_classes"):
        adapt(identity(3), "xray-16", ["a", "a"])

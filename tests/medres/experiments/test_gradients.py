from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

from medres.errors import ModelError
from medres.experiments.gradients import gradient_flow
from medres.models.classification import classifier

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 12, 12, 1)).astype("float32")
LABELS = RNG.integers(0, 3, 6)


def mean_output(labels: object, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(outputs, axis=-1)


def linear_net(*, tap: bool) -> keras.Model:
    """x + W2 x twice over, without anything that bends: the shares follow by hand."""
    image = keras.Input((2,), name="image")
    x = image
    for i, scale in enumerate((3.0, 0.5)):
        weights = keras.initializers.Constant(np.diag([scale, scale]))
        branch = keras.layers.Dense(
            2, use_bias=False, kernel_initializer=weights, name=f"branch{i}"
        )(x)
        x = keras.layers.Add(name=f"sum{i}")([branch, x])
    return keras.Model(image, keras.layers.Concatenate(name="out")([x, image]) if tap else x)


@pytest.mark.parametrize("tap", [False, True])
def test_shares_and_norms_worked_by_hand(tap: bool) -> None:
    flow = gradient_flow(
        linear_net(tap=tap), np.ones((4, 2), "float32"), np.zeros(4), loss=mean_output
    )
    blocks = flow.blocks.set_index("block")
    assert blocks["shortcut_share"].to_list() == pytest.approx([1 / 4, 1 / 1.5])
    width = 4 if tap else 2  # each of the two outputs has the gradient 1 / width
    assert blocks.loc["sum1", "gradient_out"] == pytest.approx(np.sqrt(2) / width)
    assert blocks.loc["sum1", "gradient_in"] == pytest.approx(1.5 * np.sqrt(2) / width)
    own = 1.0 if tap else 0.0  # of the image itself, where it is an output too
    assert blocks.loc["sum0", "gradient_in"] == pytest.approx((6.0 + own) * np.sqrt(2) / width)


def test_the_norm_at_a_kernel_is_that_of_finite_differences() -> None:
    keras.utils.set_random_seed(1)
    model = classifier(8, (12, 12, 1), 3, stem="cifar", width=4, shortcut="A", norm="group")
    layers = gradient_flow(model, IMAGES, LABELS).layers.set_index("layer")
    assert layers.index[0] == "stem_conv"
    assert layers["depth"].to_list() == list(range(1, 9))

    pooled = np.asarray(
        keras.Model(model.input, model.get_layer("pooled").output)(IMAGES), "float64"
    )

    def loss(weights: np.ndarray) -> float:
        logits = pooled @ weights
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), LABELS]).mean())

    start, squares = np.array(model.get_layer("logits").kernel, "float64"), 0.0
    for place in np.ndindex(*start.shape):
        step = np.zeros_like(start)
        step[place] = 1e-5
        squares += ((loss(start + step) - loss(start - step)) / 2e-5) ** 2
    assert layers.loc["logits", "gradient_norm"] == pytest.approx(np.sqrt(squares), rel=1e-4)
    assert layers.loc["logits", "weight_norm"] == pytest.approx(np.linalg.norm(start), rel=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    model = classifier(8, (12, 12, 1), 1, stem="cifar", width=4)
    before = [np.array(w) for w in model.weights]
    gradient_flow(model, IMAGES, LABELS > 0)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))


def test_plain_nets_have_layers_and_no_blocks() -> None:
    flow = gradient_flow(
        classifier(14, (12, 12, 1), 3, stem="cifar", width=4, residual=False), IMAGES, LABELS
    )
    assert len(flow.blocks) == 0
    assert list(flow.blocks.columns) == [
        "block",
        "depth",
        "gradient_out",
        "gradient_in",
        "shortcut_share",
    ]
    assert len(flow.layers) == 14
    assert (flow.layers["gradient_norm"] > 0).all()


def test_a_plain_nets_gradient_grows_towards_its_input_faster_than_a_residual_ones() -> None:
    ratio = {}
    for residual in (True, False):
        keras.utils.set_random_seed(0)
        model = classifier(
            44, (12, 12, 1), 3, stem="cifar", width=8, shortcut="A", residual=residual
        )
        norms = gradient_flow(model, IMAGES, LABELS).layers["gradient_norm"].to_numpy()
        ratio[residual] = norms[1] / norms[-2]
    assert ratio[False] > 5 * ratio[True]


def test_pictures_and_labels_must_pair() -> None:
    model = classifier(8, (12, 12, 1), 3, stem="cifar", width=4)
    with raises_code(ModelError, "shapes", "6 images and 5 labels"):
        gradient_flow(model, IMAGES, LABELS[:5])

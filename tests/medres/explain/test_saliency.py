from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import raises_code

from medres import classifier
from medres.errors import ModelError
from medres.explain import (
    METHODS,
    Explainer,
    deletion_insertion,
    rank_correlation_with_shuffled_weights,
    saliency_map,
)


def linear(
    shape: tuple[int, ...], weights: list[list[float]], activation: str | None = "sigmoid"
) -> keras.Model:
    """Channel k of the feature map is the image where it is above k / 10; output j is the mean of
    the channels times weights[j].
    """
    rank, (outputs, channels) = len(shape) - 1, np.shape(weights)
    image = keras.Input(shape)
    convolution = getattr(keras.layers, f"Conv{rank}D")(channels, 1, name="conv")
    x = keras.layers.ReLU()(convolution(image))
    x = getattr(keras.layers, f"GlobalAveragePooling{rank}D")()(x)
    head = keras.layers.Dense(outputs, name="head")
    x = head(x)
    if activation:
        x = keras.layers.Activation(activation)(x)
    model = keras.Model(image, x)
    convolution.set_weights([np.ones((*[1] * rank, 1, channels)), -np.arange(channels) / 10])
    head.set_weights([np.transpose(weights), np.full(outputs, 0.25)])
    return model


SHAPES = [(16, 12, 1), (8, 10, 6, 1)]


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """Faint noise, and one bright box in the upper corner."""
    image = 0.1 * np.random.default_rng(0).random(shape).astype(np.float32)
    image[(slice(0, 4),) * (len(shape) - 1)] = 0.9
    return image


@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_linear_model_each_method_is_what_its_formula_says(shape: tuple[int, ...]) -> None:
    image, weights = picture(shape), [[2.0, -0.5]]
    model = linear(shape, weights)
    places = image[..., 0].size
    maps = np.maximum(image - np.array([0, 0.1]), 0).astype(np.float64)

    gradient = np.array(weights[0]) / places
    want = np.maximum(maps @ gradient, 0)
    assert saliency_map(model, image, method="gradcam") == pytest.approx(want, abs=1e-6)

    alpha = gradient**2 / (
        2 * gradient**2 + maps.sum(axis=tuple(range(len(shape) - 1))) * gradient**3
    )
    want = np.maximum(maps @ (alpha * np.maximum(gradient, 0) * places), 0)
    assert saliency_map(model, image, method="gradcam++") == pytest.approx(want, rel=1e-4, abs=1e-7)

    exact = maps @ gradient  # every feature grows from 0 along a straight way
    found = saliency_map(model, image, method="integrated_gradients")
    assert found == pytest.approx(exact, abs=3e-4)
    scores = Explainer(model).scores(np.stack([image, np.zeros_like(image)]), 0)
    assert found.sum() == pytest.approx(scores[0] - scores[1], abs=1e-2)

    found = saliency_map(model, image, method="occlusion")
    box = (slice(0, 4),) * (len(shape) - 1)
    rest = np.ones(image.shape[:-1], bool)
    rest[(slice(0, 6),) * (len(shape) - 1)] = False
    assert found[box].min() > 5 * found[rest].max()


def test_occlusion_of_single_pixels_is_the_fall_of_the_score() -> None:
    shape = (6, 5, 1)
    image = picture(shape)
    model = linear(shape, [[1.5]])
    found = saliency_map(model, image, method="occlusion", baseline=0.0)
    assert found == pytest.approx(1.5 * image[..., 0] / 30, abs=1e-6)


def test_each_output_of_a_multilabel_model_has_a_map_of_its_own() -> None:
    image = picture((16, 12, 1))
    model = linear((16, 12, 1), [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    first, second, third = (saliency_map(model, image, output) for output in range(3))
    assert first.max() > 0
    assert (second == 0).all()
    assert third == pytest.approx(np.maximum(image[..., 0] - 0.1, 0) / first.size, abs=1e-6)


def test_a_saturated_sigmoid_or_softmax_hides_nothing() -> None:
    image = picture((16, 12, 1))
    plain = saliency_map(linear((16, 12, 1), [[900.0]], None), image)
    assert saliency_map(linear((16, 12, 1), [[900.0]], "sigmoid"), image) == pytest.approx(plain)
    both = [[900.0, 0.0], [0.0, 300.0]]
    plain = saliency_map(linear((16, 12, 1), both, None), image, 1)
    assert plain.max() > 0
    assert saliency_map(linear((16, 12, 1), both, "softmax"), image, 1) == pytest.approx(plain)


@pytest.mark.parametrize("method", [*METHODS])
def test_nested_models_give_the_map_of_the_flat_one(method: str) -> None:
    flat = linear((16, 12, 1), [[2.0, -0.5]])
    trunk = keras.Model(flat.input, flat.layers[2].output, name="trunk")
    image = keras.Input((16, 12, 1))
    x = keras.layers.Rescaling(1.0)(image)
    x = keras.layers.GlobalAveragePooling2D()(trunk(x))
    head = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    nested = keras.Model(image, head(x))
    head.layers[-1].set_weights(flat.get_layer("head").get_weights())
    given = picture((16, 12, 1))
    assert saliency_map(nested, given, method=method) == pytest.approx(
        saliency_map(flat, given, method=method), abs=1e-6
    )


def test_of_several_branches_the_mean_is_shown() -> None:
    image, given = keras.Input((16, 12, 1)), picture((16, 12, 1))
    parts = [linear((16, 12, 1), [[w]], None) for w in (1.0, 3.0)]
    both = keras.Model(image, keras.layers.Average()([part(image) for part in parts]))
    want = np.mean([saliency_map(part, given) / 2 for part in parts], axis=0)
    assert saliency_map(both, given) == pytest.approx(want, abs=1e-6)


def test_a_residual_network_is_explained_and_shuffled_weights_change_the_map() -> None:
    keras.utils.set_random_seed(0)
    model = classifier("resnet10", (32, 32, 1), 1, stem="small", width=8, activation="sigmoid")
    image = np.random.default_rng(0).random((32, 32, 1)).astype(np.float32)
    assert saliency_map(model, image, method="gradcam++").max() > 0
    assert (
        abs(rank_correlation_with_shuffled_weights(model, image, method="integrated_gradients"))
        < 0.3
    )
    linear_model = linear((32, 32, 1), [[1.0]])
    assert rank_correlation_with_shuffled_weights(
        linear_model, image, method="gradcam"
    ) == pytest.approx(1)


def test_deleting_the_salient_places_first_lowers_the_output_soonest() -> None:
    image = picture((16, 12, 1))
    model = linear((16, 12, 1), [[30.0]])
    values = saliency_map(model, image)
    good, bad = (deletion_insertion(model, image, v) for v in (values, -values))
    assert good.deletion_area < bad.deletion_area
    assert good.insertion_area > bad.insertion_area
    whole, empty = model.predict(np.stack([image, np.zeros_like(image)]), verbose=0)[:, 0]
    assert (good.deletion[0], good.deletion[-1]) == pytest.approx((whole, empty))
    assert (good.insertion[0], good.insertion[-1]) == pytest.approx((empty, whole))


def test_what_cannot_be_explained_is_an_error() -> None:
    model, image = linear((16, 12, 1), [[1.0]]), picture((16, 12, 1))
    with raises_code(ModelError, "unknown_method", "magic"):
        saliency_map(model, image, method="magic")
    with raises_code(ModelError, "image_shape", "(8, 12, 1)", "(16, 12, 1)"):
        saliency_map(model, image[:8])
    with raises_code(ModelError, "non_finite_image"):
        saliency_map(model, image * np.nan)
    vector = keras.Input((3,))
    with raises_code(ModelError, "no_feature_map"):
        saliency_map(keras.Model(vector, keras.layers.Dense(1)(vector)), np.zeros(3, np.float32))

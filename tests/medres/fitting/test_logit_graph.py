"""From models as Keras people build them to float32 logits."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from helpers import raises_code
from keras import layers

import medres
from data_pipelines.preprocessing.spec import spec_from
from medres.errors import ModelError
from medres.fitting.logit_graph import logit_graph
from medres.tasks import task_named

SPEC = spec_from("xray-16")
IMAGES = np.random.default_rng(0).random((3, 16, 16, 1)).astype(np.float32)


def base(shape: tuple[int | None, ...] = (16, 16, 1)) -> tuple:
    image = keras.Input(shape)
    x = layers.Conv2D(4, 3, activation="relu")(image)
    return image, layers.GlobalAveragePooling2D()(x)


def ending(*ends: Callable) -> keras.Model:
    image, x = base()
    for end in ends:
        x = end(x)
    return keras.Model(image, x)


def graph(model: keras.Model, task: str = "binary", outputs: int = 1, **options) -> keras.Model:
    return logit_graph(model, SPEC, task_named(task), outputs, **options)


def expit(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


SIGMOID_ENDS = {
    "dense": [layers.Dense(1, "sigmoid")],
    "activation": [layers.Dense(1), layers.Activation("sigmoid", dtype="float32")],
    "operation": [layers.Dense(1), keras.ops.sigmoid],
    "sequential head": [keras.Sequential([layers.Dropout(0.5), layers.Dense(1, "sigmoid")])],
}


@pytest.mark.parametrize("ends", SIGMOID_ENDS.values(), ids=SIGMOID_ENDS)
def test_a_final_sigmoid_is_removed(ends: list) -> None:
    model = ending(*ends)
    logits = graph(model)
    np.testing.assert_allclose(expit(logits(IMAGES)), model(IMAGES), atol=1e-6)
    assert logits.get_layer("logits").output is logits.output
    assert isinstance(logits.get_layer("logits"), layers.Dense)


@pytest.mark.parametrize(
    "ends", [[layers.Dense(3, "softmax")], [layers.Dense(3), layers.Softmax()]]
)
def test_a_final_softmax_is_removed(ends: list) -> None:
    model = ending(*ends)
    z = np.asarray(graph(model, "multiclass", 3)(IMAGES))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, model(IMAGES), atol=1e-6)
    assert np.ptp(z.sum(axis=1)) > 1e-4  # no probabilities


@pytest.mark.parametrize("ends", [[layers.Dense(1)], [layers.Dense(1), layers.Dropout(0.1)]])
def test_a_linear_end_is_taken_as_logits(ends: list) -> None:
    model = ending(*ends)
    assert np.array_equal(graph(model)(IMAGES), model(IMAGES))


def test_an_end_that_could_be_anything_needs_a_word() -> None:
    model = ending(layers.Dense(1, "relu"))
    with raises_code(ModelError, "unclear_outputs", "relu"):
        graph(model)
    with raises_code(ModelError, "unclear_outputs", "relu"):
        graph(model, given="probabilities")
    assert np.array_equal(graph(model, given="logits")(IMAGES), model(IMAGES))
    for end in (layers.ReLU(), layers.BatchNormalization()):
        with raises_code(ModelError, "unclear_outputs", type(end).__name__):
            graph(ending(layers.Dense(1), end))
    with raises_code(ModelError, "unclear_outputs", "maybe"):
        graph(model, given="maybe")


def test_a_sigmoid_before_a_reshape_is_found_with_a_word() -> None:
    image = keras.Input((16, 16, 1))
    x = layers.Conv2D(1, 16, activation="sigmoid")(image)
    model = keras.Model(image, layers.Flatten()(x))
    with raises_code(ModelError, "unclear_outputs", "sigmoid"):
        graph(model)
    logits = graph(model, given="probabilities")
    np.testing.assert_allclose(expit(logits(IMAGES)), model(IMAGES), atol=1e-6)
    assert logits.layers[-1].name == "logits"


def test_the_mean_of_two_sigmoids_is_not_taken_as_logits() -> None:
    image, x = base()
    mean = layers.Average()([layers.Dense(1, "sigmoid")(x), layers.Dense(1, "sigmoid")(x)])
    for given in (None, "probabilities"):
        with raises_code(ModelError, "unclear_outputs", "Average"):
            graph(keras.Model(image, mean), given=given)


def test_the_transfer_learning_idiom() -> None:
    """A nested, frozen backbone in inference mode, augmentation inside, mixed precision."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inner = keras.Input((16, 16, 1))
        x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inner))
        backbone = keras.Model(inner, layers.Activation("relu", name="logits")(x))
        backbone.trainable = False
        image = keras.Input((16, 16, 1))
        x = layers.Rescaling(2.0, -1.0)(layers.RandomFlip()(image))
        x = layers.GlobalAveragePooling2D(name="pooled")(backbone(x, training=False))
        model = keras.Model(image, layers.Dense(1, "sigmoid", dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy("float32")
    logits = graph(model)
    assert {layer.compute_dtype for layer in logits.layers} == {"float32"}
    assert [type(layer).__name__ for layer in logits.layers if "Random" in layer.name] == []
    assert [layer.name for layer in logits.layers][-3:] == ["logits_layer", "pooled", "logits"]
    np.testing.assert_allclose(expit(logits(IMAGES)), model(IMAGES), atol=0.02)


def test_models_of_medres_keep_their_graph() -> None:
    model = medres.classifier(10, (16, 16, 1), 1, width=4, stem="small")
    logits = graph(model)
    assert [layer.name for layer in logits.layers] == [layer.name for layer in model.layers]
    assert np.array_equal(logits(IMAGES), model(IMAGES))


def test_a_fused_training_copy_gives_the_graph_of_its_model() -> None:
    model = medres.classifier(10, (16, 16, 1), 1, width=4, stem="small")
    fast = medres.backbones.fused_training_copy(model)
    fast.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    fast.train_on_batch(IMAGES, np.ones((len(IMAGES), 1)))
    logits = graph(fast)
    kinds = [(type(layer), layer.name) for layer in logits.layers]
    assert kinds == [(type(layer), layer.name) for layer in model.layers]
    assert np.array_equal(logits(IMAGES), model(IMAGES))


def test_a_model_for_images_of_any_size_and_a_sequential_one() -> None:
    image, x = base((None, None, 1))
    model = keras.Model(image, layers.Dense(1)(x))
    assert graph(model).input_shape == (None, 16, 16, 1)
    flat = keras.Sequential([layers.Flatten(), layers.Dense(1, "sigmoid")])
    with raises_code(ModelError, "not_built", flat.name):
        graph(flat)
    flat(IMAGES)
    np.testing.assert_allclose(expit(graph(flat)(IMAGES)), flat(IMAGES), atol=1e-6)


def test_a_subclass_with_a_step_of_its_own_is_still_a_graph() -> None:
    class Distilled(keras.Model):
        def train_step(self, data):
            return {}

    image, x = base()
    assert graph(Distilled(image, layers.Dense(1)(x))).output_shape == (None, 1)


class Subclassed(keras.Model):
    def call(self, image):
        return image


class Overridden(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return inputs * 0


@keras.saving.register_keras_serializable(package="tests")
class Custom(layers.Dense):
    pass


def _nan() -> keras.Model:
    model = ending(layers.Dense(1, name="broken"))
    kernel, bias = model.get_layer("broken").get_weights()
    model.get_layer("broken").set_weights([kernel * np.nan, bias])
    return model


def _outputs() -> keras.Model:
    image, x = base()
    return keras.Model(image, [layers.Dense(1)(x), layers.Dense(1)(x)])


def _inputs() -> keras.Model:
    image, x = base()
    age = keras.Input((4,), name="age")
    return keras.Model([image, age], layers.Dense(1)(layers.Add()([x, age])))


def _shaped(*shape: int) -> keras.Model:
    image = keras.Input(shape)
    return keras.Model(image, layers.Dense(1)(layers.Flatten()(image)))


REFUSED: dict[str, tuple[Callable[[], object], str, str]] = {
    "no model": (lambda: "model.keras", "not_a_model", "str"),
    "subclassed": (Subclassed, "subclassed_model", "Subclassed"),
    "overridden": (lambda: Overridden([keras.Input((16, 16, 1))]), "subclassed_model", "Overrid"),
    "two outputs": (_outputs, "several_outputs", "2 outputs"),
    "two inputs": (_inputs, "several_inputs", "age"),
    "custom layer": (lambda: ending(Custom(1, name="mine")), "custom_layer", "mine"),
    "lambda": (
        lambda: ending(layers.Dense(1), layers.Lambda(lambda x: x, name="fancy")),
        *("custom_layer", "fancy"),
    ),
    "NaN": (_nan, "weights_not_finite", "broken"),
    "another size": (lambda: _shaped(32, 32, 1), "input_mismatch", "(None, 32, 32, 1)"),
    "color": (lambda: _shaped(16, 16, 3), "input_mismatch", "(None, 16, 16, 1)"),
    "a vector": (lambda: _shaped(16), "input_mismatch", "xray-16"),
    "integers": (
        lambda: keras.Model(i := keras.Input((16, 16, 1), dtype="uint8"), layers.Flatten()(i)),
        *("input_mismatch", "uint8"),
    ),
    "two classes": (lambda: ending(layers.Dense(2)), "wrong_outputs", "(None, 2)"),
    "softmax": (lambda: ending(layers.Dense(1, "softmax")), "wrong_activation", "softmax"),
}


@pytest.mark.parametrize(("make", "code", "mention"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_model_file_is_refused(
    make: Callable[[], object], code: str, mention: str
) -> None:
    with raises_code(ModelError, code, mention):
        graph(make())  # type: ignore[arg-type]

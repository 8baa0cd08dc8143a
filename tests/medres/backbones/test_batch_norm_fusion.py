from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

from medres.backbones.batch_norm_fusion import (
    FusedBatchNormalization,
    fold_batch_norm,
    fused_training_copy,
)
from medres.backbones.build import pyramid, resnet
from medres.backbones.model_summary import summary
from medres.errors import ModelError
from medres.models.classification import classifier

RANDOM = np.random.default_rng(0)


@pytest.fixture
def bfloat16() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def lived_in(model: keras.Model, seed: int = 0) -> keras.Model:
    """With normalisations as they are after training: no gain, offset, mean or variance is 0 or
    1.
    """
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                positive = variable.name in ("gamma", "moving_variance")
                variable.assign(
                    random.uniform(0.5, 1.5, variable.shape)
                    if positive
                    else random.normal(0, 0.2, variable.shape)
                )
    return model


def images(model: keras.Model, count: int) -> np.ndarray:
    return RANDOM.random((count, *model.inputs[0].shape[1:])).astype("float32")


def norm_of_one(x: np.ndarray) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """A built-in layer and the fused one of its variables, each on variables of its own with the
    same values.
    """
    pair = []
    for _ in range(2):
        image = keras.Input(x.shape[1:])
        norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
        pair.append((keras.Model(image, norm(image)), norm))
        lived_in(pair[-1][0])
    return pair[0][1], fused_training_copy(pair[1][0]).layers[-1]


@pytest.mark.parametrize("shape", [(5, 6, 7, 3), (3, 4, 3, 2, 5), (3, 2, 1, 3), (9, 4)])
@pytest.mark.parametrize("jit", [False, True])
def test_one_layer_is_the_formula_in_numpy(shape: tuple, jit: bool) -> None:
    """Outputs, moving statistics (Keras' variance, which divides by n) and the gradient by finite
    differences in float64.
    """
    random = np.random.default_rng(1)
    x = random.normal(1.0, 2.0, shape).astype("float32")
    _, layer = norm_of_one(x)
    held = {v.name: np.array(v, "float64") for v in layer.weights}
    upstream = random.normal(size=shape)

    def formula(x: np.ndarray) -> np.ndarray:
        axes = tuple(range(x.ndim - 1))
        return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) * held["gamma"] + held["beta"]

    @tf.function(jit_compile=jit)
    def run(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x, output_gradients=tf.constant(upstream, tf.float32))

    y, gradient = run(tf.constant(x))
    wide, axes = x.astype("float64"), tuple(range(x.ndim - 1))
    np.testing.assert_allclose(y, formula(wide), atol=1e-4)
    np.testing.assert_allclose(
        layer.moving_mean, 0.9 * held["moving_mean"] + 0.1 * wide.mean(axes), atol=1e-5
    )
    np.testing.assert_allclose(
        layer.moving_variance, 0.9 * held["moving_variance"] + 0.1 * wide.var(axes), atol=1e-5
    )
    for place in list(np.ndindex(*shape))[:: max(1, x.size // 7)]:
        step = np.zeros(shape)
        step[place] = 1e-6
        slope = ((formula(wide + step) - formula(wide - step)) * upstream).sum() / 2e-6
        assert float(gradient[place]) == pytest.approx(slope, abs=2e-4)


NETS: list[tuple[tuple, dict[str, Any]]] = [
    ((8, (12, 12, 1), 3), {"stem": "cifar", "width": 4}),
    ((10, (32, 32, 2), 1), {"width": 4, "version": "d", "shortcut": "C", "squeeze_excite": True}),
    ((11, (9, 10, 1), 3), {"stem": "cifar", "width": 4, "version": "2", "block": "bottleneck"}),
    ((10, (16, 16, 16, 1), 1), {"stem": "small", "width": 4, "conv_bias": True}),
]


@pytest.mark.parametrize(
    ("arguments", "options", "jit"),
    [
        (*NETS[0], False),
        *(pytest.param(*net, False, marks=pytest.mark.long) for net in NETS[1:]),
        pytest.param(*NETS[0], True, marks=pytest.mark.long),  # XLA compiles both nets
    ],
)
def test_training_the_twin_is_training_the_model(
    arguments: tuple, options: dict, jit: bool
) -> None:
    """Two steps of SGD by either way lead to the same weights and the same moving statistics."""
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        models.append(lived_in(classifier(*arguments, **options)))
    x = images(models[0], 6)
    y = RANDOM.normal(size=(6, models[0].output.shape[-1])).astype("float32")
    for net in (models[0], fused_training_copy(models[1])):
        net.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit)
        for _ in range(2):
            net.train_on_batch(x, y)
    start = lived_in(classifier(*arguments, **options)).get_weights()
    moved = 0.0
    for one, other, old in zip(
        models[0].get_weights(), models[1].get_weights(), start, strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=2e-5)
        moved = max(moved, np.abs(one - old).max())
    assert moved > 0.01


def test_the_twin_holds_the_models_variables_in_its_order_and_computes_with_the_kernel() -> None:
    model = classifier(10, (32, 32, 1), 1, width=4)
    twin = fused_training_copy(model)
    assert len(model.weights) == len(twin.weights) > 0
    assert all(a is b for a, b in zip(model.weights, twin.weights, strict=True))
    assert all(
        a is b for a, b in zip(model.trainable_variables, twin.trainable_variables, strict=True)
    )
    assert [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]
    norms = [layer for layer in twin.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {type(layer) for layer in norms} == {FusedBatchNormalization}
    assert summary(twin) == summary(model)
    graph = (
        tf.function(lambda x: twin(x, training=True))
        .get_concrete_function(tf.TensorSpec((4, 32, 32, 1)))
        .graph
    )
    kernels = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert len(kernels) == len(norms) == 12


@pytest.mark.long  # a fresh TensorFlow; by default its weights are those of the model (above)
def test_what_the_twin_learned_is_in_an_artefact_that_plain_keras_opens(tmp_path: Path) -> None:
    model = classifier(10, (32, 32, 1), 1, width=4)
    twin = fused_training_copy(model)
    twin.compile("sgd", "mse")
    x = images(model, 4)
    for _ in range(3):
        twin.train_on_batch(x, np.ones((4, 1)))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, keras, numpy as np; m = keras.saving.load_model(sys.argv[1], compile=False); "
        "np.save(sys.argv[3], m.predict(np.load(sys.argv[2]), verbose=0)); sys.exit('medres' in "
        "sys.modules)"
    )
    paths = [str(tmp_path / name) for name in ("model.keras", "x.npy", "y.npy")]
    assert subprocess.run([sys.executable, "-c", code, *paths], cwd=tmp_path).returncode == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), twin.predict(x, verbose=0), atol=1e-5)


def test_the_twin_itself_is_not_saved(tmp_path: Path) -> None:
    twin = fused_training_copy(classifier(8, (12, 12, 1), 1, stem="cifar", width=4))
    with raises_code(ModelError, "training_copy"):
        twin.save(tmp_path / "twin.keras")


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("jit", [False, True])
def test_half_precision_keeps_statistics_in_full(jit: bool) -> None:
    x = RANDOM.normal(3.0, 2.0, (8, 6, 6, 3)).astype("float32")
    built_in, fused = norm_of_one(x)
    half = tf.cast(x, tf.bfloat16)
    one, other = (
        built_in(half, training=True),
        tf.function(fused, jit_compile=jit)(half, training=True),
    )
    assert other.dtype == tf.bfloat16
    np.testing.assert_allclose(
        tf.cast(other, tf.float32), tf.cast(one, tf.float32), rtol=2**-7, atol=2**-8
    )
    assert fused.moving_variance.dtype == "float32"
    for a, b in zip(built_in.weights, fused.weights, strict=True):
        np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("bfloat16")
def test_half_precision_trains() -> None:
    twin = fused_training_copy(classifier(8, (12, 12, 1), 1, stem="cifar", width=8))
    x = images(twin, 16)
    y = (x.mean(axis=(1, 2, 3)) > 0.5).astype("float32")[:, None]
    twin.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    losses = [float(twin.train_on_batch(x, y)) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("where", ["model", "twin"])
def test_a_frozen_normalisation_uses_and_keeps_its_moving_statistics(where: str) -> None:
    model = lived_in(resnet(8, (12, 12, 1), stem="cifar", width=4))
    twin = fused_training_copy(model)
    for layer in {"model": model, "twin": twin}[where].layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    assert all("gamma" not in v.name for v in twin.trainable_variables)
    before = [np.array(v) for v in model.non_trainable_variables]
    x = images(model, 4)
    np.testing.assert_allclose(twin(x, training=True), model(x, training=False), atol=1e-4)
    for old, new in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))


def test_what_the_kernel_cannot_compute_stays_the_models_own_layer() -> None:
    for model in (
        resnet(8, (12, 12, 1), stem="cifar", width=4, norm="sync"),
        resnet(8, (12, 12, 1), stem="cifar", width=4, norm="group"),
        keras.Sequential([keras.Input((4, 4, 2)), keras.layers.BatchNormalization(axis=1)]),
        keras.Sequential([keras.Input((4, 4, 2)), keras.layers.BatchNormalization(center=False)]),
        keras.Sequential(
            [keras.Input((4, 4, 2)), keras.layers.BatchNormalization(dtype="float64")]
        ),
    ):
        twin = fused_training_copy(model)
        assert all(
            a is b for a, b in zip(model.layers, twin.layers[-len(model.layers) :], strict=True)
        )


@pytest.mark.parametrize(("arguments", "options"), NETS)
def test_folding_leaves_the_outputs_and_no_normalisation_behind_a_convolution(
    arguments: tuple, options: dict
) -> None:
    model = lived_in(classifier(*arguments, **options))
    fold = fold_batch_norm(model)
    x = images(model, 3)
    np.testing.assert_allclose(
        fold.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5
    )
    left = [
        layer.name for layer in fold.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before_the_sum = [f"stage{stage}_block1_norm0" for stage in (2, 3)]
    assert left == ([*before_the_sum, "last_norm"] if options.get("version") == "2" else [])
    assert fold.get_layer("stage3").output.shape == model.get_layer("stage3").output.shape


def test_a_folded_copy_is_saved_as_built_in_layers_and_follows_no_later_training(
    tmp_path: Path,
) -> None:
    model = lived_in(classifier(8, (12, 12, 1), 1, stem="cifar", width=4))
    fold, x = fold_batch_norm(model), images(model, 3)
    fold.save(tmp_path / "folded.keras")
    reread = keras.saving.load_model(tmp_path / "folded.keras", compile=False)
    np.testing.assert_array_equal(reread.predict(x, verbose=0), fold.predict(x, verbose=0))
    before = fold.predict(x, verbose=0)
    model.set_weights([2 * w for w in model.get_weights()])
    np.testing.assert_array_equal(fold.predict(x, verbose=0), before)


def test_a_normalisation_that_shares_its_convolution_is_not_folded() -> None:
    image = keras.Input((6, 6, 2))
    conv = keras.layers.Conv2D(2, 3, padding="same")(image)
    bent = keras.layers.Conv2D(2, 3, padding="same", activation="relu")(conv)
    model = lived_in(
        keras.Model(
            image,
            [keras.layers.BatchNormalization()(conv), keras.layers.BatchNormalization()(bent)],
        )
    )
    fold, x = fold_batch_norm(model), images(model, 2)
    assert [type(layer) for layer in fold.layers] == [type(layer) for layer in model.layers]
    for one, other in zip(model(x), fold(x), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)


@pytest.mark.long
def test_the_network_of_keras_applications() -> None:
    source = lived_in(keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=5))
    x = images(source, 1)
    for fast in (fused_training_copy(source), fold_batch_norm(source)):
        np.testing.assert_allclose(
            fast.predict(x, verbose=0), source.predict(x, verbose=0), atol=1e-5
        )


def test_a_structure_of_outputs_is_kept() -> None:
    outputs = pyramid(resnet(10, (32, 32, 1), width=4))
    assert fused_training_copy(outputs)(images(outputs, 1)).keys() == outputs.output.keys()


@pytest.mark.parametrize("make", [fused_training_copy, fold_batch_norm])
def test_graphs_that_cannot_be_drawn_anew_are_named(make: Any) -> None:
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="inner")
    with raises_code(ModelError, "nested_model", "'inner'"):
        make(keras.Sequential([keras.Input((4,)), inner]))


@pytest.mark.parametrize("make", [fused_training_copy, fold_batch_norm])
def test_a_layer_that_is_called_twice_stays_one_layer(make: Any) -> None:
    image, other = keras.Input((6, 6, 2)), keras.layers.Conv2D(2, 3, padding="same")
    conv, norm = keras.layers.Conv2D(2, 3, padding="same"), keras.layers.BatchNormalization()
    first = norm(conv(image))
    model = keras.Model(image, keras.layers.Add()([norm(conv(other(first))), first]))
    lived_in(model)
    copy = make(model)
    x = images(model, 2)
    np.testing.assert_allclose(np.asarray(copy(x)), np.asarray(model(x)), atol=1e-5)
    assert len(copy.weights) == len(model.weights)

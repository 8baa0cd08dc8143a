from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

from data_pipelines import datasets
from data_pipelines.augment import (
    Augment,
    AugmentSpec,
    apply,
    augment_in_pipeline,
    augmentation,
    draw,
)
from data_pipelines.errors import SpecError

STRONG = augmentation("strong", "display")


def largest_difference(a, b) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_the_same_seed_gives_the_same_pixels_everywhere(image, key) -> None:
    """Eager, graph, XLA, tf.data, the layer, and a batch replayed in another order: to 1e-4 of the
    values' range.
    """
    drawn = draw(key, STRONG)
    eager = apply(image, drawn, STRONG)
    assert largest_difference(eager, image) > 0.3

    def both(image, key):
        return apply(image, draw(key, STRONG), STRONG)

    assert largest_difference(tf.function(both, autograph=False)(image, key), eager) < 1e-4
    assert largest_difference(Augment(STRONG)(image, key, training=True), eager) < 1e-4  # by XLA
    batches = tf.data.Dataset.from_tensors(
        ({"image": image, "key": key}, np.zeros((6, 1)), np.ones((6, 1)))
    )
    ((inputs, _, _),) = augment_in_pipeline(batches, STRONG)
    assert largest_difference(inputs["image"], eager) < 1e-4
    replayed = {name: np.asarray(values)[::-1] for name, values in drawn.items()}
    assert largest_difference(apply(image[::-1], replayed, STRONG), np.asarray(eager)[::-1]) == 0


def test_volumes_under_xla(volume, key) -> None:
    spec, hu = augmentation("ct_volume"), volume * 2000 - 1000
    eager = apply(hu, draw(key, spec, 3), spec, (3.0, 1.0, 1.0))
    assert (
        largest_difference(Augment(spec, spacing=(3.0, 1.0, 1.0))(hu, key, training=True), eager)
        < 1e-4 * 2000
    )


def test_it_rests_outside_training_and_crops_in_the_middle(image, key) -> None:
    assert largest_difference(Augment(STRONG)(image, key, training=False), image) == 0
    assert (
        largest_difference(
            Augment(augmentation("none", "display"))(image, key, training=True), image
        )
        == 0
    )
    crop = Augment(AugmentSpec(crop=(10, 12), rotation=5))
    assert largest_difference(crop(image, key, training=False), image[:, 5:15, 6:18]) == 0
    assert crop(image, key, training=True).shape == (6, 10, 12, 2)


def trainer(spec: AugmentSpec, shape: tuple[int, ...], **options) -> keras.Model:
    inputs = {
        "image": keras.Input(shape, name="image"),
        "key": keras.Input((2,), dtype="int32", name="key"),
    }
    hidden = keras.layers.GlobalAveragePooling2D()(Augment(spec)(inputs["image"], inputs["key"]))
    model = keras.Model(
        inputs, keras.layers.Dense(1, dtype="float32", kernel_initializer="ones")(hidden)
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", **options)
    return model


SMALL = AugmentSpec(rotation=9, shift=0.2, offset=0.2)


@pytest.mark.parametrize("jit", [True, False])
def test_it_trains_in_a_step_that_is_compiled_or_not(image, key, jit: bool) -> None:
    model = trainer(SMALL, (20, 24, 2), jit_compile=jit)
    loss = model.train_on_batch({"image": image, "key": key}, np.zeros((6, 1)))
    seen = np.asarray(apply(image, draw(key, SMALL), SMALL)).mean(axis=(1, 2)).sum(axis=1)
    assert loss == pytest.approx((seen**2).mean(), rel=1e-4)


def test_mixed_precision_leaves_coordinates_and_pixels_in_float32(image, key) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        output = Augment(SMALL)(keras.Input((20, 24, 2)), keras.Input((2,), dtype="int32"))
        got = Augment(SMALL)(image, key, training=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert output.dtype == got.dtype.name == "float32"
    assert largest_difference(got, apply(image, draw(key, SMALL), SMALL)) < 1e-5


def test_integers_come_out_as_float32(key) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (6, 12, 12, 1)).astype(np.int16)
    spec = AugmentSpec(units="HU", offset=10, fill=-1024)
    layer = Augment(spec)
    assert layer(hu, key, training=True).dtype == tf.float32
    assert largest_difference(layer(hu, key, training=False), hu) == 0
    assert (
        largest_difference(
            layer(hu, key, training=True),
            hu + np.asarray(draw(key, spec)["offset"])[:, :, None, None],
        )
        < 1e-3
    )


TWO_REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from data_pipelines.augment import Augment, AugmentSpec
image = np.random.default_rng(0).random((8, 12, 12, 1)).astype("float32")
key = np.stack([np.full(8, 3), np.arange(8)], 1).astype("int32")

def losses():
    inputs = {
        "image": keras.Input((12, 12, 1), name="image"),
        "key": keras.Input((2,), dtype="int32", name="key"),
    }
    augment = Augment(AugmentSpec(rotation=9, shift=0.2, offset=0.2))
    augmented = augment(inputs["image"], inputs["key"])
    hidden = keras.layers.Dense(1, kernel_initializer="ones")(keras.layers.Flatten()(augmented))
    model = keras.Model(inputs, hidden)
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    data = {"image": image, "key": key}
    fitted = model.fit(data, np.zeros((8, 1)), batch_size=4, shuffle=False, epochs=2, verbose=0)
    return fitted.history["loss"]

alone = losses()
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    shared = losses()
assert alone[0] != alone[1] and np.allclose(alone, shared, rtol=1e-4), (alone, shared)
print("alike")
"""


@pytest.mark.long
def test_two_replicas_see_what_one_sees() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, timeout=240
    )
    assert done.stdout.strip().endswith("alike"), done.stderr[-2000:]


def test_the_batches_of_a_work_folder_in_tf_data(tiny_work) -> None:
    spec = SMALL
    train, _, _ = datasets(tiny_work, "xray-32", 4, 7)
    again, _, _ = datasets(tiny_work, "xray-32", 4, 7)
    for (inputs, label, _), (want, want_label, _) in zip(
        augment_in_pipeline(train, spec), again, strict=True
    ):
        assert (inputs["key"].numpy() == want["key"].numpy()).all()
        assert (label.numpy() == want_label.numpy()).all()
        assert (
            largest_difference(inputs["image"], apply(want["image"], draw(want["key"], spec), spec))
            < 1e-4
        )


def test_pairs_are_mixed_in_tf_data_and_masks_of_missing_labels_stay_right(image, key) -> None:
    weight = np.array([[1.0], [0], [0], [1], [1], [1]], np.float32)
    batches = tf.data.Dataset.from_tensors(
        ({"image": image, "key": key}, np.ones((6, 1), np.float32), weight)
    )
    ((inputs, label, total),) = augment_in_pipeline(batches, AugmentSpec(mixup=1.0))
    assert largest_difference(inputs["image"], image) > 0.1
    assert total.numpy()[1] == 0
    assert label.numpy().ravel() == pytest.approx([1, 0, 1, 1, 1, 1])
    with raises_code(SpecError, "volumes_only", "tilt"):
        augment_in_pipeline(batches, AugmentSpec(tilt=3))

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import map_coordinates

from data_pipelines.augment import PRESETS, Augment, AugmentSpec, affine, augmentation, draw, intensity, uniforms
from data_pipelines.errors import SpecError

KEY = np.stack([np.full(16, 987654, np.int32), np.arange(16, dtype=np.int32)], axis=1)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random((16, 20, 24, 2)).astype(np.float32)


def drawn_zero() -> dict[str, np.ndarray]:
    return {
        name: np.zeros(16, np.float32)
        for name in ("rotation", "zoom", "shift_rows", "shift_cols", "contrast", "offset", "gamma")
    }


def test_identity_returns_the_input_exactly(image: np.ndarray) -> None:
    assert (np.asarray(affine(tf.constant(image), drawn_zero(), 0.0)) == image).all()


def test_affine_equals_scipy(image: np.ndarray) -> None:
    drawn = {k: np.asarray(v) for k, v in draw(KEY, PRESETS["chest_xray"]).items()}
    got = np.asarray(affine(tf.constant(image), drawn, -3.0))
    rows, cols = image.shape[1:3]
    y, x = np.mgrid[0:rows, 0:cols].astype(float)
    for i in range(len(image)):
        angle, scale = np.deg2rad(drawn["rotation"][i]), 1 / (1 + drawn["zoom"][i])
        dy, dx = y - (rows - 1) / 2, x - (cols - 1) / 2
        sy = scale * (np.cos(angle) * dy - np.sin(angle) * dx) + (rows - 1) / 2 - drawn["shift_rows"][i] * rows
        sx = scale * (np.sin(angle) * dy + np.cos(angle) * dx) + (cols - 1) / 2 - drawn["shift_cols"][i] * cols
        # A wide constant border makes SciPy blend with the fill value beyond the edge, as ours does.
        padded = np.pad(image[i, :, :, 1].astype(float), 30, constant_values=-3.0)
        want = map_coordinates(padded, [sy + 30, sx + 30], order=1)
        assert np.abs(got[i, :, :, 1] - want).max() < 1e-4


def test_a_shift_moves_towards_larger_indices_and_fills() -> None:
    image = np.zeros((16, 20, 20, 1), np.float32)
    image[:, 5, 5] = 1
    drawn = drawn_zero() | {"shift_rows": np.full(16, 0.1, np.float32)}
    got = np.asarray(affine(tf.constant(image), drawn, 7.0))[0, :, :, 0]
    assert got[7, 5] == pytest.approx(1, abs=1e-5)
    assert (got[:2] == 7).all()


def test_draws_are_a_function_of_the_key() -> None:
    spec = PRESETS["chest_xray"]
    first, again = draw(KEY, spec), draw(KEY[::-1].copy(), spec)
    for name, values in first.items():
        assert (np.asarray(values) == np.asarray(again[name])[::-1]).all()
    other = draw(KEY + np.array([[1, 0]], np.int32), spec)
    assert (np.asarray(first["rotation"]) != np.asarray(other["rotation"])).all()


def test_uniforms_are_uniform_and_equal_in_every_mode() -> None:
    key = np.stack([np.full(4000, 5, np.int32), np.arange(4000, dtype=np.int32)], axis=1)
    eager = np.asarray(uniforms(key, 5))
    assert (eager >= 0).all()
    assert (eager < 1).all()
    counts = np.histogram(eager, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees of freedom, p = .001
    assert np.abs(np.corrcoef(eager.T) - np.eye(5)).max() < 0.06
    for compiled in (False, True):
        assert (tf.function(lambda k: uniforms(k, 5), jit_compile=compiled)(key).numpy() == eager).all()


def test_the_layer_works_under_xla_and_rests_outside_training(image: np.ndarray) -> None:
    layer = Augment(PRESETS["chest_xray"], display=True)
    eager = layer(image, KEY, training=True).numpy()
    compiled = tf.function(lambda x, k: layer(x, k, training=True), jit_compile=True)(image, KEY).numpy()
    assert np.abs(eager - compiled).max() < 1e-4
    assert eager.min() >= 0
    assert eager.max() <= 1
    assert np.abs(eager - image).max() > 0.01
    assert (layer(image, KEY, training=False).numpy() == image).all()


def test_it_trains_inside_a_jit_compiled_model(image: np.ndarray) -> None:
    inputs = {"image": keras.Input((20, 24, 2), name="image"), "key": keras.Input((2,), dtype="int32", name="key")}
    x = Augment(PRESETS["ct_slice"], display=False)(inputs["image"], inputs["key"])
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(x)))
    model.compile("sgd", "mse", jit_compile=True)
    loss = model.train_on_batch({"image": image, "key": KEY}, np.zeros((16, 1)))
    assert np.isfinite(loss)


def test_hu_are_only_shifted() -> None:
    hu = np.full((16, 4, 4, 1), -500, np.float32)
    drawn = drawn_zero() | {"offset": np.linspace(-20, 20, 16).astype(np.float32)}
    got = np.asarray(intensity(tf.constant(hu), drawn, display=False))
    assert got[:, 0, 0, 0] == pytest.approx(-500 + drawn["offset"])


def test_no_preset_flips_and_ranges_hold() -> None:
    key = np.stack([np.zeros(2000, np.int32), np.arange(2000, dtype=np.int32)], axis=1)
    for spec in PRESETS.values():
        for name, values in draw(key, spec).items():
            limit = spec.shift if name.startswith("shift") else getattr(spec, name)
            assert np.abs(values).max() <= limit
            assert limit == 0 or np.abs(values).max() > 0.98 * limit
    assert "flip" not in AugmentSpec.model_fields


def test_unknown_presets_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match="chest_xray"):
        augmentation("wild")

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import raises_code

from medres.errors import ModelError
from medres.models.classification import WINDOWS, classifier


def layers_until_the_stem(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("scale").output)


@pytest.mark.parametrize(
    ("classes", "task", "outputs"),
    [
        (1, None, 1),
        (["pneumonia"], None, 1),
        (2, "binary", 1),
        (["normal", "pneumonia"], None, 2),
        (5, None, 5),
        (14, "multilabel", 14),
        (1, "multilabel", 1),
    ],
)
def test_the_head_has_one_logit_an_output(
    classes: int | list[str], task: str | None, outputs: int
) -> None:
    model = classifier(10, (32, 32, 1), classes, task=task, width=4)
    assert model.output.shape == (None, outputs)
    assert model.output.dtype == "float32"
    assert model.layers[-1].name == "logits"
    assert model.input.name == "image"
    assert model.input.dtype == "float32"


def test_display_values_are_scaled_to_minus_one_and_one() -> None:
    model = layers_until_the_stem(classifier(10, (32, 32, 1), 1, width=4))
    image = np.linspace(0, 1, 1024, dtype="float32").reshape(1, 32, 32, 1)
    np.testing.assert_allclose(np.asarray(model(image)), 2 * image - 1, atol=1e-6)


def test_each_window_makes_its_channels() -> None:
    windows = ["lung", (40, 400)]
    model = layers_until_the_stem(classifier(10, (32, 32, 1), 1, width=4, windows=windows))
    hu = np.linspace(-2000, 3000, 1024, dtype="float32").reshape(1, 32, 32, 1)
    expected = [
        np.clip((hu.astype("float64") - c) / w + 0.5, 0, 1) * 2 - 1
        for c, w in (WINDOWS["lung"], (40, 400))
    ]
    np.testing.assert_allclose(np.asarray(model(hu)), np.concatenate(expected, axis=-1), atol=1e-5)


def test_windows_are_float32_and_the_head_too_in_mixed_precision() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifier(10, (32, 32, 1), 1, width=4, windows=[(40, 400)], activation="sigmoid")
    finally:
        keras.config.set_dtype_policy(before)
    for name in ("window1", "window1_clip", "scale", "logits", "probability"):
        assert model.get_layer(name).compute_dtype == "float32"
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_activation_follows_the_task() -> None:
    image = np.random.default_rng(0).random((3, 32, 32, 1)).astype("float32")
    model = classifier(10, (32, 32, 1), 4, width=4, activation="softmax")
    np.testing.assert_allclose(np.asarray(model(image)).sum(axis=1), 1, atol=1e-6)
    with raises_code(ModelError, "wrong_activation", "softmax"):
        classifier(10, (32, 32, 1), 1, width=4, activation="softmax")


def test_volumes_too() -> None:
    model = classifier(10, (8, 16, 16, 2), 3, width=4, stem="small", windows=["brain", "bone"])
    assert model.get_layer("stem_conv").kernel.shape == (3, 3, 3, 4, 4)
    assert model.output.shape == (None, 3)


PLAIN_KERAS = """
import sys
import numpy as np, keras
for name in sys.argv[1:]:
    model = keras.saving.load_model(f"{name}.keras")
    np.save(f"{name}-out.npy", model(np.load("image.npy")))
assert not any(name.split(".")[0] == "medres" for name in sys.modules)
"""


@pytest.mark.long  # three nets in a fresh process; by default test_run opens one of a run
def test_a_plain_keras_opens_the_saved_models_and_gives_the_same(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(0, 500, (2, 32, 32, 1)).astype("float32")
    np.save(tmp_path / "image.npy", image)
    further: dict[str, dict[str, Any]] = {
        "1.5": {"shortcut": "A", "squeeze_excite": True},
        "2": {"norm": "group", "stochastic_depth": 0.1},
        "d": {"block": "bottleneck", "conv_bias": True, "output_stride": 8},
    }
    expected = {}
    for version, options in further.items():
        windows, task = ["lung", "mediastinum"], "multilabel"
        model = classifier(
            10,
            image.shape[1:],
            2,
            task=task,
            windows=windows,
            activation="sigmoid",
            width=4,
            version=version,
            **options,
        )
        model.save(tmp_path / f"{version}.keras")
        expected[version] = np.asarray(model(image))
    script = tmp_path / "plain.py"
    script.write_text(PLAIN_KERAS)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-I", str(script), *further], check=True, env=environment, cwd=tmp_path
    )
    for version, logits in expected.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{version}-out.npy"), logits)


@pytest.mark.long  # by default test_network compiles a step of such a network with XLA
def test_compiled_with_xla_it_gives_the_same_and_learns() -> None:
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    labels = np.arange(8) % 2
    image = (random.normal(0, 0.1, (8, 16, 16, 1)) + labels[:, None, None, None]).astype("float32")
    model = classifier(8, (16, 16, 1), 1, width=4, stem="cifar")
    expected = np.asarray(model(image))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=True)
    np.testing.assert_allclose(model.predict(image, verbose=0), expected, atol=1e-4)
    losses = model.fit(image, labels[:, None], epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("options", "code", "mentions"),
    [
        ({"classes": 0}, "bad_classes", ["0"]),
        ({"classes": "pneumonia"}, "bad_classes", ["'pneumonia'"]),
        ({"classes": True}, "bad_classes", ["True"]),
        ({"classes": ["a", "a"]}, "bad_classes", ["'a', 'a'"]),
        ({"classes": ["a", ""]}, "bad_classes", ["'a', ''"]),
        ({"classes": 3, "task": "binary"}, "bad_classes", ["binary", "1 or 2"]),
        ({"classes": 1, "task": "multiclass"}, "bad_classes", ["multiclass", "2"]),
        ({"classes": 1, "task": "regression"}, "unknown_task", ["'regression'", "multilabel"]),
        ({"windows": []}, "bad_window", ["windows"]),
        ({"windows": "lung"}, "bad_window", ["'lung'"]),
        ({"windows": ["heart"]}, "bad_window", ["'heart'", "lung"]),
        ({"windows": [(40, 0)]}, "bad_window", ["(40, 0)"]),
        ({"windows": [(40,)]}, "bad_window", ["(40,)"]),
        ({"windows": [(float("nan"), 5)]}, "bad_window", ["(nan, 5)"]),
        ({"colour": 3}, None, ["colour"]),
        ({"input_shape": (8, 8, 1)}, None, ["32"]),
    ],
)
def test_what_cannot_work_is_named(options: dict, code: str | None, mentions: list[str]) -> None:
    """code None: the error is raised by the backbone, whose tests assert the code."""
    call = {"variant": 10, "input_shape": (32, 32, 1), "classes": 1, **options}
    with pytest.raises(ModelError) as caught:
        classifier(**call)
    assert code in (None, caught.value.code)
    for value in mentions:
        assert value in str(caught.value)

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

import medres
from medres.artefact.graph_check import checked_graph, weight_shapes
from medres.backbones import fold_batch_norm, fused_training_copy, load_pretrained, resnet
from medres.errors import ModelError
from medres.models.decoders import DECODERS
from medres.models.segmentation import segmenter, without_deep_supervision
from medres.training.network import dtype_policy, rate_factors, set_trainable, stages

Options = dict[str, Any]
NETS: list[tuple[int | str, tuple[int, ...], str, Options]] = [
    (10, (24, 31, 1), "unet", {"stem": "small"}),
    (10, (40, 33, 3), "unet", {"version": "2"}),
    (10, (33, 40, 1), "deeplabv3+", {}),
    (10, (20, 17, 1), "fpn", {"stem": "small", "residual": False}),
    ("densenet10", (18, 21, 1), "fpn", {"stem": "cifar", "growth": 4}),
    (10, (8, 11, 9, 1), "unet", {"stem": "small"}),
    (10, (8, 33, 20, 2), "fpn", {}),
    (8, (9, 7, 10, 1), "unet", {"stem": "cifar", "residual": False}),
]


def build(variant: int | str, shape: tuple[int, ...], decoder: str, options: Options) -> Any:
    options = options if "growth" in options else {"width": 4, **options}
    return segmenter(variant, shape, 3, decoder=decoder, **options)


@pytest.mark.parametrize(("variant", "shape", "decoder", "options"), NETS)
def test_logits_have_the_size_of_any_image(
    variant: int | str, shape: tuple[int, ...], decoder: str, options: Options
) -> None:
    model = build(variant, shape, decoder, options)
    assert model.output.shape == (None, *shape[:-1], 3)
    assert model.output.dtype == "float32"
    image = np.random.default_rng(0).random((1, *shape), np.float32)
    assert np.isfinite(np.asarray(model(image))).all()
    assert checked_graph(config := json.loads(model_config(model))).parameters == sum(
        np.prod(v.shape) for v in model.weights
    )
    assert sum(weight_shapes(config).values()) == len(model.weights)
    assert medres.summary(model).total.stride == 1


def model_config(model: keras.Model) -> str:
    return json.dumps(keras.saving.serialize_keras_object(model))


def test_the_backbone_sees_the_padded_image_and_the_logits_are_cropped_back() -> None:
    """A padded image gives the logits of the image that was padded by hand."""
    model = segmenter(10, (13, 22, 1), 2, stem="small", width=4)
    whole = segmenter(10, (16, 24, 1), 2, stem="small", width=4)
    whole.set_weights(model.get_weights())
    image = np.random.default_rng(0).random((2, 13, 22, 1), np.float32)
    padded = np.pad(image, ((0, 0), (1, 2), (1, 1), (0, 0)), constant_values=0.5)  # scaled: 0
    expected = np.asarray(whole(padded))[:, 1:14, 1:23]
    np.testing.assert_allclose(np.asarray(model(image)), expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("shape", [(13, 22, 1), (7, 10, 12, 1)])
def test_the_graph_of_a_padded_image_computes_what_its_layers_compute(
    shape: tuple[int, ...], policy: str
) -> None:
    """TensorFlow's optimizer of graphs once dropped the padding of the first convolution in 3D."""
    with dtype_policy(policy):
        model = segmenter(10, shape, 2, stem="small", width=4, windows=[(0.5, 1.0)])
    image = np.random.default_rng(0).random((2, *shape), np.float32)
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec((None, *shape))
    )
    expected = np.asarray(model(image, training=False))
    tolerance = 1e-5 if policy == "float32" else 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(graph(tf.constant(image)), expected, atol=tolerance)


@pytest.mark.parametrize("shape", [(13, 22, 1), (5, 9, 12, 1)])
@pytest.mark.parametrize("decoder", list(DECODERS))
def test_the_plain_twin_has_the_same_parameters(decoder: str, shape: tuple[int, ...]) -> None:
    if len(shape) - 1 not in DECODERS[decoder].ranks:
        pytest.skip("2D alone")
    options = {"decoder": decoder, "stem": "cifar", "width": 4, "shortcut": "A"}
    model, twin = (segmenter(8, shape, 2, residual=on, **options) for on in (True, False))
    assert [v.shape for v in twin.weights] == [v.shape for v in model.weights]
    assert any("add" in layer.name for layer in model.layers)
    assert twin.output.shape == (None, *shape[:-1], 2)


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_open_sizes_take_multiples_of_the_stride(decoder: str) -> None:
    options = {"stem": "small", "width": 4, "decoder": decoder}
    model = segmenter(10, (None, None, 1), ["background", "lung"], **options)
    assert np.asarray(model(np.zeros((1, 16, 24, 1), np.float32))).shape == (1, 16, 24, 2)


def test_a_window_in_hu_is_inside() -> None:
    model = segmenter(10, (16, 16, 1), 2, stem="small", width=4, windows=["lung", "bone"])
    assert model.get_layer("stem_conv").kernel.shape[2] == 2


@pytest.mark.long  # XLA compiles each convolution and its gradient
@pytest.mark.timeout(1800)
def test_every_decoder_trains_the_same_with_xla() -> None:
    image = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    for decoder in DECODERS:
        model = segmenter(8, (16, 16, 1), 2, decoder=decoder, stem="cifar", width=4)
        gradients = [_gradients(model, image, jit) for jit in (False, True)]
        for eager, compiled in zip(*gradients, strict=True):
            np.testing.assert_allclose(eager, compiled, atol=1e-4 + 1e-3 * np.abs(eager).max())


def _gradients(model: keras.Model, image: np.ndarray, jit: bool) -> list[np.ndarray]:
    @tf.function(jit_compile=jit)
    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    return [np.asarray(g) for g in run(image)]


def test_deep_supervision_is_for_training_alone() -> None:
    model = segmenter(10, (20, 17, 1), 3, stem="small", width=4, deep_supervision=True)
    assert list(model.output) == ["logits", "logits_2", "logits_3"]
    assert {tuple(y.shape) for y in model.output.values()} == {(None, 20, 17, 3)}
    served = without_deep_supervision(model)
    plain = segmenter(10, (20, 17, 1), 3, stem="small", width=4)
    assert [v.path for v in served.weights] == [v.path for v in plain.weights]
    image = np.random.default_rng(0).random((1, 20, 17, 1), np.float32)
    np.testing.assert_array_equal(np.asarray(served(image)), np.asarray(model(image)["logits"]))
    assert without_deep_supervision(plain) is plain


def test_the_decoder_is_a_group_of_its_own() -> None:
    model = segmenter(10, (16, 16, 1), 2, stem="small", width=4, version="2")
    groups = stages(model)
    assert list(groups) == ["stem", "stage1", "stage2", "stage3", "stage4", "decoder", "head"]
    assert all(layer.name.startswith("decoder_") for layer in groups["decoder"])
    assert [layer.name for layer in groups["head"]] == ["logits"]
    factors = rate_factors(model, 0.5)
    assert factors["decoder_stride1_1_conv"] == 0.5
    assert factors["stage4_block1_conv1"] == 0.25
    set_trainable(model, epoch=1, unfreeze=1, freeze_norm=False)  # head and decoder are open
    assert not model.get_layer("stage4_block1_conv1").trainable
    assert model.get_layer("decoder_stride1_1_conv").trainable
    parts = [part.name for part in medres.summary(model).parts]
    assert parts == ["input", "stem", "stage1", "stage2", "stage3", "stage4", "decoder", "head"]


def test_pretrained_weights_fill_the_backbone(tmp_path: Path) -> None:
    source = resnet(10, (16, 16, 1), stem="small", width=4)
    source.save(tmp_path / "source.keras")
    model = segmenter(10, (16, 16, 1), 2, stem="small", width=4)
    before = np.asarray(model.get_layer("decoder_stride1_1_conv").kernel)
    report = load_pretrained(model, tmp_path / "source.keras")
    assert len(report.loaded) == len(source.weights)
    assert all(name.startswith(("decoder_", "logits")) for name in report.missing)
    for layer in source.layers:
        for ours, theirs in zip(model.get_layer(layer.name).weights, layer.weights, strict=True):
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    np.testing.assert_array_equal(before, model.get_layer("decoder_stride1_1_conv").kernel)


@pytest.mark.parametrize("make", [fused_training_copy, fold_batch_norm])
def test_copies_with_other_normalization_give_the_same_logits(make: Any) -> None:
    model = segmenter(10, (12, 16, 1), 2, decoder="fpn", stem="small", width=4)
    image = np.random.default_rng(0).random((1, 12, 16, 1), np.float32)
    np.testing.assert_allclose(np.asarray(make(model)(image)), np.asarray(model(image)), atol=1e-4)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("decoder_rank", {"input_shape": (16, 16, 16, 1), "decoder": "deeplabv3+"}),
        ("unknown_choice", {"decoder": "psp"}),
        ("bad_classes", {"classes": 1}),
        ("bad_classes", {"classes": ["lung", "lung"]}),
        ("input_shape", {"input_shape": (16, 0, 1)}),
    ],
)
def test_what_cannot_be_built_is_refused(code: str, arguments: dict[str, Any]) -> None:
    valid = {"variant": 10, "input_shape": (16, 16, 1), "classes": 2, "width": 4}
    with raises_code(ModelError, code):
        segmenter(**(valid | arguments))


OPENED = """
import sys, keras, numpy as np
for file in sys.argv[1:]:
    model = keras.saving.load_model(file)
    data = np.load(file + ".npz")
    np.testing.assert_allclose(np.asarray(model(data["image"])), data["logits"], atol=1e-5)
assert not any(name.startswith("medres") for name in sys.modules)
"""


@pytest.mark.long  # a process with TensorFlow
def test_every_net_opens_in_plain_keras(tmp_path: Path) -> None:
    files = []
    for i, net in enumerate(NETS):
        model, image = build(*net), np.ones((1, *net[1]), np.float32)
        files.append(str(tmp_path / f"{i}.keras"))
        model.save(files[-1])
        np.savez(files[-1] + ".npz", image=image, logits=np.asarray(model(image)))
    subprocess.run([sys.executable, "-c", OPENED, *files], check=True)

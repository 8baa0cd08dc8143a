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
from medres.artefact.graph_check import checked_graph
from medres.backbones import load_pretrained, resnet
from medres.errors import ModelError
from medres.models.detection import decoding_settings, detector
from medres.training.network import stages

Options = dict[str, Any]
SMALL: Options = {"width": 4, "channels": 8, "head_depth": 1}
NETS: list[tuple[int | str, tuple[int, ...], Options, list[int]]] = [
    # the positions of each level: of the image padded to the coarsest stride
    (10, (64, 40, 1), {}, [16 * 16, 8 * 8, 4 * 4, 2 * 2]),
    (10, (33, 70, 3), {"levels": (3, 4), "head_norm": "batch", "version": "2"}, [6 * 10, 3 * 5]),
    (10, (16, 24, 1), {"stem": "small", "levels": (4,), "head_depth": 0}, [4 * 6]),
    (10, (70, 90, 1), {"levels": (4, 5, 6, 7)}, [8 * 8, 4 * 4, 2 * 2, 1]),
    (
        "densenet10",
        (18, 21, 1),
        {"stem": "cifar", "growth": 4, "levels": (2, 3)},
        [18 * 22, 9 * 11],
    ),
    (10, (10, 20, 30, 1), {"stem": "small", "levels": (4, 5)}, [4 * 6 * 8, 2 * 3 * 4]),
]


def build(variant: int | str, shape: tuple[int, ...], options: Options) -> keras.Model:
    options = SMALL | options
    if "growth" in options:
        del options["width"]
    return detector(variant, shape, ["nodule", "mass"], **options)


@pytest.mark.parametrize(("variant", "shape", "options", "counts"), NETS)
def test_raw_maps_of_every_backbone_and_size(
    variant: int | str, shape: tuple[int, ...], options: Options, counts: list[int]
) -> None:
    model = build(variant, shape, options)
    sides = 2 * (len(shape) - 1)
    assert model.output.shape == (None, sum(counts), sides + 1 + 2)
    assert model.output.dtype == "float32"
    raw = np.asarray(model(np.random.default_rng(0).random((1, *shape), np.float32)))
    assert np.isfinite(raw).all()
    assert (raw[..., :sides] > 0).all()
    settings = decoding_settings(model)
    assert settings.n_positions == sum(counts)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    graph = checked_graph(config)
    assert graph.parameters == sum(np.prod(v.shape) for v in model.weights)
    assert sum(graph.weights.values()) == len(model.weights)
    total = medres.summary(model).total
    assert (total.parameters, total.stride) == (graph.parameters, settings.strides[-1])
    assert total.multiply_adds <= graph.multiply_adds
    (boxes,) = medres.decode(raw, settings)
    assert boxes.corners.shape == (len(boxes), sides)


def test_a_net_starts_with_rare_objects_and_boxes_of_eight_strides() -> None:
    model = build(10, (64, 64, 1), {})
    raw = np.asarray(model(np.zeros((1, 64, 64, 1), np.float32)))[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-raw[:, 5:])), 0.01, rtol=0.3)
    np.testing.assert_allclose(raw[:256, :4], 4 * 4, rtol=0.1)
    np.testing.assert_allclose(raw[-4:, :4], 4 * 32, rtol=0.1)


def test_levels_share_the_heads_but_not_the_scale() -> None:
    model = build(10, (64, 64, 1), {"levels": (3, 4)})
    names = [layer.name for layer in model.layers if layer.weights]
    assert (
        sum(name in ("logits", "decoder_distances", "decoder_class1_conv") for name in names) == 3
    )
    assert len(model.get_layer("logits")._inbound_nodes) == 2
    image = np.random.default_rng(0).random((1, 64, 64, 1), np.float32)
    before = np.asarray(model(image))
    bias = model.get_layer("decoder_stride16_scale").bias
    bias.assign(bias + 1.0)
    after = np.asarray(model(image))
    np.testing.assert_array_equal(before[:, :64], after[:, :64])
    assert (after[:, 64:, :4] > before[:, 64:, :4] + 8).all()
    np.testing.assert_array_equal(before[:, 64:, 4:], after[:, 64:, 4:])


def test_an_image_of_any_size_keeps_its_coordinates() -> None:
    """Padding by the graph is padding by hand behind the last row and column."""
    model = build(10, (40, 70, 1), {"levels": (3, 4)})
    whole = build(10, (48, 80, 1), {"levels": (3, 4)})
    whole.set_weights(model.get_weights())
    image = np.random.default_rng(0).random((1, 40, 70, 1), np.float32)
    padded = np.pad(image, ((0, 0), (0, 8), (0, 10), (0, 0)), constant_values=0.5)  # scaled: 0
    np.testing.assert_allclose(np.asarray(whole(padded)), np.asarray(model(image)), atol=1e-4)


def test_open_sizes_take_multiples_of_the_stride() -> None:
    model = build(10, (None, None, 1), {"levels": (3, 4)})
    assert np.asarray(model(np.zeros((1, 32, 48, 1), np.float32))).shape == (1, 24 + 6, 7)
    assert decoding_settings(model, input_size=(32, 48)).n_positions == 30
    with raises_code(ModelError, "input_shape"):
        decoding_settings(model)


def test_parts_and_stages() -> None:
    model = build(10, (64, 64, 1), {"version": "2", "levels": (3, 4, 5)})
    groups = stages(model)
    assert list(groups) == ["stem", "stage1", "stage2", "stage3", "stage4", "decoder", "head"]
    assert [layer.name for layer in groups["head"]] == ["logits"]
    parts = [part.name for part in medres.summary(model).parts]
    assert parts == ["input", "stem", "stage1", "stage2", "stage3", "stage4", "decoder", "head"]


def test_pretrained_weights_fill_the_backbone(tmp_path: Path) -> None:
    source = resnet(10, (64, 64, 1), width=4)
    source.save(tmp_path / "source.keras")
    model = build(10, (64, 64, 1), {})
    report = load_pretrained(model, tmp_path / "source.keras")
    assert len(report.loaded) == len(source.weights)
    assert all(name.startswith(("decoder_", "logits")) for name in report.missing)
    for layer in source.layers:
        for ours, theirs in zip(model.get_layer(layer.name).weights, layer.weights, strict=True):
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("levels", {"levels": ()}),
        ("levels", {"levels": (3, 5)}),
        ("levels", {"levels": (1, 2)}),
        ("levels", {"levels": (7, 8)}),
        ("levels", {"levels": (6, 7)}),  # no stage of the backbone
        ("unknown_choice", {"head_norm": "layer"}),
        ("out_of_range", {"head_depth": -1}),
        ("out_of_range", {"channels": 0}),
        ("bad_classes", {"classes": ["mass", "mass"]}),
        ("bad_classes", {"classes": 0}),
        ("input_shape", {"input_shape": (16, 0, 1)}),
    ],
)
def test_what_cannot_be_built_is_refused(code: str, arguments: dict[str, Any]) -> None:
    valid = {"variant": 10, "input_shape": (64, 64, 1), "classes": 2, "width": 4}
    with raises_code(ModelError, code):
        detector(**(valid | arguments))


def test_only_a_detector_has_decoding_settings() -> None:
    with raises_code(ModelError, "no_detector"):
        decoding_settings(resnet(10, (16, 16, 1), stem="small", width=4))


@pytest.mark.long  # XLA compiles each convolution and its gradient
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("head_norm", ["group", "batch"])
def test_a_step_is_the_same_with_xla(head_norm: str) -> None:
    model = build(10, (32, 32, 1), {"levels": (3, 4), "head_norm": head_norm})
    settings = decoding_settings(model)
    loss = medres.losses.DetectionLoss(settings.input_size, settings.strides)
    image = np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    boxes = np.array([[[4, 5, 20, 22, 1]]], np.float32)

    def gradients(jit: bool) -> list[np.ndarray]:
        @tf.function(jit_compile=jit)
        def run(x: Any) -> Any:
            with tf.GradientTape() as tape:
                value = loss(boxes, model(x, training=True))
            return tape.gradient(value, [v.value for v in model.trainable_variables])

        return [np.asarray(g) for g in run(image)]

    for eager, compiled in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_allclose(eager, compiled, atol=1e-4 + 1e-3 * np.abs(eager).max())


OPENED = """
import sys, keras, numpy as np
for file in sys.argv[1:]:
    model = keras.saving.load_model(file)
    data = np.load(file + ".npz")
    np.testing.assert_allclose(np.asarray(model(data["image"])), data["raw"], atol=1e-4)
assert not any(name.startswith("medres") for name in sys.modules)
"""


@pytest.mark.long  # a process with TensorFlow
def test_every_net_opens_in_plain_keras(tmp_path: Path) -> None:
    files = []
    for i, (variant, shape, options, _) in enumerate(NETS):
        model, image = build(variant, shape, options), np.ones((1, *shape), np.float32)
        files.append(str(tmp_path / f"{i}.keras"))
        model.save(files[-1])
        np.savez(files[-1] + ".npz", image=image, raw=np.asarray(model(image)))
    subprocess.run([sys.executable, "-c", OPENED, *files], check=True)

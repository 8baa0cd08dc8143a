from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import raises_code
from PIL import Image
from torch_files import as_torch, randomised

from medres.backbones.build import resnet
from medres.backbones.weights.load import load_pretrained
from medres.errors import WeightsError
from medres.models.classification import classifier
from medres.models.detection import detector
from medres.models.segmentation import segmenter

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are saving your model as an HDF5 file:UserWarning"
)


def output(model: keras.Model, seed: int = 9) -> np.ndarray:
    shape = [n or 32 for n in model.inputs[0].shape[1:]]
    return np.asarray(model(np.random.default_rng(seed).normal(size=(1, *shape)).astype("float32")))


TORCHVISION: dict[str, str] = {}


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        (18, {}),
        (50, {"width": 8, "squeeze_excite": True}),
        (
            11,
            {
                "stem": "cifar",
                "block": "bottleneck",
                "width": 16,
                "cardinality": 4,
                "group_width": 16,
            },
        ),
        (8, {"stem": "cifar", "shortcut": "A", "width": 4}),
    ],
)
def test_torchvision_names(variant: int | str, options: dict) -> None:
    source = randomised(classifier(variant, (32, 32, 3), 5, **options))
    target = classifier(variant, (32, 32, 3), 5, **options)
    report = load_pretrained(target, as_torch(source, TORCHVISION))
    np.testing.assert_array_equal(output(target), output(source))
    assert (report.kind, report.skipped, report.missing, report.adapted) == ("torch", (), (), ())
    assert len(report.loaded) == len(
        [w for w in target.weights if w.name != "seed_generator_state"]
    )
    assert report.probe_difference is None
    assert "torch" in str(report.probe_missing)


def test_wrappers_and_sequential_children_are_looked_through() -> None:
    source = randomised(resnet(18, (32, 32, 3), width=4))
    plain = as_torch(source, TORCHVISION)
    children = {"conv1": "backbone.0", "bn1": "backbone.1"} | {
        f"layer{i}": f"backbone.{i + 3}" for i in range(1, 5)
    }
    radimagenet = {
        ".".join([children[(parts := name.split("."))[0]], *parts[1:]]): value
        for name, value in plain.items()
    }
    for state in ({f"module.{name}": value for name, value in plain.items()}, radimagenet):
        target = resnet(18, (32, 32, 3), width=4)
        load_pretrained(target, state)
        np.testing.assert_array_equal(output(target), output(source))


def test_the_names_of_timms_deep_stem() -> None:
    source = randomised(resnet(50, (32, 32, 3), version="d", width=8))
    deep = {
        "stem_conv1": "conv1.0",
        "stem_norm1": "conv1.1",
        "stem_conv2": "conv1.3",
        "stem_norm2": "conv1.4",
    }
    state = {}
    for name, value in as_torch(
        source, deep | {"downsample.1": "downsample.2", "downsample.0": "downsample.1"}
    ).items():
        state["conv1.6.weight" if name == "conv1.weight" else name] = value
    target = resnet(50, (32, 32, 3), version="d", width=8)
    load_pretrained(target, state)
    np.testing.assert_array_equal(output(target), output(source))


def test_medicalnet_volumes_and_their_segmentation_head() -> None:
    source = randomised(resnet(10, (32, 32, 32, 1), width=4))
    state = {f"module.{name}": value for name, value in as_torch(source, TORCHVISION).items()}
    state["module.conv_seg.0.weight"] = np.zeros((32, 32, 2, 2, 2), "float32")
    target = resnet(10, (32, 32, 32, 1), width=4)
    report = load_pretrained(target, state)
    np.testing.assert_array_equal(output(target), output(source))
    assert [name for name, _ in report.skipped] == ["module.conv_seg.0.weight"]


def test_shortcut_a_of_medicalnet_has_its_zeros_at_the_end() -> None:
    options: dict[str, Any] = {"width": 4, "shortcut": "A"}
    source = randomised(resnet(10, (32, 32, 32, 1), channel_padding="end", **options))
    state = as_torch(source, TORCHVISION)
    target = resnet(10, (32, 32, 32, 1), channel_padding="end", **options)
    load_pretrained(target, state)
    np.testing.assert_array_equal(output(target), output(source))
    with raises_code(WeightsError, "other_padding", 'channel_padding="end"'):
        load_pretrained(resnet(10, (32, 32, 32, 1), **options), state)
    flat = as_torch(resnet(8, (32, 32, 3), stem="cifar", **options), TORCHVISION)
    with raises_code(WeightsError, "other_padding", 'channel_padding="both"'):
        load_pretrained(
            resnet(8, (32, 32, 3), stem="cifar", channel_padding="end", **options), flat
        )


@pytest.fixture(scope="module")
def application() -> keras.Model:
    return randomised(keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=7))


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(".h5", marks=pytest.mark.long),
        pytest.param(".weights.h5", marks=pytest.mark.long),
        ".keras",
    ],
)
def test_keras_applications_gives_the_same_logits(
    application: keras.Model, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"a{ending}"
    application.save_weights(path) if ending == ".weights.h5" else application.save(path)
    target = classifier(
        50, (64, 64, 3), 7, version="1", conv_bias=True, norm_epsilon=1.001e-5, activation="softmax"
    )
    report = load_pretrained(target, path)
    assert report.kind == "keras.applications"
    assert report.probe_difference is not None
    assert report.probe_difference < 1e-4
    image = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(
        np.asarray(target((image + 1) / 2)), np.asarray(application(image)), atol=1e-4
    )


def test_biases_are_folded_where_the_model_has_none(
    application: keras.Model, tmp_path: Path
) -> None:
    application.save_weights(tmp_path / "a.weights.h5")
    target = resnet(50, (64, 64, 1), version="1")
    report = load_pretrained(target, tmp_path / "a.weights.h5")
    assert dict(report.adapted)["stem_conv/kernel"] == "3 input channels to 1, by sum"
    assert sum("folded" in how for _, how in report.adapted) == 53
    assert {name for name, _ in report.skipped} == {"logits/kernel", "logits/bias"}
    assert report.probe_difference is not None
    assert report.probe_difference < 1e-3
    assert "probe    greatest difference" in str(report)


@pytest.mark.long
@pytest.mark.parametrize("variant", [101, 152])
def test_deeper_keras_applications(variant: int, tmp_path: Path) -> None:
    source = randomised(
        getattr(keras.applications, f"ResNet{variant}")(weights=None, include_top=False)
    )
    source.save_weights(tmp_path / "a.weights.h5")
    target = resnet(variant, (96, 96, 3), version="1", conv_bias=True, norm_epsilon=1.001e-5)
    difference = load_pretrained(target, tmp_path / "a.weights.h5").probe_difference
    assert difference is not None
    assert difference < 1e-4


@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_a_file_of_this_package(tmp_path: Path, ending: str) -> None:
    options: dict[str, Any] = {
        "width": 4,
        "norm": "group",
        "stochastic_depth": 0.2,
        "squeeze_excite": True,
    }
    source = randomised(classifier(10, (32, 32, 2), 3, **options))
    path = tmp_path / f"m{ending}"
    source.save_weights(path) if ending == ".weights.h5" else source.save(path)
    target = classifier(10, (32, 32, 2), 3, **options)
    report = load_pretrained(target, path)
    np.testing.assert_array_equal(output(target), output(source))
    assert (report.kind, report.missing) == ("medres", ())
    assert report.probe_difference == (0 if ending == ".keras" else None)


def test_another_head_is_skipped_and_said(tmp_path: Path) -> None:
    source = randomised(classifier(10, (32, 32, 1), 3, width=4))
    source.save(tmp_path / "m.keras")
    target = classifier(10, (32, 32, 1), 1, width=4)
    report = load_pretrained(target, tmp_path / "m.keras")
    assert dict(report.skipped) == {
        "logits/kernel": "(32, 3) for (32, 1)",
        "logits/bias": "(3,) for (1,)",
    }
    kernel = target.get_layer("stage4_block1_conv2").kernel
    np.testing.assert_array_equal(
        np.asarray(kernel), np.asarray(source.get_layer("stage4_block1_conv2").kernel)
    )


RGB_STEM = np.random.default_rng(5).normal(size=(3, 3, 3, 4)).astype("float32")


def test_a_segmenter_takes_the_backbone_of_a_detector_that_pads_otherwise(tmp_path: Path) -> None:
    source = detector("resnet10", (40, 72, 3), 2, channels=8, head_depth=1, width=8)
    source.save(tmp_path / "detector.keras")
    model = segmenter("resnet10", (40, 72, 3), 3, width=8)
    report = load_pretrained(model, tmp_path / "detector.keras")
    assert report.probe_difference is not None
    assert report.probe_difference < 1e-4


@pytest.mark.parametrize(
    ("rgb", "channels", "expected"),
    [
        ("sum", 1, RGB_STEM.sum(axis=2, keepdims=True)),
        ("sum", 2, np.repeat(RGB_STEM.sum(axis=2, keepdims=True) / 2, 2, axis=2)),
        ("mean", 1, RGB_STEM.mean(axis=2, keepdims=True)),
        ("copy", 1, RGB_STEM[:, :, :1]),
        ("copy", 5, RGB_STEM[:, :, [0, 1, 2, 0, 1]]),
        ("sum", 3, RGB_STEM),
    ],
)
def test_rgb_filters_on_any_channels(rgb: str, channels: int, expected: np.ndarray) -> None:
    source = resnet(8, (16, 16, 3), stem="cifar", width=4)
    source.get_layer("stem_conv").set_weights([RGB_STEM])
    target = resnet(8, (16, 16, channels), stem="cifar", width=4)
    load_pretrained(target, as_torch(source, TORCHVISION), rgb=rgb)
    np.testing.assert_allclose(
        np.asarray(target.get_layer("stem_conv").kernel), expected, rtol=1e-5, atol=1e-6
    )


def test_inflated_to_3d_a_volume_of_equal_slices_gives_the_slice() -> None:
    source = randomised(resnet(8, (16, 16, 3), stem="cifar", width=4))
    target = resnet(8, (40, 16, 16, 1), stem="cifar", width=4)
    report = load_pretrained(target, as_torch(source, TORCHVISION))
    assert "inflated to depth 3" in dict(report.adapted)["stage1_block1_conv1/kernel"]
    image = np.random.default_rng(1).normal(size=(1, 16, 16, 1)).astype("float32")
    volume = np.repeat(image[:, None], 40, axis=1)
    flat = np.asarray(source(np.repeat(image, 3, axis=-1)))[0]
    np.testing.assert_allclose(
        np.asarray(target(volume))[0, 5], flat, atol=1e-4
    )  # away from the zero border in depth


def test_safetensors_file(tmp_path: Path) -> None:
    source = randomised(resnet(8, (16, 16, 3), stem="cifar", width=4))
    header, body = {}, b""
    for name, value in as_torch(source, TORCHVISION).items():
        data = np.ascontiguousarray(value, "<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(np.shape(value)),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    target = resnet(8, (16, 16, 3), stem="cifar", width=4)
    load_pretrained(target, path)
    np.testing.assert_array_equal(output(target), output(source))


def test_a_source_without_biases_sets_them_to_zero() -> None:
    source = randomised(resnet(8, (16, 16, 1), stem="cifar", width=4))
    target = randomised(resnet(8, (16, 16, 1), stem="cifar", width=4, conv_bias=True), seed=3)
    load_pretrained(target, as_torch(source, TORCHVISION))
    np.testing.assert_allclose(output(target), output(source), atol=1e-6)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("scaling", ["imagenet", "caffe"])
def test_the_sources_scaling_is_folded_into_the_stem(scaling: str, channels: int) -> None:
    source = randomised(resnet(8, (16, 16, 3), stem="cifar", width=4))
    target = classifier(8, (16, 16, channels), 1, stem="cifar", width=4)
    state = as_torch(source, TORCHVISION)
    report = load_pretrained(target, state, scaling=scaling)
    assert "zeros" in str(report.probe_missing)
    display = np.random.default_rng(2).random((1, 16, 16, channels)).astype("float32")
    red_green_blue = np.repeat(display, 3 // channels, axis=-1).astype("float64")
    if scaling == "imagenet":
        expected_input = (red_green_blue - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    else:
        expected_input = keras.applications.resnet.preprocess_input(255 * red_green_blue)
    stems = [keras.Model(m.input, m.get_layer("stem_norm").output) for m in (source, target)]
    expected, got = (
        np.asarray(stems[0](expected_input.astype("float32"))),
        np.asarray(stems[1](display)),
    )
    np.testing.assert_allclose(got[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], rtol=1e-3, atol=1e-3)


SMALL: dict[str, Any] = {"stem": "cifar", "block": "bottleneck", "width": 8}


class TestRefusals:
    @pytest.fixture
    def target(self) -> keras.Model:
        return randomised(resnet(11, (16, 16, 3), **SMALL), seed=4)

    @pytest.fixture
    def state(self) -> dict[str, np.ndarray]:
        return as_torch(resnet(11, (16, 16, 3), **SMALL), TORCHVISION)

    def refused(
        self, target: keras.Model, state: Any, code: str, *mentions: str, **options: Any
    ) -> None:
        before = output(target)
        with raises_code(WeightsError, code, *mentions):
            load_pretrained(target, state, **options)
        np.testing.assert_array_equal(output(target), before)

    def test_missing(self, target: keras.Model, state: dict) -> None:
        del state["layer1.0.conv2.weight"]
        self.refused(target, state, "weights_differ", "stage1_block1_conv2/kernel", "partial=True")

    def test_left_over(self, target: keras.Model, state: dict) -> None:
        state["layer1.1.conv2.weight"] = state["layer1.0.conv2.weight"]
        self.refused(target, state, "weights_differ", "stage1_block2_conv2/kernel")

    def test_shape(self, target: keras.Model, state: dict) -> None:
        state["bn1.weight"] = np.ones(9, "float32")
        self.refused(target, state, "weights_differ", "stem_norm/gamma: (9,) for (8,)")

    def test_values(self, target: keras.Model, state: dict) -> None:
        state["bn1.weight"] = np.full(8, np.nan, "float32")
        self.refused(target, state, "weights_differ", "not finite")

    def test_a_trunk_with_other_parts(self, target: keras.Model, state: dict) -> None:
        state["layer1.0.attention.weight"] = np.ones(8, "float32")
        self.refused(target, state, "unsupported_trunk", "layer1.0.attention.weight")

    def test_two_networks(self, target: keras.Model, state: dict) -> None:
        self.refused(
            target, state | {f"module.{k}": v for k, v in state.items()}, "several_networks"
        )

    def test_no_network(self, target: keras.Model) -> None:
        self.refused(target, {"a": np.ones(3)}, "unknown_names")
        self.refused(target, {}, "unknown_names", "nothing")

    def test_version(self, state: dict) -> None:
        self.refused(
            resnet(11, (16, 16, 3), version="1", **SMALL), state, "other_version", 'version="1.5"'
        )

    def test_keras_applications_v2(self, target: keras.Model) -> None:
        self.refused(
            target, {"conv2_block1_preact_bn/gamma": np.ones(64)}, "unsupported_trunk", "V2"
        )

    def test_rgb(self, target: keras.Model, state: dict) -> None:
        self.refused(target, state, "unknown_choice", "'max'", "sum", rgb="max")

    def test_scaling(self, target: keras.Model, state: dict) -> None:
        self.refused(target, state, "unknown_choice", "'zscore'", "imagenet", scaling="zscore")
        gray = as_torch(resnet(11, (16, 16, 1), **SMALL), TORCHVISION)
        self.refused(target, gray, "scaling", "3 input channels", scaling="imagenet")

    @pytest.mark.parametrize(
        "name", ["a.keras", "a.h5", "a.weights.h5", "a.pth", "a.safetensors", "a.npz"]
    )
    def test_files(self, target: keras.Model, tmp_path: Path, name: str) -> None:
        self.refused(target, tmp_path / name, "no_such_file", name)
        (tmp_path / name).write_bytes(b"not weights at all, " * 9)
        code = "file_format" if name == "a.npz" else "damaged_file"
        self.refused(target, tmp_path / name, code, name)

    def test_partial_loads_what_fits_when_asked(self, target: keras.Model, state: dict) -> None:
        del state["layer1.0.conv2.weight"]
        state["bn1.weight"] = np.ones(9, "float32")
        before = np.asarray(target.get_layer("stage1_block1_conv2").kernel)
        report = load_pretrained(target, state, partial=True)
        assert report.missing == ("stage1_block1_conv2/kernel",)
        assert dict(report.skipped) == {"stem_norm/gamma": "(9,) for (8,)"}
        np.testing.assert_array_equal(
            np.asarray(target.get_layer("stage1_block1_conv2").kernel), before
        )
        stem = np.moveaxis(state["conv1.weight"], (0, 1), (3, 2))
        np.testing.assert_array_equal(np.asarray(target.get_layer("stem_conv").kernel), stem)


@pytest.mark.parametrize(
    ("variant", "file", "accuracy"),
    [
        pytest.param(20, "resnet20-12fca82f.th", 0.998, marks=pytest.mark.long),
        pytest.param(56, "resnet56-4bfd9763.th", 1.0, marks=pytest.mark.long),
    ],
)
def test_published_cifar_weights_recognise_the_lossless_training_images(
    variant: int, file: str, accuracy: float, medres_data: Path
) -> None:
    folder = medres_data / "cifar10"
    images = np.concatenate(
        [
            np.asarray(Image.open(folder / f"cifar10_batch_{i}.png")).reshape(-1, 32, 32, 3)
            for i in range(4)
        ]
    )
    with np.load(folder / "labels.npz") as table:
        labels = table["label"]
    normalised = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    model = classifier(variant, (32, 32, 3), 10, stem="cifar", shortcut="A")
    load_pretrained(model, folder / file)
    predicted = model.predict(
        ((normalised + 1) / 2).astype("float32"), batch_size=200, verbose=0
    ).argmax(axis=1)
    assert (predicted == labels).mean() == pytest.approx(accuracy, abs=5e-4)


@pytest.mark.parametrize(
    ("mapping", "mention"),
    [
        (5, "type int"),
        ([("conv1.weight", 1.0)], "type list"),
        ({"conv1.weight": "text"}, "'conv1.weight' has dtype <U4"),
        ({"conv1.weight": [[1.0], [1.0, 2.0]]}, "'conv1.weight'"),
    ],
)
def test_what_is_no_mapping_of_arrays_is_named(mapping: Any, mention: str) -> None:
    with raises_code(WeightsError, "not_arrays", mention):
        load_pretrained(resnet(8, (12, 12, 3), stem="cifar", width=4), mapping)

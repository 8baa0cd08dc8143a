"""Weights of DenseNets from other packages. The state dicts are written here, name by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import raises_code

import medres
from medres.backbones import DenseNetSpec, backbone, densenet, load_pretrained
from medres.errors import WeightsError

TINY = DenseNetSpec((2, 2, 2, 2), growth=4, width=8)
TORCH_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "bias": "bias",
}


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    random = np.random.default_rng(seed)
    for layer in model.layers:
        layer.set_weights(
            [
                random.uniform(0.5, 1.5, w.shape)
                if w.name in ("gamma", "moving_variance")
                else random.normal(0, 1 / np.sqrt(max(1, np.prod(w.shape[:-1]))), w.shape)
                for w in layer.weights
            ]
        )
    return model


def torchvision(layer: str) -> str:
    """stage2_layer3_norm1 -> features.denseblock2.denselayer3.norm1"""
    stage, _, rest = layer.partition("_")
    fixed = {
        "stem_conv": "features.conv0",
        "stem_norm": "features.norm0",
        "last_norm": "features.norm5",
        "logits": "classifier",
    }
    if layer in fixed:
        return fixed[layer]
    unit, _, part = rest.partition("_")
    if unit == "transition":
        return f"features.transition{int(stage[5:]) - 1}.{part}"
    return f"features.denseblock{stage[5:]}.denselayer{unit[5:]}.{part}"


def chexnet(layer: str) -> str:
    """The names of torch before 0.4, below DataParallel and the class of CheXNet."""
    name = torchvision(layer)
    if "denselayer" in name:
        name = f"{name[:-1]}.{name[-1]}"
    return f"module.densenet121.{name}{'.0' if name == 'classifier' else ''}"


def monai(layer: str) -> str:
    name = torchvision(layer).replace("classifier", "class_layers.out")
    unit, dot, part = name.rpartition(".")
    return f"{unit}.layers.{part}" if "denselayer" in name else f"{unit}{dot}{part}"


def radimagenet(layer: str) -> str:
    return torchvision(layer).replace("features", "backbone.0")


def state_dict(model: keras.Model, naming: Callable[[str], str]) -> dict[str, np.ndarray]:
    state = {}
    for layer in model.layers:
        for w in layer.weights:
            value = np.asarray(w)
            if w.name == "kernel":
                value = np.moveaxis(value, (-1, -2), (0, 1))
            state[f"{naming(layer.name)}.{TORCH_VARIABLES[w.name]}"] = value
            if w.name == "moving_mean":
                state[f"{naming(layer.name)}.num_batches_tracked"] = np.int64(7)
    return state


def output(model: keras.Model) -> np.ndarray:
    shape = [n or 32 for n in model.inputs[0].shape[1:]]
    image = np.random.default_rng(1).normal(size=(1, *shape)).astype("float32")
    return np.asarray(model(image))


@pytest.mark.parametrize(
    ("naming", "variant", "shape", "options"),
    [
        (torchvision, "densenet121", (32, 32, 3), {"growth": 2}),
        (chexnet, "densenet121", (32, 32, 3), {"growth": 2}),
        (monai, "densenet_bc16_k4", (8, 8, 8, 1), {"stem": "cifar"}),
        (chexnet, "densenet10_k4", (8, 8, 1), {"stem": "cifar"}),
    ],
)
def test_a_state_dict_gives_the_same_output(
    naming: Callable[[str], str], variant: str, shape: tuple, options: dict
) -> None:
    source = randomised(medres.classifier(variant, shape, 14, task="multilabel", **options))
    target = medres.classifier(variant, shape, 14, task="multilabel", **options)
    report = load_pretrained(target, state_dict(source, naming))
    np.testing.assert_array_equal(output(target), output(source))
    assert (report.kind, report.skipped, report.missing, report.adapted) == ("torch", (), (), ())
    assert len(report.loaded) == len(target.weights)


def test_the_names_are_those_of_torchvision() -> None:
    """The key of each kind as it stands in torchvision's densenet121 and in CheXNet's file."""
    model = medres.classifier("densenet121", (32, 32, 3), 14, task="multilabel", growth=2)
    assert {
        "features.conv0.weight",
        "features.norm0.running_mean",
        "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock4.denselayer16.conv2.weight",
        "features.transition3.conv.weight",
        "features.norm5.bias",
        "classifier.weight",
    } <= set(state_dict(model, torchvision))
    assert {
        "module.densenet121.features.denseblock1.denselayer1.norm.1.weight",
        "module.densenet121.features.denseblock4.denselayer16.conv.2.weight",
        "module.densenet121.classifier.0.weight",
    } <= set(state_dict(model, chexnet))


def test_a_backbone_skips_the_head_and_adapts_gray_images() -> None:
    source = randomised(medres.classifier("densenet121", (32, 32, 3), 5, growth=2))
    target = densenet(121, (32, 32, 1), growth=2)
    report = load_pretrained(target, state_dict(source, radimagenet) | {"fc.weight": np.ones(2)})
    # the scaling of a classifier is not part of its trunk
    trunk = keras.Model(source.get_layer("scale").output, source.get_layer("stage4").output)
    gray = np.random.default_rng(1).normal(size=(1, 32, 32, 1)).astype("float32")
    expected = np.asarray(trunk(np.repeat(gray, 3, axis=-1)))
    np.testing.assert_allclose(np.asarray(target(gray)), expected, atol=1e-5)
    assert {name for name, _ in report.skipped} == {"logits/kernel", "logits/bias", "fc.weight"}
    assert dict(report.adapted) == {"stem_conv/kernel": "3 input channels to 1, by sum"}


@pytest.mark.long
def test_scaling_and_inflation() -> None:
    """In the middle of the image the stem gives what the source gives on the scaled image."""
    source = randomised(densenet(121, (64, 64, 3), growth=2))
    target = medres.classifier("densenet121", (64, 64, 3), 1, growth=2)
    load_pretrained(target, state_dict(source, torchvision), scaling="imagenet")
    image = np.random.default_rng(2).random((1, 64, 64, 3)).astype("float32")
    scaled = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    stems = [keras.Model(m.input, m.get_layer("stem_norm").output) for m in (source, target)]
    expected, given = (np.asarray(s(x)) for s, x in zip(stems, (scaled, image), strict=True))
    np.testing.assert_allclose(given[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-4)
    volume = densenet(121, (32, 64, 64, 3), growth=2)
    report = load_pretrained(volume, state_dict(source, torchvision))
    how = dict(report.adapted)
    assert "inflated to depth 3" in how["stage4_layer16_conv2/kernel"]
    assert "inflated to depth 7" in how["stem_conv/kernel"]


@pytest.fixture(scope="module")
def application() -> keras.Model:
    return randomised(
        keras.applications.DenseNet121(weights=None, input_shape=(64, 64, 3), classes=7)
    )


@pytest.mark.long
def test_keras_applications_gives_the_same_output(application: keras.Model, tmp_path: Path) -> None:
    application.save(tmp_path / "a.keras")
    target = medres.classifier(
        "densenet121", (64, 64, 3), 7, norm_epsilon=1.001e-5, activation="softmax"
    )
    report = load_pretrained(target, tmp_path / "a.keras")
    assert (report.kind, report.skipped, report.missing) == ("keras.applications", (), ())
    assert report.probe_difference is not None
    assert report.probe_difference < 1e-5
    image = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = np.asarray(application(image))
    assert expected.std() > 0.01
    np.testing.assert_allclose(np.asarray(target((image + 1) / 2)), expected, atol=1e-5)


def test_a_file_of_this_package(tmp_path: Path) -> None:
    source = randomised(backbone(TINY, (32, 32, 3)))
    source.save(tmp_path / "own.keras")
    target = backbone(TINY, (32, 32, 3))
    report = load_pretrained(target, tmp_path / "own.keras")
    np.testing.assert_array_equal(output(target), output(source))
    assert (report.kind, report.missing, report.probe_difference) == ("medres", (), 0)


@pytest.mark.long
@pytest.mark.parametrize("variant", [169, 201])
def test_deeper_keras_applications(variant: int, tmp_path: Path) -> None:
    make = getattr(keras.applications, f"DenseNet{variant}")
    randomised(make(weights=None, include_top=False)).save_weights(tmp_path / "a.weights.h5")
    target = densenet(variant, (96, 96, 3), norm_epsilon=1.001e-5)
    difference = load_pretrained(target, tmp_path / "a.weights.h5").probe_difference
    assert difference is not None
    assert difference < 1e-5


@pytest.mark.long
def test_older_keras_files_have_slashes_in_the_names(
    application: keras.Model, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        layers = [layer for layer in application.layers if layer.weights]
        names = {layer.name: layer.name for layer in layers}
        names |= {"conv1_conv": "conv1/conv", "conv1_bn": "conv1/bn"}
        file.attrs["layer_names"] = [names[layer.name] for layer in layers]
        for layer in layers:
            group = file.create_group(names[layer.name])
            weights = {f"{names[layer.name]}/{w.name}:0": np.asarray(w) for w in layer.weights}
            group.attrs["weight_names"] = list(weights)
            for name, value in weights.items():
                group[name] = value
    target = densenet(121, (64, 64, 3), norm_epsilon=1.001e-5)
    report = load_pretrained(target, tmp_path / "old.h5")
    assert len(report.loaded) == len(target.weights)
    for ours, theirs in (("stem_norm", "conv1_bn"), ("last_norm", "bn")):
        np.testing.assert_array_equal(
            target.get_layer(ours).get_weights(), application.get_layer(theirs).get_weights()
        )


class TestRefusals:
    @pytest.fixture
    def target(self) -> keras.Model:
        return randomised(backbone(TINY, (32, 32, 3)), seed=3)

    @pytest.fixture
    def state(self) -> dict[str, np.ndarray]:
        return state_dict(backbone(TINY, (32, 32, 3)), torchvision)

    def refused(self, target: keras.Model, state: dict, code: str, *mentions: str) -> None:
        before = output(target)
        with raises_code(WeightsError, code, *mentions):
            load_pretrained(target, state)
        np.testing.assert_array_equal(output(target), before)

    def test_missing(self, target: keras.Model, state: dict) -> None:
        del state["features.transition2.conv.weight"]
        self.refused(target, state, "weights_differ", "stage3_transition_conv/kernel")

    def test_another_depth(self, target: keras.Model) -> None:
        deeper = state_dict(
            backbone(DenseNetSpec((2, 2, 3, 2), 4, width=8), (32, 32, 3)), torchvision
        )
        self.refused(target, deeper, "weights_differ", "stage3_layer3_norm1/gamma")

    def test_another_family(self, target: keras.Model, state: dict) -> None:
        resnet = medres.backbones.resnet(10, (32, 32, 3), width=4)
        with raises_code(WeightsError, "weights_differ", "stage1_block1_conv1/kernel"):
            load_pretrained(resnet, state)

    def test_a_part_that_is_not_built(self, target: keras.Model, state: dict) -> None:
        state["features.denseblock1.denselayer1.attention.weight"] = np.ones(3)
        self.refused(target, state, "unsupported_trunk", "denselayer1.attention")

    def test_two_networks(self, target: keras.Model, state: dict) -> None:
        both = state | {f"module.{name}": value for name, value in state.items()}
        self.refused(target, both, "several_networks")

    def test_a_bias_of_a_convolution_is_not_folded_into_the_norm_before_it(self) -> None:
        """In this net the norm before a 1x1 has as many channels as its outputs."""
        spec = DenseNetSpec((2, 1, 1, 1), growth=4, width=12)
        source = randomised(
            backbone(DenseNetSpec((2, 1, 1, 1), 4, width=12, conv_bias=True), (32, 32, 3))
        )
        state = state_dict(source, torchvision)
        name = "features.denseblock1.denselayer2"
        assert state[f"{name}.conv1.bias"].shape == state[f"{name}.norm1.bias"].shape == (16,)
        self.refused(backbone(spec, (32, 32, 3)), state, "weights_differ", "_conv1/bias")
        target = backbone(DenseNetSpec((2, 1, 1, 1), 4, width=12, conv_bias=True), (32, 32, 3))
        load_pretrained(target, state)
        np.testing.assert_array_equal(output(target), output(source))

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import pytest

import medres
from medres.backbones import (
    DenseNetSpec,
    backbone,
    densenet,
    fold_batch_norm,
    fused_training_copy,
    pyramid,
)
from medres.explain import saliency_map

#: Two layers in each block, so that every kind of layer is there.
TINY = DenseNetSpec((2, 2, 2, 2), growth=4, width=8)


def count(weights: list) -> int:
    return sum(math.prod(w.shape) for w in weights)


def head(model: keras.Model, classes: int) -> int:
    return (model.output.shape[-1] + 1) * classes


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Every weight drawn anew, variances positive."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        layer.set_weights(
            [
                random.uniform(0.5, 1.5, w.shape)
                if w.name in ("gamma", "moving_variance")
                else random.normal(0, 1 / np.sqrt(max(1, math.prod(w.shape[:-1]))), w.shape)
                for w in layer.weights
            ]
        )
    return model


@pytest.mark.parametrize(
    ("variant", "torchvision", "keras_applications"),
    [
        (121, 7_978_856, 8_062_504),
        # by default the smallest; the others take seconds and differ in the number of layers
        pytest.param(169, 14_149_480, 14_307_880, marks=pytest.mark.long),
        pytest.param(201, 20_013_928, 20_242_984, marks=pytest.mark.long),
        pytest.param(161, 28_681_000, 28_900_936, marks=pytest.mark.long),
    ],
)
def test_parameters_equal_those_of_torchvision_and_of_keras_applications(
    variant: int, torchvision: int, keras_applications: int
) -> None:
    model = densenet(variant, (32, 32, 3))
    assert count(model.trainable_weights) + head(model, 1000) == torchvision
    assert count(model.weights) + head(model, 1000) == keras_applications


@pytest.mark.parametrize(
    ("variant", "growth", "parameters", "published"),
    [
        ("densenet40", 12, 1_019_722, 1.0),
        ("densenet40", 24, 3_877_402, None),  # not in the paper
        ("densenet100", 12, 6_979_642, 7.0),
        ("densenet100", 24, 27_249_082, 27.2),
        ("densenet_bc100", 12, 769_162, 0.8),
        ("densenet_bc100", 24, 3_020_506, None),
        pytest.param("densenet_bc250", 24, 15_324_406, 15.3, marks=pytest.mark.long),
        pytest.param("densenet_bc190", 40, 25_624_430, 25.6, marks=pytest.mark.long),
    ],
)
def test_the_parameters_of_cifar_nets_round_to_those_of_table_2(
    variant: str, growth: int, parameters: int, published: float | None
) -> None:
    model = densenet(variant, (32, 32, 3), stem="cifar", growth=growth)
    millions = (count(model.trainable_weights) + head(model, 10)) / 1e6
    assert millions == parameters / 1e6
    assert published in (None, round(millions, 1))


def test_parameters_of_the_3d_network_are_those_of_monai() -> None:
    """DenseNet121(spatial_dims=3, in_channels=1, out_channels=2): each kernel of 3 x 3 or 7 x 7 is
    3 or 7 times as large, and the stem reads one channel.
    """
    volume = densenet(121, (32, 32, 32, 1))
    image = densenet(121, (32, 32, 3))
    expected = count(image.trainable_weights)
    expected += 2 * 9 * 128 * 32 * (6 + 12 + 24 + 16) - 7 * 7 * 3 * 64 + 7**3 * 64
    assert count(volume.trainable_weights) == expected
    assert expected + head(volume, 2) == 11_244_674


@pytest.mark.parametrize(
    ("shape", "options", "stages"),
    [  # the first two are table 1 of the paper
        ((224, 224, 3), {}, [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 1024)]),
        (
            (32, 64, 224, 1),
            {},
            [(8, 16, 56, 256), (4, 8, 28, 512), (2, 4, 14, 1024), (1, 2, 7, 1024)],
        ),
        ((70, 65, 4), {"growth": 4}, [(18, 17, 32), (9, 8, 64), (4, 4, 128), (2, 2, 128)]),
        (
            (16, 16, 16, 1),
            {"stem": "small", "growth": 4},
            [(16, 16, 16, 32), (8, 8, 8, 64), (4, 4, 4, 128), (2, 2, 2, 128)],
        ),
    ],
)
def test_shapes_of_the_named_stages(shape: tuple, options: dict, stages: list[tuple]) -> None:
    model = densenet(121, shape, **options)
    assert [model.get_layer(f"stage{i + 1}").output.shape[1:] for i in range(4)] == stages
    assert model.output.shape[1:] == stages[-1]
    assert {name: x.shape[1:] for name, x in pyramid(model).output.items()} == {
        f"stage{i + 1}": stage for i, stage in enumerate(stages)
    }


def test_an_axis_may_be_unknown() -> None:
    model = backbone(TINY, (None, None, 1))
    assert model(np.zeros((1, 64, 96, 1), "float32")).shape == (1, 2, 3, 16)


# One reference, written from section 3 of the paper with numpy alone.


def reference_conv(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Cross-correlation with zeros around the image, for any number of axes."""
    sides = kernel.shape[:-2]
    x = np.pad(x, [((k - 1) // 2,) * 2 for k in sides] + [(0, 0)])
    size = [(n - k) // stride + 1 for n, k in zip(x.shape[:-1], sides, strict=True)]
    out = np.zeros((*size, kernel.shape[-1]))
    for at in np.ndindex(*size):
        patch = x[tuple(slice(i * stride, i * stride + k) for i, k in zip(at, sides, strict=True))]
        out[at] = np.tensordot(patch, kernel, len(sides) + 1)
    return out


def reference_pool(x: np.ndarray, size: int, pad: int, function: Any) -> np.ndarray:
    """Windows of size^rank with stride 2."""
    x = np.pad(x, [(pad, pad)] * (x.ndim - 1) + [(0, 0)])
    sides = [(n - size) // 2 + 1 for n in x.shape[:-1]]
    out = np.zeros((*sides, x.shape[-1]))
    for at in np.ndindex(*sides):
        patch = x[tuple(slice(2 * i, 2 * i + size) for i in at)]
        out[at] = function(patch, axis=tuple(range(patch.ndim - 1)))
    return out


class Reference:
    def __init__(self, model: keras.Model, spec: DenseNetSpec) -> None:
        self.model, self.spec = model, spec

    def conv(self, x: np.ndarray, name: str, stride: int = 1) -> np.ndarray:
        return reference_conv(x, np.asarray(self.model.get_layer(name).kernel, "f8"), stride)

    def norm_relu(self, x: np.ndarray, name: str) -> np.ndarray:
        values = [np.asarray(w, "f8") for w in self.model.get_layer(name).weights]
        gamma, beta, mean, variance = values
        return np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)

    def layer(self, x: np.ndarray, name: str) -> np.ndarray:
        y = self.conv(self.norm_relu(x, f"{name}_norm1"), f"{name}_conv1")
        if self.spec.bottleneck:
            y = self.conv(self.norm_relu(y, f"{name}_norm2"), f"{name}_conv2")
        return np.concatenate([x, y], axis=-1)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        stem = self.spec.stem
        x = self.conv(x, "stem_conv", 2 if stem == "imagenet" else 1)
        if stem != "cifar":
            x = self.norm_relu(x, "stem_norm")
        if stem == "imagenet":
            x = reference_pool(x, 3, 1, np.max)
        for stage, depth in enumerate(self.spec.depths, start=1):
            if stage > 1:
                name = f"stage{stage}_transition"
                x = self.conv(self.norm_relu(x, f"{name}_norm"), f"{name}_conv")
                x = reference_pool(x, 2, 0, np.mean)
            for layer in range(1, depth + 1):
                x = self.layer(x, f"stage{stage}_layer{layer}")
        return self.norm_relu(x, "last_norm")


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (TINY, (37, 34, 2)),
        (DenseNetSpec((1, 1, 1, 2), growth=3, width=4, stem="small"), (9, 8, 1)),
        (DenseNetSpec((2, 2, 2), 3, False, 1.0, "cifar", 5), (7, 6, 3)),
        (DenseNetSpec((2, 1, 1), 3, True, 0.5, "cifar", 5), (4, 5, 6, 2)),
        (DenseNetSpec((1, 1, 1, 1), growth=2, width=4), (33, 32, 32, 1)),
    ],
)
def test_a_network_is_the_papers_formula(spec: DenseNetSpec, shape: tuple[int, ...]) -> None:
    model = randomised(backbone(spec, shape))
    image = np.random.default_rng(1).normal(size=shape).astype("float32")
    expected = Reference(model, spec)(image.astype("f8"))
    assert expected.std() > 0.1
    np.testing.assert_allclose(np.asarray(model(image[None]))[0], expected, atol=2e-5)


def test_only_built_in_layers() -> None:
    for layer in backbone(TINY, (32, 32, 1)).layers:
        assert getattr(keras.layers, type(layer).__name__) is type(layer)


def test_folded_and_fused_copies_give_the_same_output() -> None:
    model = randomised(backbone(TINY, (32, 32, 1)))
    image = np.random.default_rng(2).normal(size=(2, 32, 32, 1)).astype("float32")
    folded, fused = fold_batch_norm(model), fused_training_copy(model)
    for copy in (folded, fused):
        np.testing.assert_allclose(np.asarray(copy(image)), np.asarray(model(image)), atol=1e-5)
    norms = [m for m in folded.layers if isinstance(m, keras.layers.BatchNormalization)]
    # the stem and the second norm of each layer follow a convolution; the others a concatenation
    assert len(norms) == 8 + 3 + 1
    before = np.asarray(model.get_layer("last_norm").moving_mean)
    fused(image, training=True)
    assert np.abs(np.asarray(model.get_layer("last_norm").moving_mean) - before).max() > 1e-3


def test_the_summary_counts_each_transition_to_the_stage_that_it_begins() -> None:
    total = medres.summary(densenet(121, (224, 224, 3))).total
    assert total.parameters == 8_062_504 - 1_025_000
    assert (total.stride, total.output_shape) == (32, (7, 7, 1024))
    # torchvision's 2.83 G with the classifier
    assert total.multiply_adds + 1024 * 1000 == pytest.approx(2.83e9, rel=5e-3)
    parts = {part.name: part for part in medres.summary(backbone(TINY, (64, 64, 1))).parts}
    assert list(parts) == ["input", "stem", "stage1", "stage2", "stage3", "stage4"]
    assert [part.stride for part in parts.values()] == [1, 4, 4, 8, 16, 32]
    assert parts["stage1"].output_shape == (16, 16, 16)


@pytest.mark.long
def test_it_trains_under_xla() -> None:
    keras.utils.set_random_seed(0)
    model = medres.classifier("densenet7_k4", (16, 16, 1), 2, stem="cifar")
    labels = np.arange(32) % 2
    images = np.random.default_rng(0).random((32, 16, 16, 1)).astype("float32")
    images[labels == 1, :8] += 1
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=True)
    history = model.fit(images, labels, batch_size=16, epochs=8, verbose=0, shuffle=False)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]


def test_grad_cam_is_the_formula_on_the_last_feature_map() -> None:
    """The last feature map is never negative: with positive weights of the head, Grad-CAM is its
    weighted sum; with negative weights it is zero.
    """
    model = randomised(medres.classifier("densenet10_k4", (16, 16, 1), 1, stem="cifar"))
    image = np.random.default_rng(3).random((16, 16, 1)).astype("float32")
    maps = keras.Model(model.input, model.get_layer("stage3").output)(image[None])
    weights = np.random.default_rng(4).random((maps.shape[-1], 1))
    expected = np.asarray(maps)[0] @ weights[:, 0] / 16  # a mean over 4 x 4 positions
    for sign in (1, -1):
        model.get_layer("logits").set_weights([sign * weights, np.zeros(1)])
        values = saliency_map(model, image, method="gradcam")
        assert values.shape == (16, 16)
        if sign < 0:
            assert not values.any()
        else:
            assert np.corrcoef(values[2::4, 2::4].ravel(), expected.ravel())[0, 1] > 0.9
            assert values.max() <= expected.max() * (1 + 1e-5)


@pytest.mark.parametrize(
    ("variant", "options", "shape"),
    [
        ("densenet121", {"growth": 4}, (64, 64, 1)),
        ("densenet_bc10_k4", {"stem": "cifar"}, (16, 16, 1)),
        ("densenet121", {"growth": 2, "windows": ["lung", "bone"]}, (32, 32, 32, 1)),
    ],
)
def test_the_classifier_takes_densenets(variant: str, options: dict, shape: tuple) -> None:
    model = medres.classifier(variant, shape, ["a", "b"], task="multilabel", **options)
    assert model.output.shape == (None, 2)
    assert np.isfinite(np.asarray(model(np.ones((1, *shape), "float32")))).all()
    assert model.get_layer("stage1").output.shape[0] is None


def test_dropout_after_each_convolution_but_the_first_and_only_while_training() -> None:
    """Section 4.2 of the paper."""
    plain = backbone(TINY, (64, 64, 1))
    dropping = backbone(dataclasses.replace(TINY, dropout=0.2), (64, 64, 1))
    for layer in randomised(plain).layers:
        dropping.get_layer(layer.name).set_weights(layer.get_weights())
    drops = [layer.name for layer in dropping.layers if isinstance(layer, keras.layers.Dropout)]
    assert sorted(drops) == sorted(
        layer.name.replace("conv", "drop")
        for layer in dropping.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.name != "stem_conv"
    )
    images = np.random.default_rng(0).random((1, 64, 64, 1)).astype("float32")
    expected = np.asarray(plain(images))
    np.testing.assert_array_equal(np.asarray(dropping(images)), expected)
    assert np.abs(np.asarray(dropping(images, training=True)) - expected).max() > 1e-3
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in plain.layers)

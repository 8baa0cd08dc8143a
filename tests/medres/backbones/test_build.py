from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from helpers import raises_code

from medres.backbones.build import backbone, pyramid, resnet
from medres.backbones.variants import resnet_spec
from medres.errors import ModelError


def count(weights: list) -> int:
    return sum(math.prod(w.shape) for w in weights)


def head(model: keras.Model, classes: int) -> int:
    return (model.output.shape[-1] + 1) * classes


@pytest.mark.parametrize(
    ("variant", "options", "published"),
    [
        (18, {}, 11_689_512),
        (34, {}, 21_797_672),
        (50, {}, 25_557_032),
        pytest.param(101, {}, 44_549_160, marks=pytest.mark.long),
        pytest.param(152, {}, 60_192_808, marks=pytest.mark.long),
        (50, {"version": "1"}, 25_557_032),
        (18, {"residual": False}, 11_515_688),
        (34, {"residual": False}, 21_623_848),
        ("resnext50_32x4d", {}, 25_028_904),
        ("wide_resnet50_2", {}, 68_883_240),
    ],
)
def test_trainable_parameters_equal_torchvisions(
    variant: int | str, options: dict, published: int
) -> None:
    model = resnet(variant, (64, 64, 3), **options)
    assert count(model.trainable_weights) + head(model, 1000) == published


@pytest.mark.parametrize(
    ("variant", "published"),
    [
        (20, 269_722),
        (32, 464_154),
        (44, 658_586),
        (56, 853_018),
        pytest.param(110, 1_727_962, marks=pytest.mark.long),
        pytest.param(1202, 19_421_274, marks=pytest.mark.long),
    ],
)
def test_cifar_parameters_and_those_of_the_plain_twin(variant: int, published: int) -> None:
    for residual in (True, False):
        model = resnet(variant, (32, 32, 3), stem="cifar", shortcut="A", residual=residual)
        assert count(model.trainable_weights) + head(model, 10) == published


@pytest.mark.parametrize(
    ("variant", "published"),
    [
        (50, 25_636_712),
        pytest.param(101, 44_707_176, marks=pytest.mark.long),
        pytest.param(152, 60_419_944, marks=pytest.mark.long),
    ],
)
def test_all_parameters_equal_those_of_keras_applications(variant: int, published: int) -> None:
    model = resnet(variant, (64, 64, 3), version="1", conv_bias=True)
    assert count(model.weights) + head(model, 1000) == published


@pytest.mark.parametrize(
    ("variant", "shape", "options", "stages"),
    [
        (18, (64, 96, 1), {}, [(16, 24, 64), (8, 12, 128), (4, 6, 256), (2, 3, 512)]),
        (50, (65, 65, 4), {"width": 8}, [(17, 17, 32), (9, 9, 64), (5, 5, 128), (3, 3, 256)]),
        (
            50,
            (64, 64, 1),
            {"width": 8, "output_stride": 16},
            [(16, 16, 32), (8, 8, 64), (4, 4, 128), (4, 4, 256)],
        ),
        (
            18,
            (16, 16, 1),
            {"stem": "small", "width": 8},
            [(16, 16, 8), (8, 8, 16), (4, 4, 32), (2, 2, 64)],
        ),
        (20, (33, 33, 3), {"stem": "cifar"}, [(33, 33, 16), (17, 17, 32), (9, 9, 64)]),
        (
            10,
            (32, 48, 64, 1),
            {"width": 4},
            [(8, 12, 16, 4), (4, 6, 8, 8), (2, 3, 4, 16), (1, 2, 2, 32)],
        ),
    ],
)
@pytest.mark.parametrize("version", ["1", "1.5", "2", "d"])
def test_shapes_of_the_named_stages(
    variant: int, shape: tuple, options: dict, stages: list[tuple], version: str
) -> None:
    model = resnet(variant, shape, version=version, **options)
    assert [model.get_layer(f"stage{i + 1}").output.shape[1:] for i in range(len(stages))] == stages
    assert model.output.shape[1:] == stages[-1]


def test_version_decides_which_convolution_strides() -> None:
    assert _strides(resnet(50, (32, 32, 1), width=4, version="1")) == {
        "conv1": (2, 2),
        "conv2": (1, 1),
    }
    assert _strides(resnet(50, (32, 32, 1), width=4, version="1.5")) == {
        "conv1": (1, 1),
        "conv2": (2, 2),
    }


def _strides(model: keras.Model) -> dict[str, tuple[int, int]]:
    return {name: model.get_layer(f"stage2_block1_{name}").strides for name in ("conv1", "conv2")}


@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 3), ("C", 8)])
def test_shortcut_option_decides_the_projections(shortcut: str, projections: int) -> None:
    model = resnet(18, (32, 32, 1), width=4, shortcut=shortcut)
    assert sum(layer.name.endswith("shortcut_conv") for layer in model.layers) == projections


def test_the_plain_twin_has_no_addition() -> None:
    kinds = [type(layer) for layer in resnet(18, (32, 32, 1), width=4, residual=False).layers]
    assert keras.layers.Add not in kinds


# One reference, written from the formulae with numpy alone: cross-correlation, batch statistics of
# inference, zero padding.


def reference_conv(x: np.ndarray, kernel: np.ndarray, stride: int, pad: int) -> np.ndarray:
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    k = kernel.shape[0]
    rows, cols = ((n - k) // stride + 1 for n in x.shape[:2])
    out = np.zeros((rows, cols, kernel.shape[3]))
    for i in range(rows):
        for j in range(cols):
            patch = x[i * stride : i * stride + k, j * stride : j * stride + k]
            out[i, j] = np.tensordot(patch, kernel, 3)
    return out


class Reference:
    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def conv(self, x: np.ndarray, name: str, stride: int = 1) -> np.ndarray:
        kernel = np.asarray(self.model.get_layer(name).kernel)
        return reference_conv(x, kernel, stride, (kernel.shape[0] - 1) // 2)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        gamma, beta, mean, variance = (np.asarray(w) for w in self.model.get_layer(name).weights)
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def relu_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return np.maximum(self.norm(x, name), 0)


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Every weight drawn anew, variances positive."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        values = [
            random.normal(0, 1 / np.sqrt(max(1, math.prod(w.shape[:-1]))), w.shape)
            for w in layer.weights
        ]
        if isinstance(layer, keras.layers.BatchNormalization):
            values = [
                random.uniform(0.5, 1.5, w.shape) if w.name in ("gamma", "moving_variance") else v
                for w, v in zip(layer.weights, values, strict=True)
            ]
        layer.set_weights(values)
    return model


@pytest.mark.parametrize(
    ("shortcut", "channel_padding"), [("A", "both"), ("A", "end"), ("B", "both")]
)
def test_a_post_activation_network_is_the_papers_formula(
    shortcut: str, channel_padding: str
) -> None:
    model = randomised(
        resnet(
            8, (7, 6, 2), stem="cifar", width=4, shortcut=shortcut, channel_padding=channel_padding
        )
    )
    image = np.random.default_rng(1).normal(size=(7, 6, 2))
    net = Reference(model)
    x = net.relu_norm(net.conv(image, "stem_conv"), "stem_norm")
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        block = f"stage{stage}_block1"
        y = net.relu_norm(net.conv(x, f"{block}_conv1", stride), f"{block}_norm1")
        y = net.norm(net.conv(y, f"{block}_conv2"), f"{block}_norm2")
        if stride == 2 and shortcut == "B":
            x = net.norm(net.conv(x, f"{block}_shortcut_conv", stride), f"{block}_shortcut_norm")
        elif stride == 2:
            old = x.shape[-1]
            zeros = (old // 2, old // 2) if channel_padding == "both" else (0, old)
            x = np.pad(x[::2, ::2], ((0, 0), (0, 0), zeros))
        x = np.maximum(x + y, 0)
    np.testing.assert_allclose(np.asarray(model(image[None].astype("float32")))[0], x, atol=2e-5)


def test_a_pre_activation_network_is_the_papers_formula() -> None:
    model = randomised(resnet(8, (7, 6, 2), stem="cifar", width=4, version="2"))
    image = np.random.default_rng(1).normal(size=(7, 6, 2))
    net = Reference(model)
    x = net.relu_norm(net.conv(image, "stem_conv"), "stem_norm")
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        block = f"stage{stage}_block1"
        active = x if stage == 1 else net.relu_norm(x, f"{block}_norm0")
        y = net.relu_norm(net.conv(active, f"{block}_conv1", stride), f"{block}_norm1")
        y = net.conv(y, f"{block}_conv2")
        x = y + (net.conv(active, f"{block}_shortcut_conv", stride) if stride == 2 else x)
    x = net.relu_norm(x, "last_norm")
    np.testing.assert_allclose(np.asarray(model(image[None].astype("float32")))[0], x, atol=2e-5)


def test_a_3d_network_of_flat_kernels_equals_its_2d_twin_on_a_constant_volume() -> None:
    flat = randomised(resnet(10, (32, 32, 1), width=4, stem="small"))
    deep = resnet(10, (32, 32, 32, 1), width=4, stem="small")
    for layer in flat.layers:
        values = layer.get_weights()
        if isinstance(layer, keras.layers.Conv2D):
            k = values[0].shape[0]
            values[0] = np.stack([values[0] if i == k // 2 else 0 * values[0] for i in range(k)])
        deep.get_layer(layer.name).set_weights(values)
    image = np.random.default_rng(2).normal(size=(1, 32, 32, 1)).astype("float32")
    volume = np.repeat(image[:, None], 32, axis=1)
    np.testing.assert_allclose(
        np.asarray(deep(volume))[0, 1], np.asarray(flat(image))[0], atol=1e-4
    )


def test_dilation_keeps_the_pixels_that_the_stride_would_have_kept() -> None:
    options: dict[str, Any] = {"stem": "small", "width": 4}
    strided = randomised(resnet(10, (32, 32, 1), **options))
    dilated = resnet(10, (32, 32, 1), output_stride=4, **options)
    dilated.set_weights(strided.get_weights())
    image = np.random.default_rng(3).normal(size=(1, 32, 32, 1)).astype("float32")
    # The second 3x3 of the stage reads every other pixel in both; the first one differs in nothing
    # but where it is evaluated.
    np.testing.assert_allclose(
        np.asarray(dilated(image))[:, ::2, ::2], np.asarray(strided(image)), atol=1e-5
    )


def test_group_norm_and_squeeze_excite_are_where_they_should_be() -> None:
    model = resnet(50, (32, 32, 1), width=24, norm="group", squeeze_excite=True)
    assert model.get_layer("stem_norm").groups == 24
    assert model.get_layer("stage1_block1_norm3").groups == 32
    assert model.get_layer("stage1_block1_se_reduce").filters == 6
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def test_sync_norm_is_synchronised() -> None:
    assert resnet(18, (32, 32, 1), width=4, norm="sync").get_layer("stem_norm").synchronized


def test_zero_gamma_makes_each_block_pass_its_input_on() -> None:
    model = resnet(18, (16, 16, 1), width=4, stem="small", zero_gamma=True)
    before, after = (model.get_layer(name).output for name in ("stem_relu", "stage1"))
    image = np.random.default_rng(4).normal(size=(1, 16, 16, 1)).astype("float32")
    a, b = keras.Model(model.input, [before, after])(image)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_stochastic_depth_leaves_whole_branches_out_image_by_image() -> None:
    model = resnet(10, (16, 16, 1), width=4, stem="small", stochastic_depth=0.5)
    branch = model.get_layer("stage4_block1_drop")
    ones = np.ones((400, 2, 2, 32), "float32")
    seen = np.asarray(branch(ones, training=True)).reshape(400, -1)
    assert set(np.unique(seen)) == {0.0, 2.0}
    assert (seen == seen[:, :1]).all()
    assert 150 < (seen[:, 0] == 0).sum() < 250
    np.testing.assert_array_equal(np.asarray(branch(ones, training=False)), ones)


def test_weights_are_drawn_as_he_et_al_draw_them() -> None:
    keras.utils.set_random_seed(1)
    kernel = np.asarray(resnet(18, (32, 32, 1)).get_layer("stage4_block2_conv1").kernel)
    assert kernel.std() == pytest.approx(math.sqrt(2 / (9 * 512)), rel=0.01)
    assert abs(kernel.mean()) < 1e-4


def test_the_pyramid_gives_the_stages_and_shares_the_weights() -> None:
    model = resnet(18, (64, 64, 1), width=4)
    outputs = pyramid(model)(np.zeros((1, 64, 64, 1), "float32"))
    assert {name: x.shape[1:] for name, x in outputs.items()} == {
        f"stage{i + 1}": (16 >> i, 16 >> i, 4 << i) for i in range(4)
    }
    assert pyramid(model).get_layer("stem_conv").kernel is model.get_layer("stem_conv").kernel
    with raises_code(ModelError, "no_stages", "stage1"):
        pyramid(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="other"))


def test_only_built_in_layers() -> None:
    for version in ("1.5", "2", "d"):
        spec = resnet_spec(
            10, version=version, squeeze_excite=True, stochastic_depth=0.1, shortcut="A"
        )
        for layer in backbone(spec, (32, 32, 1)).layers:
            assert keras.saving.get_registered_name(type(layer)) == type(layer).__name__
            assert getattr(keras.layers, type(layer).__name__) is type(layer)


@pytest.mark.parametrize(
    ("shape", "mentions"),
    [
        ((16, 64, 1), ["16", "32", 'stem="small"']),
        ((64, 64), ["(height, width, channels)"]),
        ((64, 64, 0), ["0"]),
        ((64, 64.0, 1), ["64.0"]),
        ((64, 64, None), ["channel"]),
        (64, ["64"]),
        ((1, 2, 3, 4, 5), ["(1, 2, 3, 4, 5)"]),
    ],
)
def test_an_input_that_cannot_work_is_named(shape: Any, mentions: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        resnet(18, shape)
    assert caught.value.code == "input_shape"
    for value in mentions:
        assert value in str(caught.value)


@pytest.mark.parametrize(
    ("version", "block"), [("1", "bottleneck"), ("1.5", "basic"), ("2", "basic")]
)
def test_narrow_nets_have_no_strided_1x1_and_give_what_it_would(version: str, block: str) -> None:
    """The gradient of one crashes TensorFlow 2.21 on CPUs with AVX-512 where its input has fewer
    than 16 channels.
    """
    net = resnet(18, (32, 32, 1), version=version, block=block, stem="small", width=8)
    convs = [layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]
    assert all(
        c.strides == (1, 1) or c.kernel_size != (1, 1) or c.input.shape[-1] >= 16 for c in convs
    )
    picks = [layer for layer in net.layers if layer.name.endswith("_pick")]
    assert bool(picks) == (block == "basic")
    x = np.random.default_rng(0).normal(size=(2, 9, 10, 3)).astype("float32")
    for pick in picks:
        np.testing.assert_array_equal(pick(x), x[:, ::2, ::2])

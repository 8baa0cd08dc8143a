from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers import raises_code

from medres.backbones.build import resnet
from medres.backbones.model_summary import summary
from medres.errors import ModelError
from medres.models.classification import classifier


@pytest.mark.parametrize(
    ("variant", "options", "giga", "parameters", "field"),
    [
        (18, {}, 1.814, 11_689_512, 435),
        (34, {}, 3.664, 21_797_672, 899),
        (50, {}, 4.089, 25_557_032, 427),
        (50, {"version": "1"}, 3.858, 25_557_032, 483),
        pytest.param(101, {}, 7.801, 44_549_160, 971, marks=pytest.mark.long),
        pytest.param(152, {}, 11.514, 60_192_808, 1451, marks=pytest.mark.long),
    ],
)
def test_published_figures(
    variant: int, options: dict, giga: float, parameters: int, field: int
) -> None:
    total = summary(classifier(variant, (224, 224, 3), 1000, **options)).total
    assert total.multiply_adds / 1e9 == pytest.approx(giga, rel=0.005)
    assert total.trainable == parameters
    assert total.receptive_field == field
    assert total.stride == 32


def test_a_network_counted_by_hand() -> None:
    # 8 x 6 x 2 -> stem 3x3 to 4 channels; three stages of one basic block: 4, 8, 16 channels; a
    # head of 3.
    report = summary(classifier(8, (8, 6, 2), 3, stem="cifar", width=4))
    assert [part.name for part in report.parts] == [
        "input",
        "stem",
        "stage1",
        "stage2",
        "stage3",
        "head",
    ]
    stage2 = report.parts[3]
    assert stage2.output_shape == (4, 3, 8)
    kernels = 9 * 4 * 8 + 9 * 8 * 8 + 4 * 8
    assert stage2.multiply_adds == kernels * 4 * 3
    assert stage2.trainable == kernels + 3 * 2 * 8
    assert stage2.parameters == kernels + 3 * 4 * 8
    # pad, every second pixel of 4 channels, conv1, norm1, relu1, conv2, norm2, projection, its
    # norm, sum, relu
    assert stage2.activation_bytes == 4 * (10 * 8 * 4 + 4 * 3 * 4 + 9 * 4 * 3 * 8)
    assert report.parts[-1].multiply_adds == 16 * 3
    assert report.total.parameters == sum(part.parameters for part in report.parts)


def test_parameters_are_kerass_own_count() -> None:
    options: dict[str, Any] = {
        "squeeze_excite": True,
        "stochastic_depth": 0.2,
        "norm": "group",
        "shortcut": "C",
    }
    model = resnet(50, (64, 64, 2), width=8, **options)
    assert summary(model).total.parameters == sum(
        int(np.prod(w.shape)) for w in model.trainable_weights
    )


def test_another_input_shape_scales_the_work_and_not_the_parameters() -> None:
    model = resnet(18, (64, 64, 1), width=8, shortcut="A")
    small, large = summary(model).total, summary(model, (128, 192, 1)).total
    assert large.output_shape == (4, 6, 64)
    assert large.multiply_adds == 6 * small.multiply_adds
    assert large.parameters == small.parameters
    open_model = resnet(18, (None, None, 1), width=8, shortcut="A")
    assert summary(open_model, (64, 64, 1)).total.multiply_adds == small.multiply_adds


def test_half_precision_halves_the_memory() -> None:
    full = summary(resnet(10, (64, 64, 1), width=8)).total.activation_bytes
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = summary(resnet(10, (64, 64, 1), width=8)).total.activation_bytes
    finally:
        keras.config.set_dtype_policy(before)
    assert full == 2 * half


@pytest.mark.parametrize(
    "options", [{}, {"version": "2"}, {"output_stride": 1}, {"block": "bottleneck", "version": "1"}]
)
def test_the_receptive_field_is_where_a_change_is_felt(options: dict) -> None:
    variant = 11 if options.get("block") else 8
    model = resnet(variant, (97, 97, 1), stem="cifar", width=4, **options)
    for layer in model.layers:
        layer.set_weights(
            [
                np.full(w.shape, 0.0 if w.name in ("beta", "moving_mean") else 1.0)
                for w in layer.weights
            ]
        )
    impulses = np.zeros((97, 97, 97, 1), "float32")
    impulses[np.arange(97), 48, np.arange(97), 0] = 1.0
    centre = 48 // summary(model).total.stride
    felt = np.asarray(model.predict(impulses, verbose=0))[:, centre, centre].max(axis=-1) > 0
    assert felt.sum() == summary(model).total.receptive_field


def test_volumes() -> None:
    total = summary(resnet(10, (32, 64, 64, 1), width=4)).total
    assert total.output_shape == (1, 2, 2, 32)
    assert total.stride == 32


def test_it_prints_a_table() -> None:
    lines = str(summary(classifier(10, (64, 64, 1), 1, width=8))).splitlines()
    assert lines[0].split() == [
        "output",
        "parameters",
        "trainable",
        "multiply-adds",
        "activations",
        "sees",
        "stride",
    ]
    assert [line.split()[0] for line in lines[1:]] == [
        "input",
        "stem",
        "stage1",
        "stage2",
        "stage3",
        "stage4",
        "head",
        "total",
    ]
    assert len({len(line) for line in lines}) == 1


def test_other_keras_models_count_too() -> None:
    model = keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    assert summary(model).total.multiply_adds == 8 * 8 * 9 * 3 + 8 * 8 * 3 * 2


def test_what_cannot_be_counted_is_named() -> None:
    with raises_code(ModelError, "input_shape", "3 whole numbers"):
        summary(resnet(10, (64, 64, 1), width=4), (64, 64))
    with raises_code(ModelError, "input_shape"):
        summary(resnet(10, (None, None, 1), width=4))
    with raises_code(ModelError, "input_shape", "1 channels"):
        summary(resnet(10, (64, 64, 1), width=4), (64, 64, 3))
    with raises_code(ModelError, "input_shape", "pooling"):
        summary(
            keras.Sequential(
                [keras.Input((None, None, 1)), keras.layers.MaxPooling2D(4, name="pooling")]
            ),
            (2, 2, 1),
        )
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="inner")
    with raises_code(ModelError, "uncountable_layer", "'inner'"):
        summary(keras.Sequential([keras.Input((4,)), inner]))
    a, b = keras.Input((4,)), keras.Input((4,))
    with raises_code(ModelError, "inputs", "2 inputs"):
        summary(keras.Model([a, b], keras.layers.Add()([a, b])))

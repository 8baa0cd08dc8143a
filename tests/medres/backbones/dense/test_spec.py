from __future__ import annotations

from typing import Any

import pytest
from helpers import raises_code

from medres.backbones import DENSENETS, DenseNetSpec, densenet_spec, model_name, network_spec
from medres.errors import ModelError


@pytest.mark.parametrize(
    ("variant", "depth"),
    [(121, 121), (161, 161), (169, 169), (201, 201), (264, 265)],  # the paper calls it 264
)
def test_a_variants_number_is_its_count_of_weighted_layers(variant: int, depth: int) -> None:
    spec = densenet_spec(variant)
    assert spec.depth == depth
    assert spec == densenet_spec(f"densenet{variant}") == densenet_spec(str(variant))
    assert spec == network_spec(f"densenet{variant}", version="1.5", width=None)
    assert model_name(spec) == f"densenet{variant}"


@pytest.mark.parametrize(
    ("variant", "options", "depths", "growth", "width", "name"),
    [
        (40, {}, 12, 12, 16, "densenet40_k12_cifar"),
        (40, {"growth": 24}, 12, 24, 16, "densenet40_k24_cifar"),
        ("densenet100", {}, 32, 12, 16, "densenet100_k12_cifar"),
        ("densenet100_k24", {}, 32, 24, 16, "densenet100_k24_cifar"),
        ("densenet_bc100_k12", {}, 16, 12, 24, "densenet_bc100_k12_cifar"),
        (
            100,
            {"bottleneck": True, "compression": 0.5, "growth": 24},
            16,
            24,
            48,
            "densenet_bc100_k24_cifar",
        ),
        (100, {"bottleneck": True}, 16, 12, 16, "densenet100_k12_cifar_bottleneck"),
        (100, {"compression": 0.5}, 32, 12, 24, "densenet100_k12_cifar_compression0.5_width24"),
    ],
)
def test_cifar_variants(
    variant: Any, options: dict, depths: int, growth: int, width: int, name: str
) -> None:
    spec = densenet_spec(variant, stem="cifar", **options)
    assert (spec.depths, spec.growth, spec.width) == ((depths,) * 3, growth, width)
    assert spec.depth == (40 if "40" in str(variant) else 100)
    assert model_name(spec) == name


def test_the_channels_of_densenet_121_are_those_of_table_1() -> None:
    stages = list(densenet_spec(121).stages())
    assert [stage.transition for stage in stages] == [None, 128, 256, 512]
    assert [stage.layers[0].inputs for stage in stages] == [64, 128, 256, 512]
    assert [stage.layers[-1].inputs + 32 for stage in stages] == [256, 512, 1024, 1024]
    assert {layer.bottleneck_channels for stage in stages for layer in stage.layers} == {128}
    assert [len(stage.layers) for stage in stages] == [6, 12, 24, 16]
    assert densenet_spec(121).total_stride == 32
    assert densenet_spec(40, stem="cifar").total_stride == 4


def test_different_specs_have_different_names() -> None:
    options: list[dict[str, Any]] = [
        {},
        {"growth": 16},
        {"bottleneck": False},
        {"compression": 1.0},
        {"width": 32},
        {"norm": "group"},
        {"norm_epsilon": 1e-3},
        {"conv_bias": True},
        {"stem": "small"},
        {"stem": "small", "growth": 16},
    ]
    specs = {densenet_spec(name, **option) for name in DENSENETS for option in options}
    cifar = ("densenet40", "densenet100", "densenet_bc100", "densenet_bc100_k24")
    specs |= {densenet_spec(name, stem="cifar", **o) for name in cifar for o in options[3:8]}
    specs |= {DenseNetSpec((1, 2, 3, 4)), DenseNetSpec((2, 1, 3), stem="cifar")}
    names = {model_name(spec) for spec in specs}
    assert len(names) == len(specs) > 60


@pytest.mark.parametrize(
    ("variant", "options", "code", "mentions"),
    [
        (122, {}, "unknown_variant", ["122", "densenet121"]),
        ("densenet40", {}, "unknown_variant", ["densenet40", "cifar"]),
        (True, {}, "unknown_variant", ["True"]),
        (41, {"stem": "cifar"}, "unknown_variant", ["41", "40 or 43"]),
        (40, {"stem": "cifar", "bottleneck": True, "growth": 0}, "out_of_range", ["growth"]),
        ("_bc99", {"stem": "cifar"}, "unknown_variant", ["94 or 100"]),
        (0, {"stem": "cifar"}, "unknown_variant", ["7 or 10"]),
        (121, {"growth": 0}, "out_of_range", ["growth"]),
        (121, {"growth": 2.5}, "out_of_range", ["growth"]),
        (121, {"compression": 0}, "out_of_range", ["compression"]),
        (121, {"compression": 1.5}, "out_of_range", ["compression"]),
        (121, {"width": 3}, "out_of_range", ["width"]),
        (121, {"dropout": 1.0}, "out_of_range", ["dropout"]),
        (121, {"input_scaling": "caffe"}, "unknown_choice", ["caffe"]),
        (121, {"norm_epsilon": 0}, "out_of_range", ["norm_epsilon"]),
        (121, {"shortcut": "A"}, "unknown_option", ["shortcut"]),
        (121, {"depths": (1, 1, 1, 1)}, "unknown_option", ["depths"]),
    ],
)
def test_what_is_no_densenet_is_named(
    variant: Any, options: dict, code: str, mentions: list[str]
) -> None:
    with raises_code(ModelError, code, *mentions):
        densenet_spec(variant, **options)


@pytest.mark.parametrize("option", [{"version": "2"}, {"stochastic_depth": 0.1}])
def test_what_only_residual_networks_have_is_refused(option: dict) -> None:
    with raises_code(ModelError, "incompatible_options", "DenseNet"):
        network_spec("densenet121", **option)
    assert getattr(network_spec(18, **option), next(iter(option))) == next(iter(option.values()))


def test_the_spec_checks_its_stages() -> None:
    with raises_code(ModelError, "depths", "4"):
        DenseNetSpec((1, 2, 3))
    with raises_code(ModelError, "depths", "3"):
        DenseNetSpec((1, 2, 3, 4), stem="cifar")
    assert DenseNetSpec([1, 2, 3, 4]).depths == (1, 2, 3, 4)  # type: ignore[arg-type]

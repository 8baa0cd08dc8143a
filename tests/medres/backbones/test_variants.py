from __future__ import annotations

import pytest

from medres.backbones.spec import ResNetSpec
from medres.backbones.variants import VARIANTS, model_name, resnet_spec
from medres.errors import ModelError


@pytest.mark.parametrize(
    ("variant", "depth"),
    [(10, 10), (18, 18), (34, 34), (50, 50), (101, 101), (152, 152), (200, 200)],
)
def test_a_variants_number_is_its_count_of_weighted_layers(variant: int, depth: int) -> None:
    assert resnet_spec(variant).depth == depth
    assert resnet_spec(f"resnet{variant}") == resnet_spec(str(variant)) == resnet_spec(variant)


@pytest.mark.parametrize(
    ("variant", "block", "blocks"),
    [(20, None, 3), (1202, None, 200), ("resnet110", "basic", 18), (164, "bottleneck", 18)],
)
def test_cifar_depths(variant: int | str, block: str | None, blocks: int) -> None:
    spec = resnet_spec(variant, stem="cifar", block=block)
    assert spec.depths == (blocks,) * 3
    assert spec.width == 16
    assert str(spec.depth) == str(variant).removeprefix("resnet")


def test_every_row_of_the_table_is_a_spec() -> None:
    for name in VARIANTS:
        assert isinstance(resnet_spec(name), ResNetSpec)
    channels = {
        name: [stage[0].bottleneck_channels for stage in resnet_spec(name).stages()]
        for name in VARIANTS
    }
    assert channels["resnext50_32x4d"] == [128, 256, 512, 1024]
    assert channels["wide_resnet50_2"] == [128, 256, 512, 1024]


@pytest.mark.parametrize(
    ("variant", "options", "mentions"),
    [
        (19, {}, ["19", "resnet18", "resnet152", "6n+2"]),
        ("vgg", {}, ["'vgg'", "resnet50"]),
        (True, {}, ["True"]),
        (18, {"stem": "cifar"}, ["18", "6n+2", "14 or 20"]),
        (50, {"stem": "cifar", "block": "bottleneck"}, ["50", "9n+2", "47 or 56"]),
        (2, {"stem": "cifar"}, ["6n+2", "8 or 14"]),
        (18, {"version": "3"}, ["version '3'", "'1.5'"]),
        (18, {"version": 1.5}, ["version 1.5", "'1.5'"]),
        (18, {"block": "mbconv"}, ["'mbconv'", "'bottleneck'"]),
        (18, {"shortcut": "D"}, ["'D'", "'A', 'B', 'C'"]),
        (18, {"stem": "big"}, ["'big'", "'small'"]),
        (18, {"channel_padding": "front"}, ["'front'", "'end'"]),
        (18, {"norm": "layer"}, ["'layer'", "'group'"]),
        (18, {"width": 3}, ["width 3", "4 or more"]),
        (18, {"width": 8.0}, ["width 8.0"]),
        (50, {"width": 8, "group_width": 4}, ["width 8", "group_width 4"]),
        (18, {"cardinality": 32}, ["basic blocks"]),
        (18, {"version": "2", "zero_gamma": True}, ["zero_gamma"]),
        (18, {"residual": False, "stochastic_depth": 0.1}, ["stochastic_depth"]),
        (18, {"stochastic_depth": 1.0}, ["[0, 1)"]),
        (18, {"output_stride": 5}, ["5", "4, 8, 16, 32"]),
        (18, {"norm_epsilon": 0.0}, ["norm_epsilon"]),
        (18, {"dropout": 0.5}, ["dropout", "stochastic_depth"]),
        (18, {"depths": (1, 1, 1, 1)}, ["depths"]),
    ],
)
def test_what_cannot_be_built_is_named_with_what_can(
    variant: int | str, options: dict, mentions: list[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        resnet_spec(variant, **options)
    assert caught.value.code in (
        "unknown_variant",
        "unknown_choice",
        "unknown_option",
        "out_of_range",
        "incompatible_options",
    )
    for value in mentions:
        assert value in str(caught.value)


def test_the_former_name_of_channel_padding_still_works() -> None:
    spec = resnet_spec(18, shortcut="A", zero_side="behind")
    assert spec == resnet_spec(18, shortcut="A", channel_padding="end")


def test_every_variant_is_named_as_in_the_table() -> None:
    assert {name: model_name(resnet_spec(name)) for name in VARIANTS} == {n: n for n in VARIANTS}


def test_specs_that_differ_have_different_names() -> None:
    options: list[dict] = [
        {},
        *({"version": version} for version in ("1", "2", "d")),
        *({"shortcut": shortcut} for shortcut in "AC"),
        *({"norm": norm} for norm in ("group", "sync")),
        {"residual": False},
        {"stem": "small"},
        {"width": 16},
        {"channel_padding": "end"},
        {"norm_epsilon": 1e-3},
        {"conv_bias": True},
        {"squeeze_excite": True},
        {"stochastic_depth": 0.2},
        {"output_stride": 8},
    ]
    specs = {resnet_spec(name, **option) for name in VARIANTS for option in options}
    specs |= {resnet_spec(50, group_width=width) for width in (32, 96)}
    specs |= {ResNetSpec("basic", depths) for depths in ((1, 3, 2, 2), (2, 2, 3, 1))}
    specs |= {resnet_spec(20, stem="cifar", **option) for option in options[:8]}
    specs |= {resnet_spec(depth, stem="cifar", block="bottleneck") for depth in (20, 29)}
    assert len({model_name(spec) for spec in specs}) == len(specs)

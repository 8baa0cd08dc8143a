from __future__ import annotations

import dataclasses
import math

import pytest
from helpers import raises_code
from hypothesis import given
from hypothesis import strategies as st

from medres.backbones.spec import ResNetSpec
from medres.backbones.variants import resnet_spec
from medres.errors import ModelError


def test_strides_channels_and_names_of_the_blocks() -> None:
    stages = list(resnet_spec(50).stages())
    assert [[b.stride for b in stage][:2] for stage in stages] == [[1, 1], [2, 1], [2, 1], [2, 1]]
    assert [(s[0].inputs, s[0].bottleneck_channels, s[0].outputs) for s in stages] == [
        (64, 64, 256),
        (256, 128, 512),
        (512, 256, 1024),
        (1024, 512, 2048),
    ]
    assert stages[2][5].name == "stage3_block6"
    assert [b.is_first for stage in stages for b in stage] == [True] + [False] * 15


def test_output_stride_trades_strides_for_dilation_as_torchvision_does() -> None:
    stages = list(resnet_spec(50, output_stride=8).stages())
    assert [stage[0].stride for stage in stages] == [1, 2, 1, 1]
    assert [[b.dilations[0] for b in stage][:3] for stage in stages] == [
        [1, 1, 1],
        [1, 1, 1],
        [1, 2, 2],
        [2, 4, 4],
    ]


def test_stochastic_depth_rises_linearly_to_its_last_block() -> None:
    rates = [b.drop_rate for stage in resnet_spec(10, stochastic_depth=0.4).stages() for b in stage]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resnet_spec(18).width = 3  # type: ignore[misc]


def test_the_number_of_stages_must_fit_the_stem() -> None:
    with raises_code(ModelError, "depths", "3 stages"):
        ResNetSpec("basic", (1, 1, 1, 1), stem="cifar")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("residual", "no"),
        ("conv_bias", 1),
        ("squeeze_excite", None),
        ("stochastic_depth", "a"),
        ("stochastic_depth", float("nan")),
        ("norm_epsilon", "x"),
        ("norm_epsilon", float("inf")),
        ("output_stride", True),
        ("version", ["2"]),
        ("width", 2.5),
        ("depths", 5),
        ("depths", (2, 2, 2, True)),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(field: str, value: object) -> None:
    named = True if field == "depths" and value != 5 else value
    with pytest.raises(ModelError) as caught:
        ResNetSpec(**{"block": "basic", "depths": (2, 2, 2, 2), "stem": "small", field: value})  # type: ignore[arg-type]
    assert caught.value.code in ("unknown_choice", "out_of_range", "depths")
    assert field in str(caught.value)
    assert repr(named) in str(caught.value)


def test_depths_may_be_a_list() -> None:
    assert ResNetSpec("basic", [2, 2, 2, 2]) == resnet_spec(18)  # type: ignore[arg-type]


@given(
    depths=st.lists(st.integers(1, 4), min_size=4, max_size=4).map(tuple),
    block=st.sampled_from(["basic", "bottleneck"]),
    stem=st.sampled_from(["imagenet", "small"]),
    width=st.integers(4, 80),
    shift=st.integers(0, 3),
)
def test_blocks_fit_onto_each_other(
    depths: tuple[int, ...], block: str, stem: str, width: int, shift: int
) -> None:
    first = 4 if stem == "imagenet" else 1
    spec = ResNetSpec(block, depths, stem=stem, width=width, output_stride=first << shift)
    stages = list(spec.stages())
    blocks = [b for stage in stages for b in stage]
    assert tuple(map(len, stages)) == depths
    assert [b.inputs for b in blocks] == [width, *(b.outputs for b in blocks[:-1])]
    assert first * math.prod(b.stride for b in blocks) == spec.total_stride == first << shift
    # What a stage does not stride it dilates: together they always reach as far.
    assert math.prod(b.stride for b in blocks) * blocks[-1].dilations[1] == 8
    assert all(
        b.stride == 1 and b.dilations[0] == b.dilations[1] for stage in stages for b in stage[1:]
    )

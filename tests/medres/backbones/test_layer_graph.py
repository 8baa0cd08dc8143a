from __future__ import annotations

import keras
import pytest

from medres.backbones.build import resnet
from medres.backbones.layer_graph import ResidualBlock, residual_blocks


def test_identity_and_projection_blocks() -> None:
    blocks = residual_blocks(resnet(18, (32, 32, 1), width=4))
    assert len(blocks) == 8
    assert blocks[1] == ResidualBlock(
        "stage1_block2_add", "stage1_block1_relu", "stage1_block1_relu", "stage1_block2_norm2", True
    )
    assert blocks[2] == ResidualBlock(
        "stage2_block1_add", "stage1", "stage2_block1_shortcut_norm", "stage2_block1_norm2", True
    )


def test_zero_padding_and_pre_activation_blocks() -> None:
    zeros = residual_blocks(resnet(8, (16, 16, 1), stem="cifar", width=4, shortcut="A"))
    assert [block.shortcut for block in zeros] == [
        "stem_relu",
        "stage2_block1_shortcut_back",
        "stage3_block1_shortcut_back",
    ]
    early = residual_blocks(resnet(14, (16, 16, 1), stem="cifar", width=4, version="2"))
    assert (early[1].source, early[1].shortcut) == ("stage1_block1_add", "stage1_block1_add")
    assert (early[2].source, early[2].shortcut) == (
        "stage2_block1_relu0",
        "stage2_block1_shortcut_conv",
    )


def test_squeeze_excite_is_part_of_the_branch() -> None:
    blocks = residual_blocks(resnet(10, (32, 32, 1), width=4, squeeze_excite=True))
    assert [block.branch for block in blocks] == [f"stage{i}_block1_se_scale" for i in range(1, 5)]


def test_a_plain_net_has_none_and_equal_paths_are_none() -> None:
    assert residual_blocks(resnet(18, (32, 32, 1), width=4, residual=False)) == []
    image = keras.Input((4,))
    twins = keras.layers.Add()([keras.layers.Dense(3)(image), keras.layers.Dense(3)(image)])
    assert residual_blocks(keras.Model(image, twins)) == []


@pytest.mark.parametrize("used_elsewhere", [False, True])
def test_a_source_that_others_use_is_not_closed(used_elsewhere: bool) -> None:
    image = keras.Input((4,))
    x = keras.layers.ReLU(name="x")(image)
    y = keras.layers.Add(name="sum")([keras.layers.Dense(4, name="branch")(x), x])
    out = keras.layers.Concatenate()([y, x]) if used_elsewhere else y
    assert residual_blocks(keras.Model(image, out)) == [
        ResidualBlock("sum", "x", "x", "branch", not used_elsewhere)
    ]

"""The specification of a ResNet: one frozen record.

    He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv:1512.03385): blocks,
        depths, shortcuts A/B/C, CIFAR nets
    He et al., Identity Mappings in Deep Residual Networks, ECCV 2016 (arXiv:1603.05027): version
        "2"
    He et al., Bag of Tricks, CVPR 2019 (arXiv:1812.01187): version "d"
    Xie et al., ResNeXt, CVPR 2017 (arXiv:1611.05431): cardinality
    Zagoruyko, Wide Residual Networks (arXiv:1605.07146): group_width
    Hu et al., Squeeze-and-Excitation, CVPR 2018 (arXiv:1709.01507)
    Huang et al., Stochastic Depth, ECCV 2016 (arXiv:1603.09382)

Versions: "1" strides the first 1x1 of a bottleneck (the paper, keras.applications), "1.5" the 3x3
(torchvision), "2" is full pre-activation, "d" is "1.5" with three 3x3 in the stem and an average
pool in the shortcut. Basic blocks are the same in "1" and "1.5".
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

from medres.errors import ModelError

VERSIONS = ("1", "1.5", "2", "d")
BLOCKS = ("basic", "bottleneck")
SHORTCUTS = ("A", "B", "C")
STEMS = ("imagenet", "small", "cifar")
NORMS = ("batch", "group", "sync")
CHANNEL_PADDINGS = ("both", "end")
INPUT_SCALINGS = (None, "imagenet")
STEM_STRIDE = {"imagenet": 4, "small": 1, "cifar": 1}
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True)
class BlockConfig:
    """One residual block: its channels, stride and dilations.

    inputs, bottleneck_channels, outputs: channels of the input, of the 3x3 convolutions and of the
    output. dilations: of the first and of the second 3x3 (a bottleneck block has only the first).
    drop_rate: probability that the residual branch is dropped during training. is_first: the first
    block of the network, whose input the stem has already normalized and activated.
    """

    name: str
    inputs: int
    bottleneck_channels: int
    outputs: int
    stride: int
    dilations: tuple[int, int]
    drop_rate: float
    is_first: bool

    @property
    def changes_shape(self) -> bool:
        return self.stride != 1 or self.inputs != self.outputs


@dataclass(frozen=True)
class ResNetSpec:
    """All properties of a ResNet except its input shape. Raises ModelError for an invalid value or
    combination.

    width: channels of the 3x3 convolutions of the first stage; each later stage doubles them.
    group_width: torchvision's width_per_group; the 3x3 of a bottleneck block has
    `cardinality * group_width * width / 64` channels in the first stage.
    output_stride (such as 8 or 16 instead of 32): replaces later strides by dilation, as
    torchvision does; the first block of such a stage keeps the dilation of the stage before it.
    None keeps every stride.
    input_scaling: "imagenet" puts the normalization of ImageNet into the graph, from -1..1; None:
    the stem receives -1..1. Weights that need it set it themselves.
    channel_padding: where shortcut A adds its channels of zeros, on "both" sides of the existing
    channels (akamaster) or all at the "end" (MedicalNet, MONAI). The paper leaves this open;
    weights trained with one do not fit the other.

    >>> ResNetSpec("bottleneck", (3, 4, 6, 3)).depth
    50
    """

    block: str
    depths: tuple[int, ...]
    version: str = "1.5"
    shortcut: str = "B"
    channel_padding: str = "both"
    residual: bool = True
    stem: str = "imagenet"
    width: int = 64
    norm: str = "batch"
    norm_epsilon: float = 1e-5
    conv_bias: bool = False
    zero_gamma: bool = False
    squeeze_excite: bool = False
    cardinality: int = 1
    group_width: int = 64
    stochastic_depth: float = 0.0
    output_stride: int | None = None
    input_scaling: str | None = None

    def __post_init__(self) -> None:
        one_of("version", self.version, VERSIONS)
        one_of("block", self.block, BLOCKS)
        one_of("shortcut", self.shortcut, SHORTCUTS)
        one_of("stem", self.stem, STEMS)
        one_of("norm", self.norm, NORMS)
        one_of("input_scaling", self.input_scaling, INPUT_SCALINGS)
        one_of("channel_padding", self.channel_padding, CHANNEL_PADDINGS)
        whole_number("width", self.width, 4)
        whole_number("cardinality", self.cardinality, 1)
        whole_number("group_width", self.group_width, 1)
        object.__setattr__(self, "depths", stage_depths(self.depths, self.stem))
        for switch in ("residual", "conv_bias", "zero_gamma", "squeeze_excite"):
            one_of(switch, getattr(self, switch), (True, False))
        if not (is_number(self.stochastic_depth) and 0 <= self.stochastic_depth < 1):
            raise ModelError(
                f"stochastic_depth {self.stochastic_depth!r}: give a probability in [0, 1)",
                code="out_of_range",
            )
        check_epsilon(self.norm_epsilon)
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.block == "basic" and (self.cardinality, self.group_width) != (1, 64):
            raise ModelError(
                f"cardinality={self.cardinality}, group_width={self.group_width}: basic blocks "
                f'have no grouped convolution; use block="bottleneck"',
                code="incompatible_options",
            )
        if self.block == "bottleneck" and self._bottleneck_channels(0) < 1:
            raise ModelError(
                f"width {self.width} with group_width {self.group_width}: the 3x3 convolutions "
                f"would have no channel; increase the width",
                code="incompatible_options",
            )
        if self.zero_gamma and (self.version == "2" or not self.residual):
            raise ModelError(
                'zero_gamma=True: version="2" has no normalization at the end of the residual '
                "branch, and the output of a plain network would be all zeros; use "
                "zero_gamma=False",
                code="incompatible_options",
            )
        if self.stochastic_depth and not self.residual:
            raise ModelError(
                "stochastic_depth needs shortcuts, and a plain network (residual=False) has none; "
                "set it to 0",
                code="incompatible_options",
            )
        if self.output_stride is not None:
            one_of(
                "output_stride",
                self.output_stride,
                tuple(STEM_STRIDE[self.stem] << i for i in range(len(self.depths))),
            )

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along each axis."""
        return self.output_stride or STEM_STRIDE[self.stem] << (len(self.depths) - 1)

    @property
    def depth(self) -> int:
        """Layers with weights as the paper counts them: the stem, the convolutions of the residual
        branches, the classifier.
        """
        return sum(self.depths) * (2 if self.block == "basic" else 3) + 2

    def _bottleneck_channels(self, stage: int) -> int:
        filters = self.width << stage
        if self.block == "basic":
            return filters
        return filters * self.group_width // 64 * self.cardinality

    def convolutions(self) -> Iterator[tuple[str, int]]:
        """The names and the channels of the first and the last convolution of each block."""
        last = "conv2" if self.block == "basic" else "conv3"
        for blocks in self.stages():
            for block in blocks:
                yield f"{block.name}_conv1", block.bottleneck_channels
                yield f"{block.name}_{last}", block.outputs

    def stages(self) -> Iterator[list[BlockConfig]]:
        """The blocks of each stage in order, named stage1_block1 and so on."""
        channels, dilation, total_stride, count = self.width, 1, STEM_STRIDE[self.stem], 0
        for stage, depth in enumerate(self.depths):
            stride = 1 if stage == 0 else 2
            previous_dilation = dilation
            if self.output_stride and total_stride * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            total_stride *= stride
            outputs = (self.width << stage) * EXPANSION[self.block]
            blocks = []
            for i in range(depth):
                count += 1
                block = BlockConfig(
                    name=f"stage{stage + 1}_block{i + 1}",
                    inputs=channels,
                    bottleneck_channels=self._bottleneck_channels(stage),
                    outputs=outputs,
                    stride=stride if i == 0 else 1,
                    dilations=(previous_dilation if i == 0 else dilation, dilation),
                    # the rate rises linearly: section 3 of Huang et al.
                    drop_rate=self.stochastic_depth * count / sum(self.depths),
                    is_first=count == 1,
                )
                blocks.append(block)
                channels = outputs
            yield blocks


def one_of(what: str, value: object, allowed: tuple) -> None:
    """Raise ModelError if `value` is not in `allowed`; True does not count as 1, nor 1 as True."""
    same = [choice for choice in allowed if isinstance(value, type(choice)) and value == choice]
    if not same or isinstance(value, bool) != isinstance(same[0], bool):
        raise ModelError(
            f"{what} {value!r} is unknown: choose from {', '.join(map(repr, allowed))}",
            code="unknown_choice",
        )


def stage_depths(depths: object, stem: str) -> tuple[int, ...]:
    """`depths` as a tuple. Raises ModelError unless it has a number of blocks for each stage."""
    if not isinstance(depths, list | tuple):
        raise ModelError(
            f"depths {depths!r}: give the number of blocks per stage, such as (3, 4, 6, 3)",
            code="depths",
        )
    for depth in depths:
        whole_number("depths", depth, 1)
    stages = 3 if stem == "cifar" else 4
    if len(depths) != stages:
        raise ModelError(
            f"depths {tuple(depths)}: stem={stem!r} has {stages} stages; give {stages} numbers of "
            f"blocks",
            code="depths",
        )
    return tuple(depths)


def check_epsilon(epsilon: object) -> None:
    if not (is_number(epsilon) and 0 < epsilon < 1):
        raise ModelError(f"norm_epsilon {epsilon!r}: give a number in (0, 1)", code="out_of_range")


def whole_number(what: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ModelError(
            f"{what} {value!r}: give a whole number of {low} or more", code="out_of_range"
        )


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def differing_fields(spec: Any, variant_spec: Any, named: Container[str]) -> str:
    """The suffix of a network's name: each field, except those already `named`, in which its spec
    differs from that of the variant. `shortcut` "A" -> "_shortcutA", `conv_bias` True ->
    "_conv_bias", False -> "_no_conv_bias".
    """
    suffix = ""
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.name in named or value == getattr(variant_spec, field.name):
            continue
        suffix += (
            f"_{'' if value else 'no_'}{field.name}"
            if isinstance(value, bool)
            else (f"_{field.name}{value}")
        )
    return suffix

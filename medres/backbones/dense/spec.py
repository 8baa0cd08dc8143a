"""The specification of a DenseNet: one frozen record.

    Huang et al., Densely Connected Convolutional Networks, CVPR 2017 (arXiv:1608.06993): growth
        rate, bottleneck (B), compression (C), table 1 (ImageNet), section 4 (CIFAR)

A dense layer computes `growth` new channels from all channels before it and appends them. A stage
is a dense block; from the second on it begins with the transition that halves the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medres.backbones.spec import (
    INPUT_SCALINGS,
    NORMS,
    STEM_STRIDE,
    STEMS,
    check_epsilon,
    is_number,
    one_of,
    stage_depths,
    whole_number,
)
from medres.errors import ModelError

BOTTLENECK = 4  # channels of the 1x1 convolution per channel that a layer adds: section 3


@dataclass(frozen=True)
class DenseLayerConfig:
    """One dense layer: inputs -> inputs + growth channels. bottleneck_channels: of the 1x1
    convolution before the 3x3; None without one.
    """

    name: str
    inputs: int
    bottleneck_channels: int | None
    growth: int


@dataclass(frozen=True)
class DenseStageConfig:
    """One dense block. transition: the channels after the 1x1 convolution of the transition before
    it; None in the first stage.
    """

    name: str
    transition: int | None
    layers: tuple[DenseLayerConfig, ...]


@dataclass(frozen=True)
class DenseNetSpec:
    """All properties of a DenseNet except its input shape. Raises ModelError for an invalid value.

    depths: dense layers per block. growth: channels that each layer adds, k in the paper.
    bottleneck: a 1x1 convolution to 4 k channels before each 3x3 (DenseNet-B). compression: the
    part of the channels that a transition keeps, theta in the paper (below 1: DenseNet-C).
    width: channels of the stem. stem: "imagenet" (7x7/2, norm, ReLU and pool), "small" (3x3, norm
    and ReLU, four stages), "cifar" (3x3 alone, three stages).
    dropout: the rate of the Dropout after each convolution but the first, while training (0.2 in
    the paper, on CIFAR without augmentation: section 4.2). input_scaling: as for ResNetSpec.

    >>> DenseNetSpec((6, 12, 24, 16)).depth
    121
    """

    depths: tuple[int, ...]
    growth: int = 32
    bottleneck: bool = True
    compression: float = 0.5
    stem: str = "imagenet"
    width: int = 64
    norm: str = "batch"
    norm_epsilon: float = 1e-5
    conv_bias: bool = False
    input_scaling: str | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        one_of("stem", self.stem, STEMS)
        one_of("norm", self.norm, NORMS)
        one_of("input_scaling", self.input_scaling, INPUT_SCALINGS)
        one_of("bottleneck", self.bottleneck, (True, False))
        one_of("conv_bias", self.conv_bias, (True, False))
        whole_number("growth", self.growth, 1)
        whole_number("width", self.width, 4)
        object.__setattr__(self, "depths", stage_depths(self.depths, self.stem))
        if not (is_number(self.compression) and 0 < self.compression <= 1):
            raise ModelError(
                f"compression {self.compression!r}: give a number in (0, 1]", code="out_of_range"
            )
        if not (is_number(self.dropout) and 0 <= self.dropout < 1):
            raise ModelError(
                f"dropout {self.dropout!r}: give a probability in [0, 1)", code="out_of_range"
            )
        check_epsilon(self.norm_epsilon)

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last feature map, along each axis."""
        return STEM_STRIDE[self.stem] << (len(self.depths) - 1)

    @property
    def depth(self) -> int:
        """Layers with weights as the paper counts them: the stem, the convolutions of the dense
        layers and of the transitions, the classifier.
        """
        return sum(self.depths) * (2 if self.bottleneck else 1) + len(self.depths) + 1

    def stages(self) -> Iterator[DenseStageConfig]:
        """The dense blocks in order, with layers named stage1_layer1 and so on."""
        channels = self.width
        for number, depth in enumerate(self.depths, start=1):
            transition = None
            if number > 1:
                channels = transition = max(1, int(channels * self.compression))
            layers = []
            for i in range(depth):
                layers.append(
                    DenseLayerConfig(
                        name=f"stage{number}_layer{i + 1}",
                        inputs=channels,
                        bottleneck_channels=BOTTLENECK * self.growth if self.bottleneck else None,
                        growth=self.growth,
                    )
                )
                channels += self.growth
            yield DenseStageConfig(f"stage{number}", transition, tuple(layers))

    def convolutions(self) -> Iterator[tuple[str, int]]:
        """The names and the channels of the convolutions of all transitions and dense layers."""
        for stage in self.stages():
            if stage.transition is not None:
                yield f"{stage.name}_transition_conv", stage.transition
            for layer in stage.layers:
                sizes = [layer.bottleneck_channels, layer.growth]
                for i, size in enumerate([n for n in sizes if n is not None], start=1):
                    yield f"{layer.name}_conv{i}", size

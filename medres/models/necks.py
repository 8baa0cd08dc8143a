"""Between a backbone and the heads that predict pixels or boxes: the feature maps of the backbone
by stride, and the feature pyramid network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from medres.backbones.build import features, functional
from medres.backbones.dense.spec import DenseNetSpec
from medres.backbones.layer_factory import LayerFactory, Tensor
from medres.backbones.spec import STEM_STRIDE, ResNetSpec

Spec = ResNetSpec | DenseNetSpec
MIN_CHANNELS = 8  # of a decoder's feature map


@dataclass(frozen=True)
class Level:
    """A feature map, and the number of input pixels per pixel of it along each axis."""

    stride: int
    x: Tensor

    @property
    def name(self) -> str:
        """Part of the names of its layers."""
        return f"stride{self.stride}"


def channels_at(spec: Spec, stride: int) -> int:
    """The channels of a decoder at a stride: the width of the first stage there, doubled with the
    stride; 8 or more.
    """
    return max(MIN_CHANNELS, spec.width * stride // STEM_STRIDE[spec.stem])


def backbone_levels(spec: Spec, x: Tensor, prefix: str) -> list[Level]:
    """Apply the network of `spec` to the symbolic tensor x: its feature maps after a ReLU, finest
    first, the deepest one for each stride.

    The stem of an "imagenet" network gives stride 2. A map that its network leaves without norm and
    ReLU (version "2", DenseNet) gets both here, in layers whose names begin with `prefix`.
    """
    net = LayerFactory(spec, len(x.shape) - 2, prefix)
    graph = functional(x, features(spec, x))
    names = {2: "stem_relu"} if spec.stem == "imagenet" else {}
    last = f"stage{len(spec.depths)}"
    for i in range(len(spec.depths)):
        names[min(STEM_STRIDE[spec.stem] << i, spec.total_stride)] = f"stage{i + 1}"
    preactivated = isinstance(spec, DenseNetSpec) or spec.version == "2"
    levels = []
    for stride, name in names.items():
        y = graph.get_layer(name).output
        if preactivated and name.startswith("stage") and name != last:
            y = net.relu(net.norm(y, f"{name}_norm"), f"{name}_relu")
        levels.append(Level(stride, y))
    return levels


def feature_pyramid(net: LayerFactory[Spec], levels: Sequence[Level], channels: int) -> list[Level]:
    """The levels with the same number of channels and with the context of the coarser ones, finest
    first: Lin et al., Feature Pyramid Networks, CVPR 2017 (arXiv:1612.03144), figure 3.

    levels: finest first; the stride of each is a multiple of that of the level before it.
    """
    merged: list[Level] = []
    for level in reversed(levels):
        x = net.conv(level.x, channels, 1, f"lateral_{level.name}", bias=True)
        if merged:
            coarser = merged[-1]
            factor = coarser.stride // level.stride
            up = net.upsample(coarser.x, factor, f"up_{level.name}")
            x = net.add(up, x, f"merge_{level.name}")
        merged.append(Level(level.stride, x))
    return [
        Level(level.stride, net.conv(level.x, channels, 3, f"pyramid_{level.name}", bias=True))
        for level in reversed(merged)
    ]


def conv_norm_relu(
    net: LayerFactory[Spec], x: Tensor, channels: int, name: str, kernel: int = 3
) -> Tensor:
    """A convolution, its normalization and a ReLU."""
    x = net.conv(x, channels, kernel, f"{name}_conv", bias=False)
    return net.relu(net.norm(x, f"{name}_norm"), f"{name}_relu")


def separable_norm_relu(
    net: LayerFactory[Spec], x: Tensor, channels: int, name: str, dilation: int = 1
) -> Tensor:
    """A 3x3 convolution of each channel, a 1x1 convolution, normalization and ReLU; 2D only."""
    x = keras.layers.DepthwiseConv2D(
        3,
        padding="same",
        dilation_rate=dilation,
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{net.prefix}{name}_depthwise",
    )(x)
    return conv_norm_relu(net, x, channels, name, kernel=1)

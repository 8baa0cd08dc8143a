"""Decoders: from the feature maps of a backbone to one from which each pixel is classified. A
decoder is a row of `DECODERS`.

    Ronneberger et al., U-Net, MICCAI 2015 (arXiv:1505.04597)
    Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019 (arXiv:1901.02446), section 3
    Chen et al., DeepLabv3+, ECCV 2018 (arXiv:1802.02611), figure 2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from medres.backbones.layer_factory import LayerFactory, Tensor
from medres.backbones.spec import STEM_STRIDE
from medres.models.necks import (
    Level,
    Spec,
    channels_at,
    conv_norm_relu,
    feature_pyramid,
    separable_norm_relu,
)

Network = LayerFactory[Spec]


class Decoded(NamedTuple):
    """The map to classify, and coarser maps for deep supervision, finest first."""

    level: Level
    coarser: list[Level]


class Decoder(NamedTuple):
    """One row of the table.

    build: from the feature maps of the backbone, finest first. ranks: 2 and 3 for images and
    volumes. backbone_options: defaults for a ResNet with the "imagenet" stem.
    """

    build: Callable[[Network, Sequence[Level]], Decoded]
    ranks: tuple[int, ...] = (2, 3)
    backbone_options: dict[str, Any] = {}  # noqa: RUF012 - never changed


def unet(net: Network, levels: Sequence[Level]) -> Decoded:
    """From the coarsest map to full resolution: double the size, append the map of the backbone,
    two 3x3 convolutions.
    """
    skips = {level.stride: level.x for level in levels}
    stride, x = levels[-1].stride, levels[-1].x
    decoded: list[Level] = []
    while stride > 1:
        stride //= 2
        step = net.within(f"stride{stride}")
        x = step.upsample(x, 2, "up")
        if stride in skips:
            x = step.concatenate(x, skips[stride], "concat")
        for i in (1, 2):
            x = conv_norm_relu(step, x, channels_at(net.spec, stride), f"{i}")
        decoded.insert(0, Level(stride, x))
    finest, *coarser = decoded or [Level(stride, x)]
    return Decoded(finest, coarser)


def fpn(net: Network, levels: Sequence[Level]) -> Decoded:
    """The sum of the maps of a feature pyramid, each brought to the finest of the stages by 3x3
    convolutions that double the size.
    """
    first = STEM_STRIDE[net.spec.stem]
    stages = [level for level in levels if level.stride >= first]
    base = channels_at(net.spec, first)
    pyramid = feature_pyramid(net, stages, 4 * base)
    maps = [_to_stride(net.within(p.name), p, first, 2 * base) for p in pyramid]
    x = keras.layers.Add(name=f"{net.prefix}sum")(maps) if len(maps) > 1 else maps[0]
    return Decoded(Level(first, x), pyramid[1:])


def _to_stride(net: Network, level: Level, stride: int, channels: int) -> Tensor:
    x = conv_norm_relu(net, level.x, channels, "1")
    for i in range((level.stride // stride).bit_length() - 1):
        if i:
            x = conv_norm_relu(net, x, channels, f"{i + 1}")
        x = net.upsample(x, 2, f"up{i + 1}", smooth=net.rank == 2)
    return x


def deeplabv3plus(net: Network, levels: Sequence[Level]) -> Decoded:
    """Atrous spatial pyramid pooling on the coarsest map, joined with the map of the first stage.

    The rates of the paper: 6, 12 and 18 where the coarsest map is four times coarser than that of
    the first stage, twice as much where it is two times coarser.
    """
    first, deepest = STEM_STRIDE[net.spec.stem], levels[-1]
    channels = 4 * channels_at(net.spec, first)
    x = _pooled_at_rates(net.within("aspp"), deepest, channels)
    if deepest.stride > first:
        low = next(level.x for level in levels if level.stride == first)
        low = conv_norm_relu(net, low, max(8, 3 * channels // 16), "low", kernel=1)
        x = net.upsample(x, deepest.stride // first, "up", smooth=True)
        x = net.concatenate(x, low, "concat")
    for i in (1, 2):
        x = separable_norm_relu(net, x, channels, f"{i}")
    return Decoded(Level(first, x), [deepest])


def _pooled_at_rates(net: Network, level: Level, channels: int) -> Tensor:
    """Convolutions at four rates and the mean of the image, then a 1x1 convolution of all.

    The mean is added after that convolution: a 1x1 convolution of the concatenation is the sum of
    1x1 convolutions of its parts, and a sum needs no copy of the mean for each pixel.
    """
    unit = max(1, 24 * STEM_STRIDE[net.spec.stem] // level.stride)
    branches = [conv_norm_relu(net, level.x, channels, "rate0", kernel=1)]
    for i in (1, 2, 3):
        branches.append(separable_norm_relu(net, level.x, channels, f"rate{i}", dilation=i * unit))
    x = keras.layers.Concatenate(name=f"{net.prefix}concat")(branches)
    x = net.conv(x, channels, 1, "project_conv", bias=False)
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{net.prefix}mean")(level.x)
    mean = net.relu(net.conv(mean, channels, 1, "mean_conv", bias=True), "mean_relu")
    mean = net.conv(mean, channels, 1, "mean_project", bias=False)
    return net.relu(net.norm(net.add(x, mean, "add"), "project_norm"), "project_relu")


DECODERS: dict[str, Decoder] = {
    "unet": Decoder(unet),
    "fpn": Decoder(fpn),
    "deeplabv3+": Decoder(deeplabv3plus, (2,), {"output_stride": 16}),
}

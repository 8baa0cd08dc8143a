"""Stem, residual blocks and shortcuts as in the figures of the papers."""

from __future__ import annotations

from medres.backbones.layer_factory import LayerFactory, Tensor
from medres.backbones.spec import BlockConfig, ResNetSpec


def stem(net: LayerFactory[ResNetSpec], x: Tensor) -> Tensor:
    """imagenet: 7x7 with stride 2 (version "d": three 3x3); small and cifar: one 3x3. Then norm and
    ReLU; imagenet ends in a max pool.
    """
    spec, net = net.spec, net.within("stem")
    if spec.stem != "imagenet":
        x = net.conv(x, spec.width, 3, "conv")
    elif spec.version == "d":
        for i in (1, 2):
            x = net.conv(x, max(1, spec.width // 2), 3, f"conv{i}", stride=2 if i == 1 else 1)
            x = net.relu(net.norm(x, f"norm{i}"), f"relu{i}")
        x = net.conv(x, spec.width, 3, "conv")
    else:
        x = net.conv(x, spec.width, 7, "conv", stride=2)
    x = net.relu(net.norm(x, "norm"), "relu")
    return net.max_pool(x, "pool") if spec.stem == "imagenet" else x


def residual_block(net: LayerFactory[ResNetSpec], x: Tensor, block: BlockConfig) -> Tensor:
    """relu(F(x) + shortcut(x)), where F ends in a norm: figure 2 of He et al. 2016a.

    Version "2": F(relu(norm(x))) + x, figure 4e of He et al. 2016b. Where the shape changes, both
    paths take the activated input (its appendix).
    """
    spec, net = net.spec, net.within(block.name)
    branch = {"basic": basic_branch, "bottleneck": bottleneck_branch}[spec.block]
    if spec.version == "2":
        active = x if block.is_first else net.relu(net.norm(x, "norm0"), "relu0")
        y = branch(net, active, block)
        return _add_shortcut(net, y, active if block.changes_shape else x, block)
    y = branch(net, x, block)
    last_norm = "norm2" if spec.block == "basic" else "norm3"
    y = net.norm(y, last_norm, gamma="zeros" if spec.zero_gamma else "ones")
    y = _add_shortcut(net, y, x, block)
    return net.relu(y, "relu")


def basic_branch(net: LayerFactory[ResNetSpec], x: Tensor, block: BlockConfig) -> Tensor:
    """3x3, 3x3: figure 5 (left) of the paper, without the last norm."""
    filters, (dilation1, dilation2) = block.bottleneck_channels, block.dilations
    x = net.conv(x, filters, 3, "conv1", stride=block.stride, dilation=dilation1)
    x = net.relu(net.norm(x, "norm1"), "relu1")
    return net.conv(x, block.outputs, 3, "conv2", dilation=dilation2)


def bottleneck_branch(net: LayerFactory[ResNetSpec], x: Tensor, block: BlockConfig) -> Tensor:
    """1x1, 3x3, 1x1: figure 5 (right), without the last norm. Version "1" has the stride in the
    first 1x1, the others in the 3x3.
    """
    filters, groups, dilation = block.bottleneck_channels, net.spec.cardinality, block.dilations[0]
    stride1, stride2 = (block.stride, 1) if net.spec.version == "1" else (1, block.stride)
    x = net.conv(x, filters, 1, "conv1", stride=stride1)
    x = net.relu(net.norm(x, "norm1"), "relu1")
    x = net.conv(x, filters, 3, "conv2", stride=stride2, dilation=dilation, groups=groups)
    x = net.relu(net.norm(x, "norm2"), "relu2")
    return net.conv(x, block.outputs, 1, "conv3")


def _add_shortcut(
    net: LayerFactory[ResNetSpec], y: Tensor, x: Tensor, block: BlockConfig
) -> Tensor:
    """Add the shortcut of x to the branch y; a plain network returns the branch alone."""
    if net.spec.squeeze_excite:
        y = net.within("se").squeeze_excite(y)
    if block.drop_rate:
        y = net.drop_branch(y, block.drop_rate, "drop")
    return net.add(y, shortcut(net, x, block), "add") if net.spec.residual else y


def shortcut(net: LayerFactory[ResNetSpec], x: Tensor, block: BlockConfig) -> Tensor:
    """The identity where the shape stays (except in option C); else zero-padding (option A) or a
    1x1 projection (options B and C).
    """
    spec, net = net.spec, net.within("shortcut")
    if not block.changes_shape and spec.shortcut != "C":
        return x
    stride = block.stride
    pool = stride if spec.version == "d" else 1  # the mean of stride x stride pixels, or the first
    if spec.shortcut == "A":
        x = net.subsample(x, stride, "pool", size=pool) if stride > 1 else x
        if block.inputs == block.outputs:
            return x
        return net.pad_channels(x, block.outputs, spec.channel_padding)
    if pool > 1:
        x, stride = net.subsample(x, stride, "pool", size=pool), 1
    x = net.conv(x, block.outputs, 1, "conv", stride=stride)
    return x if spec.version == "2" else net.norm(x, "norm")

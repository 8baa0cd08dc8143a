"""Stem, dense layers and transitions as in section 3 of the paper (see
`medres.backbones.dense.spec`). Every convolution is preceded by its norm and ReLU.
"""

from __future__ import annotations

from medres.backbones.dense.spec import DenseLayerConfig, DenseNetSpec, DenseStageConfig
from medres.backbones.layer_factory import LayerFactory, Tensor


def dense_stem(net: LayerFactory[DenseNetSpec], x: Tensor) -> Tensor:
    """imagenet: 7x7 with stride 2, norm, ReLU, max pool; small: 3x3, norm, ReLU; cifar: 3x3."""
    spec, net = net.spec, net.within("stem")
    if spec.stem == "cifar":
        return net.conv(x, spec.width, 3, "conv")
    if spec.stem == "small":
        return net.relu(net.norm(net.conv(x, spec.width, 3, "conv"), "norm"), "relu")
    x = net.relu(net.norm(net.conv(x, spec.width, 7, "conv", stride=2), "norm"), "relu")
    return net.max_pool(x, "pool")


def dense_stage(net: LayerFactory[DenseNetSpec], x: Tensor, stage: DenseStageConfig) -> Tensor:
    """The transition, if there is one, and the layers of one dense block."""
    if stage.transition is not None:
        x = _transition(net.within(f"{stage.name}_transition"), x, stage.transition)
    for layer in stage.layers:
        x = _dense_layer(net.within(layer.name), x, layer)
    return x


def _transition(net: LayerFactory[DenseNetSpec], x: Tensor, filters: int) -> Tensor:
    """norm, ReLU, 1x1 convolution, and the mean of 2 x 2 pixels."""
    x = net.conv(net.relu(net.norm(x, "norm"), "relu"), filters, 1, "conv")
    return net.halve(_dropped(net, x, "drop"), "pool")


def _dense_layer(net: LayerFactory[DenseNetSpec], x: Tensor, layer: DenseLayerConfig) -> Tensor:
    """x with `growth` more channels: [x, H(x)], equation 2 of the paper."""
    y = net.relu(net.norm(x, "norm1"), "relu1")
    if layer.bottleneck_channels is None:
        y = _dropped(net, net.conv(y, layer.growth, 3, "conv1"), "drop1")
    else:
        y = _dropped(net, net.conv(y, layer.bottleneck_channels, 1, "conv1"), "drop1")
        y = net.relu(net.norm(y, "norm2"), "relu2")
        y = _dropped(net, net.conv(y, layer.growth, 3, "conv2"), "drop2")
    return net.concatenate(x, y, "concat")


def _dropped(net: LayerFactory[DenseNetSpec], x: Tensor, name: str) -> Tensor:
    """Dropout of single values, as in the paper; no layer at a rate of 0."""
    return net.dropout(x, net.spec.dropout, name) if net.spec.dropout > 0 else x

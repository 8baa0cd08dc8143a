"""Stem, residual blocks and shortcuts as in the figures of the papers, with public Keras layers
only.

Padding is symmetric and explicit wherever a kernel larger than 1x1 has a stride, as in torch and in
keras.applications ("same" would pad only the far side, and shift the weights by half a pixel).
Sizes follow ceil(size / stride).
"""

from __future__ import annotations

from typing import Any

import keras

from medres.backbones.spec import BlockConfig, ResNetSpec

Tensor = Any  # keras.KerasTensor while the graph is built; has .shape
GROUPS = 32  # of group normalization: Wu and He, ECCV 2018
SQUEEZE = 16  # reduction ratio of squeeze-and-excitation
NARROW = 16  # with fewer input channels, a strided 1x1 is split into two layers: decision 17


class LayerFactory:
    """The layers of one network, configured once: 2D or 3D (`rank`), the kind of normalization,
    with or without biases. The name of every layer begins with `prefix`.
    """

    def __init__(self, spec: ResNetSpec, rank: int, prefix: str = "") -> None:
        self.spec = spec
        self.rank = rank
        self.prefix = prefix

    def within(self, name: str) -> LayerFactory:
        """The same factory for the layers of one part of the network, such as "stage1_block1"."""
        return LayerFactory(self.spec, self.rank, f"{self.prefix}{name}_")

    def _of_rank(self, kind: str) -> Any:
        return getattr(keras.layers, f"{kind}{self.rank}D")

    def conv(
        self,
        x: Tensor,
        filters: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool | None = None,
    ) -> Tensor:
        name = self.prefix + name
        if stride > 1 and kernel > 1:
            x = self._of_rank("ZeroPadding")((kernel - 1) // 2, name=f"{name}_pad")(x)
        elif stride > 1 and x.shape[-1] < NARROW:
            x, stride = self._average_pool(x, 1, stride, f"{name}_pick"), 1
        return self._of_rank("Conv")(
            filters,
            kernel,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            dilation_rate=dilation,
            groups=groups,
            use_bias=self.spec.conv_bias if bias is None else bias,
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            name=name,
        )(x)

    def norm(self, x: Tensor, name: str, *, gamma: str = "ones") -> Tensor:
        epsilon, name = self.spec.norm_epsilon, self.prefix + name
        if self.spec.norm == "group":
            groups = next(n for n in range(GROUPS, 0, -1) if x.shape[-1] % n == 0)
            return keras.layers.GroupNormalization(
                groups, epsilon=epsilon, gamma_initializer=gamma, name=name
            )(x)
        return keras.layers.BatchNormalization(
            momentum=0.9,
            epsilon=epsilon,
            gamma_initializer=gamma,
            synchronized=self.spec.norm == "sync",
            name=name,
        )(x)

    def relu(self, x: Tensor, name: str) -> Tensor:
        return keras.layers.ReLU(name=self.prefix + name)(x)

    def max_pool(self, x: Tensor, name: str) -> Tensor:
        """3x3, stride 2. The input comes from a ReLU, so a border of zeros changes no maximum."""
        x = self._of_rank("ZeroPadding")(1, name=f"{self.prefix}{name}_pad")(x)
        return self._of_rank("MaxPooling")(3, strides=2, name=self.prefix + name)(x)

    def subsample(self, x: Tensor, stride: int, name: str) -> Tensor:
        """Every stride-th pixel; in version "d" the mean of stride x stride pixels."""
        size = stride if self.spec.version == "d" else 1
        return self._average_pool(x, size, stride, self.prefix + name)

    def _average_pool(self, x: Tensor, size: int, stride: int, name: str) -> Tensor:
        return self._of_rank("AveragePooling")(size, strides=stride, padding="same", name=name)(x)

    def pad_channels(self, x: Tensor, filters: int) -> Tensor:
        """Add channels of zeros. Keras pads spatial axes only, so the channels are swapped with the
        last spatial axis before and after.
        """
        missing = filters - x.shape[-1]
        before = missing // 2 if self.spec.channel_padding == "both" else 0
        swap = (*range(1, self.rank), self.rank + 1, self.rank)
        border = ((0, 0),) * (self.rank - 1) + ((before, missing - before),)
        x = keras.layers.Permute(swap, name=f"{self.prefix}swap")(x)
        x = self._of_rank("ZeroPadding")(border, name=f"{self.prefix}pad")(x)
        return keras.layers.Permute(swap, name=f"{self.prefix}back")(x)

    def squeeze_excite(self, x: Tensor) -> Tensor:
        """Weights per channel from the global average: Hu et al., figure 1."""
        channels = x.shape[-1]
        y = self._of_rank("GlobalAveragePooling")(keepdims=True, name=f"{self.prefix}squeeze")(x)
        y = self.conv(y, max(1, channels // SQUEEZE), 1, "reduce", bias=True)
        y = self.relu(y, "relu")
        y = self.conv(y, channels, 1, "expand", bias=True)
        y = keras.layers.Activation("sigmoid", name=f"{self.prefix}gate")(y)
        return keras.layers.Multiply(name=f"{self.prefix}scale")([x, y])

    def drop_branch(self, x: Tensor, rate: float, name: str) -> Tensor:
        """Stochastic depth: one random choice per image; during training the branches that stay
        are scaled by 1 / (1 - rate).
        """
        shape = (None, *[1] * (self.rank + 1))
        return keras.layers.Dropout(rate, noise_shape=shape, name=self.prefix + name)(x)

    def add(self, branch: Tensor, shortcut: Tensor, name: str) -> Tensor:
        return keras.layers.Add(name=self.prefix + name)([branch, shortcut])


def stem(net: LayerFactory, x: Tensor) -> Tensor:
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


def residual_block(net: LayerFactory, x: Tensor, block: BlockConfig) -> Tensor:
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


def basic_branch(net: LayerFactory, x: Tensor, block: BlockConfig) -> Tensor:
    """3x3, 3x3: figure 5 (left) of the paper, without the last norm."""
    filters, (dilation1, dilation2) = block.bottleneck_channels, block.dilations
    x = net.conv(x, filters, 3, "conv1", stride=block.stride, dilation=dilation1)
    x = net.relu(net.norm(x, "norm1"), "relu1")
    return net.conv(x, block.outputs, 3, "conv2", dilation=dilation2)


def bottleneck_branch(net: LayerFactory, x: Tensor, block: BlockConfig) -> Tensor:
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


def _add_shortcut(net: LayerFactory, y: Tensor, x: Tensor, block: BlockConfig) -> Tensor:
    """Add the shortcut of x to the branch y; a plain network returns the branch alone."""
    if net.spec.squeeze_excite:
        y = net.within("se").squeeze_excite(y)
    if block.drop_rate:
        y = net.drop_branch(y, block.drop_rate, "drop")
    return net.add(y, shortcut(net, x, block), "add") if net.spec.residual else y


def shortcut(net: LayerFactory, x: Tensor, block: BlockConfig) -> Tensor:
    """The identity where the shape stays (except in option C); else zero-padding (option A) or a
    1x1 projection (options B and C).
    """
    spec, net = net.spec, net.within("shortcut")
    if not block.changes_shape and spec.shortcut != "C":
        return x
    stride = block.stride
    if spec.shortcut == "A":
        x = net.subsample(x, stride, "pool") if stride > 1 else x
        return net.pad_channels(x, block.outputs) if block.inputs != block.outputs else x
    if spec.version == "d" and stride > 1:
        x, stride = net.subsample(x, stride, "pool"), 1
    x = net.conv(x, block.outputs, 1, "conv", stride=stride)
    return x if spec.version == "2" else net.norm(x, "norm")

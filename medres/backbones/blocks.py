"""Stem, blocks and shortcuts, drawn as in the papers' figures, in public Keras layers alone.

Padding is symmetric and explicit wherever a stride meets a kernel larger than 1x1 (as in torch and
in keras.applications; "same" would pad the far side only, and shift the weights' meaning by half a
pixel). Sizes follow ceil(size / stride).
"""

from __future__ import annotations

from typing import Any

import keras

from medres.backbones.spec import BlockConfig, ResNetSpec

Tensor = Any  # keras.KerasTensor while building; has .shape
GROUPS = 32  # of group normalisation: Wu and He, ECCV 2018
SQUEEZE = 16  # reduction ratio of squeeze-and-excitation
NARROW = 16  # input channels under which a strided 1x1 is taken apart: decision 17


class LayerFactory:
    """The layers of one network, bound once: 2D or 3D, the kind of normalisation, biases or
    none.
    """

    def __init__(self, spec: ResNetSpec, rank: int) -> None:
        self.spec = spec
        self.rank = rank

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
        if stride > 1 and kernel > 1:
            x = self._of_rank("ZeroPadding")((kernel - 1) // 2, name=f"{name}_pad")(x)
        elif stride > 1 and x.shape[-1] < NARROW:
            x, stride = self.subsample(x, stride, f"{name}_pick"), 1
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
        epsilon = self.spec.norm_epsilon
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
        return keras.layers.ReLU(name=name)(x)

    def max_pool(self, x: Tensor, name: str) -> Tensor:
        """3x3, stride 2, of values that a ReLU has made non-negative, so that zero is a neutral
        border.
        """
        x = self._of_rank("ZeroPadding")(1, name=f"{name}_pad")(x)
        return self._of_rank("MaxPooling")(3, strides=2, name=name)(x)

    def subsample(self, x: Tensor, stride: int, name: str) -> Tensor:
        """Every stride-th pixel; in version "d" the mean of those that it stands for."""
        size = stride if self.spec.version == "d" else 1
        return self._of_rank("AveragePooling")(size, strides=stride, padding="same", name=name)(x)

    def pad_channels(self, x: Tensor, filters: int, name: str) -> Tensor:
        """New channels of zeros; the channels are swapped with the last spatial axis for the
        while.
        """
        missing = filters - x.shape[-1]
        before = missing // 2 if self.spec.zero_side == "both" else 0
        swap = (*range(1, self.rank), self.rank + 1, self.rank)
        border = ((0, 0),) * (self.rank - 1) + ((before, missing - before),)
        x = keras.layers.Permute(swap, name=f"{name}_swap")(x)
        x = self._of_rank("ZeroPadding")(border, name=f"{name}_pad")(x)
        return keras.layers.Permute(swap, name=f"{name}_back")(x)

    def squeeze_excite(self, x: Tensor, name: str) -> Tensor:
        channels = x.shape[-1]
        y = self._of_rank("GlobalAveragePooling")(keepdims=True, name=f"{name}_squeeze")(x)
        y = self.relu(
            self.conv(y, max(1, channels // SQUEEZE), 1, f"{name}_reduce", bias=True),
            f"{name}_relu",
        )
        y = keras.layers.Activation("sigmoid", name=f"{name}_gate")(
            self.conv(y, channels, 1, f"{name}_expand", bias=True)
        )
        return keras.layers.Multiply(name=f"{name}_scale")([x, y])

    def drop_branch(self, x: Tensor, rate: float, name: str) -> Tensor:
        """Stochastic depth: one draw an image, the kept branches scaled by 1 / (1 - rate) while
        training.
        """
        return keras.layers.Dropout(rate, noise_shape=(None, *[1] * (self.rank + 1)), name=name)(x)


def stem(net: LayerFactory, x: Tensor) -> Tensor:
    """imagenet: 7x7/2 (version "d": three 3x3) and a max pool; small and cifar: one 3x3. Ends in
    norm, ReLU and the pool.
    """
    spec = net.spec
    if spec.stem != "imagenet":
        x = net.conv(x, spec.width, 3, "stem_conv")
    elif spec.version == "d":
        for i in (1, 2):
            x = net.conv(x, max(1, spec.width // 2), 3, f"stem_conv{i}", stride=2 if i == 1 else 1)
            x = net.relu(net.norm(x, f"stem_norm{i}"), f"stem_relu{i}")
        x = net.conv(x, spec.width, 3, "stem_conv")
    else:
        x = net.conv(x, spec.width, 7, "stem_conv", stride=2)
    x = net.relu(net.norm(x, "stem_norm"), "stem_relu")
    return net.max_pool(x, "stem_pool") if spec.stem == "imagenet" else x


def basic_branch(net: LayerFactory, x: Tensor, plan: BlockConfig) -> Tensor:
    """3x3, 3x3 (figure 5, left, of the paper)."""
    name, (first, second) = plan.name, plan.dilations
    x = net.conv(x, plan.inner, 3, f"{name}_conv1", stride=plan.stride, dilation=first)
    x = net.relu(net.norm(x, f"{name}_norm1"), f"{name}_relu1")
    return net.conv(x, plan.outputs, 3, f"{name}_conv2", dilation=second)


def bottleneck_branch(net: LayerFactory, x: Tensor, plan: BlockConfig) -> Tensor:
    """1x1, 3x3, 1x1 (figure 5, right): the stride is in the first 1x1 in version "1", else in the
    3x3.
    """
    name = plan.name
    early, late = (plan.stride, 1) if net.spec.version == "1" else (1, plan.stride)
    x = net.conv(x, plan.inner, 1, f"{name}_conv1", stride=early)
    x = net.relu(net.norm(x, f"{name}_norm1"), f"{name}_relu1")
    groups = net.spec.cardinality
    x = net.conv(
        x, plan.inner, 3, f"{name}_conv2", stride=late, dilation=plan.dilations[0], groups=groups
    )
    x = net.relu(net.norm(x, f"{name}_norm2"), f"{name}_relu2")
    return net.conv(x, plan.outputs, 1, f"{name}_conv3")


def shortcut(net: LayerFactory, x: Tensor, plan: BlockConfig) -> Tensor:
    """Identity where the shape allows it (not in option C); else zero-padding (A) or a 1x1
    projection (B, C).
    """
    spec, name = net.spec, f"{plan.name}_shortcut"
    if not plan.changes_shape and spec.shortcut != "C":
        return x
    if spec.shortcut == "A":
        x = net.subsample(x, plan.stride, f"{name}_pool") if plan.stride > 1 else x
        return net.pad_channels(x, plan.outputs, name) if plan.inputs != plan.outputs else x
    stride = plan.stride
    if spec.version == "d" and stride > 1:
        x, stride = net.subsample(x, stride, f"{name}_pool"), 1
    x = net.conv(x, plan.outputs, 1, f"{name}_conv", stride=stride)
    return x if spec.version == "2" else net.norm(x, f"{name}_norm")


def basic_block(net: LayerFactory, x: Tensor, plan: BlockConfig) -> Tensor:
    return _block(net, x, plan, basic_branch, last_norm="norm2")


def bottleneck_block(net: LayerFactory, x: Tensor, plan: BlockConfig) -> Tensor:
    return _block(net, x, plan, bottleneck_branch, last_norm="norm3")


def _block(
    net: LayerFactory, x: Tensor, plan: BlockConfig, branch: Any, *, last_norm: str
) -> Tensor:
    if net.spec.version == "2":
        return _preactivated(net, x, plan, branch)
    y = branch(net, x, plan)
    y = net.norm(y, f"{plan.name}_{last_norm}", gamma="zeros" if net.spec.zero_gamma else "ones")
    return net.relu(_join(net, y, x, plan), f"{plan.name}_relu")


def _preactivated(net: LayerFactory, x: Tensor, plan: BlockConfig, branch: Any) -> Tensor:
    """Norm and ReLU come first. Where the shape changes both paths take the activated input (He et
    al. 2016b, appendix).
    """
    active = x if plan.first else net.relu(net.norm(x, f"{plan.name}_norm0"), f"{plan.name}_relu0")
    return _join(net, branch(net, active, plan), active if plan.changes_shape else x, plan)


def _join(net: LayerFactory, y: Tensor, x: Tensor, plan: BlockConfig) -> Tensor:
    """Add the shortcut of x to the branch y; a plain net gives the branch alone."""
    if net.spec.squeeze_excite:
        y = net.squeeze_excite(y, f"{plan.name}_se")
    if plan.drop:
        y = net.drop_branch(y, plan.drop, f"{plan.name}_drop")
    return (
        keras.layers.Add(name=f"{plan.name}_add")([y, shortcut(net, x, plan)])
        if net.spec.residual
        else y
    )

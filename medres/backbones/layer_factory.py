"""The layers of a network, made from public Keras layers only, in 2D and in 3D.

Padding is symmetric and explicit wherever a kernel larger than 1x1 has a stride, as in torch and in
keras.applications ("same" would pad only the far side, and shift the weights by half a pixel).
Sizes follow ceil(size / stride).
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import keras

Tensor = Any  # keras.KerasTensor while the graph is built; has .shape
GROUPS = 32  # of group normalization: Wu and He, ECCV 2018
SQUEEZE = 16  # reduction ratio of squeeze-and-excitation
NARROW = 16  # with fewer input channels, a strided 1x1 is split into two layers: decision 17


class LayerOptions(Protocol):
    """What the layers of every network need to know of its spec."""

    @property
    def norm(self) -> str: ...
    @property
    def norm_epsilon(self) -> float: ...
    @property
    def conv_bias(self) -> bool: ...


Spec = TypeVar("Spec", bound=LayerOptions)


class LayerFactory(Generic[Spec]):
    """The layers of one network, configured once: 2D or 3D (`rank`), the kind of normalization,
    with or without biases. The name of every layer begins with `prefix`.
    """

    def __init__(self, spec: Spec, rank: int, prefix: str = "") -> None:
        self.spec = spec
        self.rank = rank
        self.prefix = prefix

    def within(self, name: str) -> LayerFactory[Spec]:
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
        if stride > 1 and kernel > 1:
            x = self._of_rank("ZeroPadding")((kernel - 1) // 2, name=f"{self.prefix}{name}_pad")(x)
        elif stride > 1 and x.shape[-1] < NARROW:
            x, stride = self.subsample(x, stride, f"{name}_pick"), 1
        return self.conv_layer(
            filters,
            kernel,
            name,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            dilation_rate=dilation,
            groups=groups,
            use_bias=self.spec.conv_bias if bias is None else bias,
        )(x)

    def conv_layer(self, filters: int, kernel: int, name: str, **options: Any) -> Any:
        """A convolution that may be called on several maps. options: of the Keras layer."""
        initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        return self._of_rank("Conv")(
            filters, kernel, name=self.prefix + name, kernel_initializer=initializer, **options
        )

    def norm(self, x: Tensor, name: str, *, gamma: str = "ones") -> Tensor:
        return self.norm_layer(x.shape[-1], name, gamma=gamma)(x)

    def norm_layer(self, channels: int, name: str, *, gamma: str = "ones") -> Any:
        """A normalization that may be called on several maps of so many channels."""
        epsilon, name = self.spec.norm_epsilon, self.prefix + name
        if self.spec.norm == "group":
            groups = next(n for n in range(GROUPS, 0, -1) if channels % n == 0)
            return keras.layers.GroupNormalization(
                groups, epsilon=epsilon, gamma_initializer=gamma, name=name
            )
        return keras.layers.BatchNormalization(
            momentum=0.9,
            epsilon=epsilon,
            gamma_initializer=gamma,
            synchronized=self.spec.norm == "sync",
            name=name,
        )

    def relu(self, x: Tensor, name: str) -> Tensor:
        return keras.layers.ReLU(name=self.prefix + name)(x)

    def max_pool(self, x: Tensor, name: str) -> Tensor:
        """3x3, stride 2. The input comes from a ReLU, so a border of zeros changes no maximum."""
        x = self._of_rank("ZeroPadding")(1, name=f"{self.prefix}{name}_pad")(x)
        return self._of_rank("MaxPooling")(3, strides=2, name=self.prefix + name)(x)

    def subsample(self, x: Tensor, stride: int, name: str, *, size: int = 1) -> Tensor:
        """Every stride-th pixel, or the mean of size x size pixels there."""
        name = self.prefix + name
        return self._of_rank("AveragePooling")(size, strides=stride, padding="same", name=name)(x)

    def halve(self, x: Tensor, name: str) -> Tensor:
        """The mean of 2 x 2 pixels. A last odd row or column is left out, as in torch."""
        return self._of_rank("AveragePooling")(2, strides=2, name=self.prefix + name)(x)

    def pad_channels(self, x: Tensor, filters: int, side: str) -> Tensor:
        """Add channels of zeros on "both" sides or at the "end". Keras pads spatial axes only, so
        the channels are swapped with the last spatial axis before and after.
        """
        missing = filters - x.shape[-1]
        before = missing // 2 if side == "both" else 0
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

    def dropout(self, x: Tensor, rate: float, name: str) -> Tensor:
        return keras.layers.Dropout(rate, name=self.prefix + name)(x)

    def add(self, branch: Tensor, shortcut: Tensor, name: str) -> Tensor:
        return keras.layers.Add(name=self.prefix + name)([branch, shortcut])

    def concatenate(self, x: Tensor, new: Tensor, name: str) -> Tensor:
        """The channels of x, then the new ones."""
        return keras.layers.Concatenate(name=self.prefix + name)([x, new])

    def upsample(self, x: Tensor, factor: int, name: str, *, smooth: bool = False) -> Tensor:
        """`factor` times the size along each axis: each pixel repeated, or in 2D with `smooth`
        linear interpolation, which Keras does not have in 3D.
        """
        options = {"interpolation": "bilinear"} if smooth and self.rank == 2 else {}
        return self._of_rank("UpSampling")(factor, name=self.prefix + name, **options)(x)

"""From a spec to a functional Keras model with named stages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from medres.backbones.blocks import LayerFactory, Tensor, basic_block, bottleneck_block, stem
from medres.backbones.spec import ResNetSpec
from medres.backbones.variants import resnet_spec
from medres.errors import ModelError

BLOCK = {"basic": basic_block, "bottleneck": bottleneck_block}
# Keras walks a graph by recursion: CIFAR-1202 needs some 5,000 calls, Python allows 1,000
FRAMES = 20_000


def resnet(
    variant: int | str,
    input_shape: Sequence[int | None],
    *,
    version: str = "1.5",
    block: str | None = None,
    shortcut: str = "B",
    residual: bool = True,
    stem: str = "imagenet",
    width: int | None = None,
    norm: str = "batch",
    name: str | None = None,
    **further: Any,
) -> keras.Model:
    """A ResNet without pooling and classifier: float32 `image` of `input_shape` -> the last feature
    map.

    variant: 10, 18, 34, 50, 101, 152, 200 (or "resnet50", or another name of the table `VARIANTS`);
        with stem="cifar" any 6n+2, or 9n+2 with block="bottleneck".
    input_shape: (H, W, C) or (D, H, W, C) in pixels, any channel count; an axis may be None.
    version: "1", "1.5", "2" or "d": see `medres.backbones.spec`. block: None (the variant's own),
        "basic", "bottleneck".
    shortcut: "A" zero-padding, "B" projection where the shape changes, "C" projection everywhere.
        residual=False leaves every shortcut out: the plain twin.
    stem: "imagenet" (7x7/2 and pool), "small" (3x3, no pool, four stages), "cifar" (3x3, three
        stages).
    width: channels of the first stage, from 4 up; None is 64, or 16 for stem="cifar". norm:
        "batch", "group", "sync".
    further: other fields of ResNetSpec, such as squeeze_excite, stochastic_depth, zero_gamma,
        output_stride, conv_bias.

    The outputs of the stages are the layers "stage1", "stage2", ... In version "2" they precede the
    next block's activation, except the last, which is normalised and activated. Raises ModelError.
    """
    spec = resnet_spec(
        variant,
        version=version,
        block=block,
        shortcut=shortcut,
        residual=residual,
        stem=stem,
        width=width,
        norm=norm,
        **further,
    )
    return backbone(spec, input_shape, name=name)


def backbone(
    spec: ResNetSpec, input_shape: Sequence[int | None], *, name: str | None = None
) -> keras.Model:
    """The functional model of a spec: `image` -> the last feature map."""
    image = keras.Input(checked_shape(spec, input_shape), name="image", dtype="float32")
    return functional(image, features(spec, image), name or spec.name)


def features(spec: ResNetSpec, x: Tensor) -> Tensor:
    """Draw the network of `spec` on a symbolic tensor (batch, [depth,] height, width, channels)."""
    net = LayerFactory(spec, rank=len(x.shape) - 2)
    block = BLOCK[spec.block]
    x = stem(net, x)
    for number, plans in enumerate(spec.stages(), start=1):
        for plan in plans:
            x = block(net, x, plan)
        if spec.version == "2" and number == len(spec.depths):
            x = net.relu(net.norm(x, "last_norm"), "last_relu")
        x = keras.layers.Identity(name=f"stage{number}")(x)
    return x


def pyramid(model: keras.Model) -> keras.Model:
    """The same network with every stage as output: {"stage1": C2, "stage2": C3, ...}, finest first.
    Shares its weights.
    """
    names = [
        layer.name for layer in model.layers if layer.name in {f"stage{i}" for i in range(1, 5)}
    ]
    if not names:
        raise ModelError(
            f"model {model.name!r} has no layer named stage1: build it with medres.backbones.resnet"
        )
    return functional(
        model.inputs[0],
        {name: model.get_layer(name).output for name in names},
        f"{model.name}_pyramid",
    )


def functional(inputs: Tensor, outputs: Any, name: str | None = None) -> keras.Model:
    """keras.Model for graphs of any depth. Opening a saved net of some 1,000 layers needs
    sys.setrecursionlimit as well.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, FRAMES))
    try:
        return keras.Model(inputs, outputs, name=name)
    finally:
        sys.setrecursionlimit(limit)


def checked_shape(spec: ResNetSpec, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """`input_shape` as a tuple, or ModelError where the network cannot take it."""
    shape = tuple(input_shape) if isinstance(input_shape, Sequence | np.ndarray) else (input_shape,)
    if len(shape) not in (3, 4):
        raise ModelError(
            f"input_shape {shape}: give (height, width, channels) or (depth, height, width, "
            f"channels)"
        )
    for size in shape:
        if size is not None and (
            not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1
        ):
            raise ModelError(f"input_shape {shape}: {size!r} is not a whole number of 1 or more")
    shape = tuple(size if size is None else int(size) for size in shape)
    if shape[-1] is None:
        raise ModelError(f"input_shape {shape}: the channel count must be known")
    small = [size for size in shape[:-1] if size is not None and size < spec.total_stride]
    if small:
        hint = (
            '; stem="small" has stride 8, stem="cifar" stride 4' if spec.stem == "imagenet" else ""
        )
        raise ModelError(
            f"input_shape {shape}: {small[0]} is smaller than the network's stride of "
            f"{spec.total_stride}; "
            f"give {spec.total_stride} or more along each axis{hint}"
        )
    return shape

"""Build a functional Keras model with named stages from a spec."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from medres.backbones.blocks import residual_block
from medres.backbones.blocks import stem as build_stem
from medres.backbones.dense.blocks import dense_stage, dense_stem
from medres.backbones.dense.spec import DenseNetSpec
from medres.backbones.dense.variants import densenet_spec
from medres.backbones.input_scaling import scaled_input
from medres.backbones.layer_factory import LayerFactory, Tensor
from medres.backbones.layer_graph import functional
from medres.backbones.spec import ResNetSpec
from medres.backbones.variants import model_name, resnet_spec, variant_name
from medres.backbones.weights.cached_files import weights_file
from medres.backbones.weights.load import load_pretrained
from medres.errors import ModelError


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
    weights: str | Path | None = None,
    **spec_fields: Any,
) -> keras.Model:
    """A ResNet without global pooling and classifier. Input: float32 `image` of `input_shape`;
    output: the last feature map.

    variant: 10, 18, 34, 50, 101, 152, 200 (or "resnet50", or another name of the table `VARIANTS`);
        with stem="cifar" any 6n+2, or 9n+2 with block="bottleneck".
    input_shape: (H, W, C) or (D, H, W, C) in pixels, any channel count; an axis may be None.
    version: "1", "1.5", "2" or "d": see `medres.backbones.spec`. block: None (the variant's own),
        "basic", "bottleneck".
    shortcut: "A" zero-padding, "B" projection where the shape changes, "C" projection everywhere.
        residual=False builds the plain network without shortcuts.
    stem: "imagenet" (7x7/2 and pool), "small" (3x3, no pool, four stages), "cifar" (3x3, three
        stages).
    width: channels of the first stage, 4 or more; None is 64, or 16 for stem="cifar". norm:
        "batch", "group", "sync".
    name: of the model; default: from the spec, such as "resnet50" or "resnext50_32x4d".
    weights: None: random. "imagenet", or another name of `medres weights`, is downloaded at its
        first use; a path is any file that `load_pretrained` reads. With "imagenet" the model still
        receives -1..1, in any number of channels: the normalization of ImageNet is in its graph.
    spec_fields: other fields of ResNetSpec, such as squeeze_excite, stochastic_depth, zero_gamma,
        output_stride, conv_bias.

    The outputs of the stages are the layers "stage1", "stage2", ... In version "2" they precede the
    activation of the next block, except the last, which is normalized and activated. Raises
    ModelError if the variant, an option or the shape is invalid.

    >>> import medres
    >>> model = medres.backbones.resnet(18, (64, 64, 1), stem="small", width=8)
    >>> model.output_shape, model.get_layer("stage1").output.shape
    ((None, 8, 8, 64), (None, 64, 64, 8))
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
        **spec_fields,
    )
    return _with_weights(spec, input_shape, name, weights, variant_name(variant))


def densenet(
    variant: int | str,
    input_shape: Sequence[int | None],
    *,
    stem: str = "imagenet",
    growth: int | None = None,
    bottleneck: bool | None = None,
    compression: float | None = None,
    width: int | None = None,
    norm: str = "batch",
    name: str | None = None,
    weights: str | Path | None = None,
    **spec_fields: Any,
) -> keras.Model:
    """A DenseNet without global pooling and classifier. Input: float32 `image` of `input_shape`;
    output: the last feature map, normalized and activated.

    variant: 121, 161, 169, 201, 264 (or "densenet121"); with stem="cifar" a depth 3n+4, or 6n+4
        with bottlenecks, such as 40, 100, "densenet100_k24" or "densenet_bc100_k12" (with
        bottleneck and compression).
    input_shape, norm, name, weights: as for `resnet`.
    stem: "imagenet" (7x7/2 and pool), "small" (3x3, no pool, four stages), "cifar" (3x3, three
        stages).
    growth: channels that each layer adds; None: the variant's own, 12 for stem="cifar".
    bottleneck: a 1x1 convolution before each 3x3. compression: the part of the channels that a
        transition keeps. None: the variant's own: True and 0.5; for stem="cifar" False and 1,
        unless the name has the letters "bc".
    width: channels of the stem; None: twice the growth, or 16 for stem="cifar" without compression.
    spec_fields: other fields of DenseNetSpec: norm_epsilon, conv_bias, dropout, ...

    The outputs of the dense blocks are the layers "stage1", "stage2", ...: each but the last
    precedes the norm of the transition after it. Where a side is odd, a transition leaves the last
    row or column out, as torchvision and keras.applications do. Raises ModelError if the variant,
    an option or the shape is invalid.

    >>> import medres
    >>> model = medres.backbones.densenet(40, (32, 32, 3), stem="cifar", growth=12)
    >>> model.output_shape, model.get_layer("stage1").output.shape
    ((None, 8, 8, 448), (None, 32, 32, 160))
    """
    spec = densenet_spec(
        variant,
        stem=stem,
        growth=growth,
        bottleneck=bottleneck,
        compression=compression,
        width=width,
        norm=norm,
        **spec_fields,
    )
    row = f"densenet{variant}" if str(variant).isdigit() else str(variant)
    return _with_weights(spec, input_shape, name, weights, row)


def _with_weights(
    spec: ResNetSpec | DenseNetSpec,
    input_shape: Sequence[int | None],
    name: str | None,
    weights: str | Path | None,
    variant: str,
) -> keras.Model:
    if weights is None:
        return backbone(spec, input_shape, name=name)
    file = weights_file(weights, variant)
    model = backbone(spec_for(spec, file.input_scaling), input_shape, name=name)
    load_pretrained(model, file.path)
    return model


def spec_for(
    spec: ResNetSpec | DenseNetSpec, input_scaling: str | None
) -> ResNetSpec | DenseNetSpec:
    """The spec with the input scaling that weights need; None: unchanged."""
    if input_scaling is None:
        return spec
    return dataclasses.replace(spec, input_scaling=input_scaling)


def backbone(
    spec: ResNetSpec | DenseNetSpec, input_shape: Sequence[int | None], *, name: str | None = None
) -> keras.Model:
    """The functional model of a spec: `image` -> the last feature map."""
    image = keras.Input(checked_shape(spec, input_shape), name="image", dtype="float32")
    return functional(image, features(spec, image), name or model_name(spec))


def features(spec: ResNetSpec | DenseNetSpec, x: Tensor) -> Tensor:
    """Apply the network of `spec` to a symbolic tensor (batch, [depth,] height, width, channels)
    and return the last feature map.
    """
    rank = len(x.shape) - 2
    if spec.input_scaling is not None:
        x = scaled_input(x, spec.input_scaling)
    if isinstance(spec, DenseNetSpec):
        return _dense_features(LayerFactory(spec, rank), x)
    return _residual_features(LayerFactory(spec, rank), x)


def _residual_features(net: LayerFactory[ResNetSpec], x: Tensor) -> Tensor:
    x = build_stem(net, x)
    for number, blocks in enumerate(net.spec.stages(), start=1):
        for block in blocks:
            x = residual_block(net, x, block)
        if net.spec.version == "2" and number == len(net.spec.depths):
            x = net.relu(net.norm(x, "last_norm"), "last_relu")
        x = keras.layers.Identity(name=f"stage{number}")(x)
    return x


def _dense_features(net: LayerFactory[DenseNetSpec], x: Tensor) -> Tensor:
    x = dense_stem(net, x)
    for number, stage in enumerate(net.spec.stages(), start=1):
        x = dense_stage(net, x, stage)
        if number == len(net.spec.depths):
            x = net.relu(net.norm(x, "last_norm"), "last_relu")
        x = keras.layers.Identity(name=stage.name)(x)
    return x


def pyramid(model: keras.Model) -> keras.Model:
    """The same network with every stage as an output, finest first: {"stage1": C2, "stage2": C3,
    ...}. It shares the weights of `model`.
    """
    names = [
        layer.name for layer in model.layers if layer.name in {f"stage{i}" for i in range(1, 5)}
    ]
    if not names:
        raise ModelError(
            f"model {model.name!r} has no layer named stage1: build it with "
            f"medres.backbones.resnet or medres.backbones.densenet",
            code="no_stages",
        )
    return functional(
        model.inputs[0],
        {name: model.get_layer(name).output for name in names},
        f"{model.name}_pyramid",
    )


def checked_shape(
    spec: ResNetSpec | DenseNetSpec, input_shape: Sequence[int | None]
) -> tuple[int | None, ...]:
    """`input_shape` as a tuple of int or None. Raises ModelError if the network cannot take it."""
    shape = well_formed_shape(input_shape)
    small = [size for size in shape[:-1] if size is not None and size < spec.total_stride]
    if small:
        hint = (
            '; stem="small" has stride 8, stem="cifar" stride 4' if spec.stem == "imagenet" else ""
        )
        raise ModelError(
            f"input_shape {shape}: {small[0]} is smaller than the network's stride of "
            f"{spec.total_stride}; give {spec.total_stride} or more along each axis{hint}",
            code="input_shape",
        )
    return shape


def well_formed_shape(input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """`input_shape` as a tuple of int or None: two or three sizes and a known number of channels.
    Raises ModelError.
    """
    shape = tuple(input_shape) if isinstance(input_shape, Sequence | np.ndarray) else (input_shape,)
    if len(shape) not in (3, 4):
        raise ModelError(
            f"input_shape {shape}: give (height, width, channels) or (depth, height, width, "
            f"channels)",
            code="input_shape",
        )
    for size in shape:
        if size is not None and (
            not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1
        ):
            raise ModelError(
                f"input_shape {shape}: {size!r} is not a whole number of 1 or more",
                code="input_shape",
            )
    shape = tuple(size if size is None else int(size) for size in shape)
    if shape[-1] is None:
        raise ModelError(
            f"input_shape {shape}: the number of channels must be known", code="input_shape"
        )
    return shape

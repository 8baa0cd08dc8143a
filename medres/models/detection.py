"""The detector: windows or scaling, padding, backbone, feature pyramid, and heads that all levels
share; all of it in the saved graph. Its raw maps become boxes in `medres.decode`.

    Tian et al., FCOS, ICCV 2019 (arXiv:1904.01355)
    Lin et al., Focal Loss, ICCV 2017 (arXiv:1708.02002): the bias of the class logits
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()

import keras  # noqa: E402

from medres.backbones.build import functional, well_formed_shape  # noqa: E402
from medres.backbones.layer_factory import LayerFactory, Tensor  # noqa: E402
from medres.backbones.spec import STEM_STRIDE, one_of, whole_number  # noqa: E402
from medres.backbones.variants import model_name, network_spec  # noqa: E402
from medres.detection.settings import DecodingSettings  # noqa: E402
from medres.errors import ModelError  # noqa: E402
from medres.models.classification import checked_classes, scaled  # noqa: E402
from medres.models.necks import (  # noqa: E402
    Level,
    Spec,
    backbone_levels,
    channels_at,
    feature_pyramid,
)

PREFIX = "decoder_"
LEVELS = (2, 7)  # C2 is the first stage; P6 and P7 are coarser than any stage
HEAD_NORMS = ("group", "batch", "sync")
PRIOR = 0.01  # the probability of every class at every position before training
START = 4.0  # distance to each side before training, in strides
_PIXELS = re.compile(rf"{PREFIX}stride(\d+)_pixels")


def detector(
    variant: int | str,
    input_shape: Sequence[int | None],
    classes: int | Sequence[str],
    *,
    levels: Sequence[int] = (2, 3, 4, 5),
    channels: int | None = None,
    head_depth: int = 4,
    head_norm: str = "group",
    windows: Sequence[str | tuple[float, float]] | None = None,
    scaling: str | None = None,
    **backbone_options: Any,
) -> keras.Model:
    """A functional Keras model of built-in layers that finds objects (FCOS, without anchors).

    Input `image`: float32 (batch, *input_shape) in model units (HU, or display values 0 to 1).
    Output `raw`: float32 (batch, positions, 4 + 1 + classes): at each position the distances in
    pixels to the sides of the box (x_min, y_min, x_max, y_max), the logit of the centerness, and a
    logit for each class. `medres.decode(raw, decoding_settings(model))` makes boxes of it;
    `medres.losses.DetectionLoss` trains it.

    variant, windows, scaling, backbone_options: as for `medres.classifier`, so any backbone of the
        package.
    input_shape: (H, W, C). An image whose sides are no multiples of the coarsest stride is padded
        with mid-gray behind its last rows and columns. A side of None is not padded: it takes
        multiples of the stride. The code also builds (D, H, W, C), with 6 distances for each
        position; no command of medres uses that.
    classes: their number, or their names in the order of the logits; without the background.
    levels: consecutive numbers from 2 to 7. Level 2 is the first stage, of stride 4 with the
        "imagenet" stem; each further one has twice the stride. Small objects need level 2.
    channels: of the pyramid and the heads; None: four times those of the first stage (256 in a
        ResNet of width 64). head_depth: 3x3 convolutions before the outputs of each of the two
        heads. head_norm: "group", or "batch" or "sync", whose statistics all levels share.

    Raises ModelError.

    >>> model = detector(10, (60, 90, 1), ["nodule"], levels=(3, 4), width=8, head_depth=1)
    >>> model.output.shape
    (None, 120, 6)
    """
    _, n_classes = checked_classes(classes, "multilabel")
    shape = well_formed_shape(input_shape)
    name = backbone_options.pop("name", None)
    spec = network_spec(variant, **backbone_options)
    one_of("head_norm", head_norm, HEAD_NORMS)
    whole_number("head_depth", head_depth, 0)
    strides = _strides(spec, levels)
    if channels is None:
        channels = 4 * channels_at(spec, STEM_STRIDE[spec.stem])
    whole_number("channels", channels, 1)
    image = keras.Input(shape, name="image", dtype="float32")
    x = _padded(scaled(image, windows, scaling), strides[-1])
    net = LayerFactory(spec, len(shape) - 1, PREFIX)
    maps = _pyramid(net, backbone_levels(spec, x, PREFIX), strides, channels)
    heads = _Heads(net, channels, head_depth, head_norm, n_classes)
    raw = [heads(level) for level in maps]
    y = keras.layers.Concatenate(axis=1, dtype="float32", name="raw")(raw) if raw[1:] else raw[0]
    return functional(image, y, name or f"{model_name(spec)}_fcos")


def head_options(network: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `detector` in the part `model` of config.json; those that are not set are left
    out.

    >>> head_options({"variant": "resnet18", "levels": [3, 4], "channels": None})
    {'levels': [3, 4]}
    """
    names = ("levels", "channels", "head_depth")
    return {name: network[name] for name in names if network.get(name) is not None}


def decoding_settings(model: keras.Model, **options: Any) -> DecodingSettings:
    """The settings of `medres.decode` for a detector, also of one that plain Keras has opened.

    options: fields of `DecodingSettings`, such as score_threshold; input_size where the sizes of
    the model are open. Raises ModelError (no_detector, input_shape).
    """
    strides = sorted(
        int(match[1]) for layer in model.layers if (match := _PIXELS.fullmatch(layer.name))
    )
    if not strides:
        raise ModelError(
            f"model {model.name!r} is no detector: build it with medres.detector",
            code="no_detector",
        )
    size = options.pop("input_size", model.inputs[0].shape[1:-1])
    return DecodingSettings(tuple(size), tuple(strides), **options)


def _strides(spec: Spec, levels: Sequence[int]) -> list[int]:
    numbers = list(levels)
    low, high = LEVELS
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ModelError(
            f"levels {levels!r}: give consecutive whole numbers, such as (3, 4, 5)", code="levels"
        )
    if numbers[0] < low or numbers[-1] > high:
        raise ModelError(f"levels {levels!r}: give numbers from {low} to {high}", code="levels")
    first = STEM_STRIDE[spec.stem]
    if first << (numbers[0] - low) > spec.total_stride:
        raise ModelError(
            f"levels {levels!r}: the backbone has a stride of {spec.total_stride}, and the first "
            f"level would have {first << (numbers[0] - low)}; begin with a finer level",
            code="levels",
        )
    return [first << (number - low) for number in numbers]


def _padded(x: Tensor, stride: int) -> Tensor:
    """The image with zeros behind its last rows and columns, so that each size is a multiple of the
    stride.
    """
    borders = [(0, 0 if size is None else -size % stride) for size in x.shape[1:-1]]
    if not any(map(any, borders)):
        return x
    layer = getattr(keras.layers, f"ZeroPadding{len(borders)}D")
    return layer(tuple(borders), dtype="float32", name="pad")(x)


def _pyramid(
    net: LayerFactory[Spec], stages: Sequence[Level], strides: Sequence[int], channels: int
) -> list[Level]:
    """The maps at the strides: those of the backbone with the context of all coarser ones, and
    coarser ones by strided convolutions (P6 and P7 of the paper).
    """
    stages = [level for level in stages if strides[0] <= level.stride <= strides[-1]]
    maps = {level.stride: level for level in feature_pyramid(net, stages, channels)}
    for stride in strides:
        if stride not in maps:
            before = maps[stride // 2].x
            if stride // 2 > stages[-1].stride:
                before = net.relu(before, f"relu_stride{stride}")
            x = net.conv(before, channels, 3, f"pyramid_stride{stride}", stride=2, bias=True)
            maps[stride] = Level(stride, x)
    return [maps[stride] for stride in strides]


class _Heads:
    """The layers that all levels share, made once; a call gives the raw map of a level."""

    def __init__(
        self, net: LayerFactory[Spec], channels: int, depth: int, norm: str, classes: int
    ) -> None:
        self.net = net
        self.per_position = 2 * net.rank + 1 + classes
        spec = dataclasses.replace(net.spec, norm=norm)
        self.towers = {
            name: [
                layer
                for i in range(1, depth + 1)
                for layer in _block(LayerFactory(spec, net.rank, f"{PREFIX}{name}{i}_"), channels)
            ]
            for name in ("class", "box")
        }
        self.distances = self._output(f"{PREFIX}distances", 2 * net.rank, _softplus_inverse(START))
        self.centerness = self._output(f"{PREFIX}centerness", 1, 0.0)
        self.logits = self._output("logits", classes, -math.log((1 - PRIOR) / PRIOR))

    def __call__(self, level: Level) -> Tensor:
        by_class = _applied(self.towers["class"], level.x)
        by_box = _applied(self.towers["box"], level.x)
        parts = [self._distances(by_box, level), self.centerness(by_box), self.logits(by_class)]
        name = f"{PREFIX}{level.name}"
        x = keras.layers.Concatenate(dtype="float32", name=f"{name}_maps")(parts)
        shape = (-1, self.per_position)
        return keras.layers.Reshape(shape, dtype="float32", name=f"{name}_raw")(x)

    def _distances(self, x: Tensor, level: Level) -> Tensor:
        """Distances in pixels, above 0. The level's own scale is a 1x1 convolution that starts as
        zero, added to the shared output: built-in layers have no learned factor.
        """
        name = f"{PREFIX}{level.name}"
        shared = self.distances(x)
        own = self._of_rank("Conv")(
            shared.shape[-1], 1, kernel_initializer="zeros", dtype="float32", name=f"{name}_scale"
        )(shared)
        x = keras.layers.Add(dtype="float32", name=f"{name}_scaled")([shared, own])
        x = keras.layers.Activation("softplus", dtype="float32", name=f"{name}_above0")(x)
        return keras.layers.Rescaling(float(level.stride), dtype="float32", name=f"{name}_pixels")(
            x
        )

    def _output(self, name: str, filters: int, bias: float) -> Callable[[Tensor], Tensor]:
        return self._of_rank("Conv")(
            filters,
            3,
            padding="same",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=keras.initializers.Constant(bias),
            dtype="float32",
            name=name,
        )

    def _of_rank(self, kind: str) -> Any:
        return getattr(keras.layers, f"{kind}{self.net.rank}D")


def _block(net: LayerFactory[Spec], channels: int) -> list[Callable[[Tensor], Tensor]]:
    """A 3x3 convolution, its normalization and a ReLU, to be called on several maps."""
    return [
        net.conv_layer(channels, 3, "conv", padding="same", use_bias=False),
        net.norm_layer(channels, "norm"),
        keras.layers.ReLU(name=f"{net.prefix}relu"),
    ]


def _applied(layers: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _softplus_inverse(value: float) -> float:
    return math.log(math.expm1(value))

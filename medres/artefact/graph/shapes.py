"""What one layer computes: the shape of its output, the shapes of its weights and its number of
multiply-adds, from its options and the shapes of its inputs. Shapes are without the batch axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from medres.artefact.graph.options import MERGES
from medres.artefact.graph.values import constant_count
from medres.errors import ArtefactError

Shape = tuple[int, ...]
Options = dict[str, Any]
MAX_UNITS, MAX_WINDOW = 65536, 64
_RESIZE_TAPS = 36  # pixels that one pixel of a resized image is computed from, at most (lanczos3)


@dataclass(frozen=True)
class LayerCost:
    """The shape of a layer's output, the shapes of its weights, and its multiply-adds for one
    image.
    """

    shape: Shape
    weights: tuple[Shape, ...] = ()
    multiply_adds: int = 0


def layer_cost(class_name: str, config: Options, inputs: Sequence[Shape]) -> LayerCost:
    """The cost of one layer, whose options are checked (see `options.check_options`).

    Raises ArtefactError (graph_limits) for a size above its limit; ValueError, TypeError, KeyError,
    IndexError or ArithmeticError where a shape does not fit.
    """
    if class_name in MERGES:
        shape = _merged(class_name, config, inputs)
        return LayerCost(shape, (), math.prod(shape) * len(inputs))
    (shape,) = inputs
    kind = class_name.replace("2D", "").replace("3D", "")
    if kind != class_name and len(shape) != (3 if "2D" in class_name else 4):
        raise ValueError
    if (compute := _COSTS.get(kind)) is not None:
        return compute(config, shape)
    return LayerCost(shape, (), math.prod(shape))


def _merged(class_name: str, config: Options, inputs: Sequence[Shape]) -> Shape:
    if len(inputs) < 2 or (class_name == "Subtract" and len(inputs) != 2):
        raise ValueError
    if class_name == "Concatenate":
        return _concatenated(config["axis"], inputs)
    merged = tuple(max(sizes) for sizes in zip(*inputs, strict=True))
    if any(n not in (1, m) for shape in inputs for n, m in zip(shape, merged, strict=True)):
        raise ValueError
    return merged


def _concatenated(axis: int, inputs: Sequence[Shape]) -> Shape:
    """axis: counted with that of the batch, which cannot be concatenated."""
    axis = len(inputs[0]) if axis == -1 else axis
    if not 1 <= axis <= len(inputs[0]):
        raise ValueError
    if len({(*shape[: axis - 1], *shape[axis:]) for shape in inputs}) > 1:
        raise ValueError
    if len({len(shape) for shape in inputs}) > 1:
        raise ValueError
    return (*inputs[0][: axis - 1], sum(shape[axis - 1] for shape in inputs), *inputs[0][axis:])


def _bias(config: Options, channels: int) -> tuple[Shape, ...]:
    return ((channels,),) if config["use_bias"] else ()


def _convolution(config: Options, shape: Shape) -> LayerCost:
    filters, groups = _units(config["filters"], "filters"), config.get("groups", 1)
    if groups < 1 or shape[-1] % groups or filters % groups:
        raise ValueError
    kernel = (*_windows(config["kernel_size"]), shape[-1] // groups, filters)
    out = (*_slid(shape, config["kernel_size"], config["strides"], config), filters)
    adds = math.prod(out) * math.prod(kernel[:-1])
    return LayerCost(out, (kernel, *_bias(config, filters)), adds)


def _depthwise(config: Options, shape: Shape) -> LayerCost:
    channels = _units(shape[-1] * _units(config["depth_multiplier"], "filters"), "filters")
    kernel = (*_windows(config["kernel_size"]), shape[-1], config["depth_multiplier"])
    out = (*_slid(shape, config["kernel_size"], config["strides"], config), channels)
    adds = math.prod(out) * math.prod(kernel[:-2])
    return LayerCost(out, (kernel, *_bias(config, channels)), adds)


def _separable(config: Options, shape: Shape) -> LayerCost:
    depthwise = _depthwise(config | {"use_bias": False}, shape)
    filters = _units(config["filters"], "filters")
    pointwise = (1, 1, depthwise.shape[-1], filters)
    adds = depthwise.multiply_adds + math.prod(depthwise.shape) * filters
    weights = (*depthwise.weights, pointwise, *_bias(config, filters))
    return LayerCost((*depthwise.shape[:-1], filters), weights, adds)


def _transposed(config: Options, shape: Shape) -> LayerCost:
    filters = _units(config["filters"], "filters")
    kernel = (*_windows(config["kernel_size"]), filters, shape[-1])
    dilation = _dilation(config, len(kernel) - 2)
    sizes = []
    for n, k, s, d in zip(
        shape[:-1], config["kernel_size"], config["strides"], dilation, strict=True
    ):
        reach = (_window(k) - 1) * d + 1
        grown = n * _window(s)
        sizes.append(grown if config["padding"] == "same" else grown + max(reach - s, 0))
    out = (*sizes, filters)
    adds = math.prod(shape[:-1]) * math.prod(kernel) + math.prod(out)
    return LayerCost(out, (kernel, *_bias(config, filters)), adds)


def _dense(config: Options, shape: Shape) -> LayerCost:
    out = (*shape[:-1], _units(config["units"], "units"))
    weights = ((shape[-1], out[-1]), *_bias(config, out[-1]))
    return LayerCost(out, weights, math.prod(out) * shape[-1])


def _normalized(states: int) -> Callable[[Options, Shape], LayerCost]:
    """A normalization with `states` moving statistics."""

    def cost(config: Options, shape: Shape) -> LayerCost:
        axis = config["axis"]
        axes = sorted(a % (len(shape) + 1) for a in (axis if isinstance(axis, list) else [axis]))
        if 0 in axes or len(set(axes)) < len(axes):
            raise ValueError
        weight = tuple(shape[a - 1] for a in axes)
        weights = (weight,) * (bool(config["center"]) + bool(config["scale"]) + states)
        return LayerCost(shape, weights, 4 * math.prod(shape))

    return cost


def _group_normalized(config: Options, shape: Shape) -> LayerCost:
    groups = shape[-1] if config["groups"] == -1 else config["groups"]
    if groups < 1 or shape[-1] % groups:
        raise ValueError
    return _normalized(0)(config, shape)


def _layer_scale(config: Options, shape: Shape) -> LayerCost:
    if config["projection_dim"] != shape[-1]:
        raise ValueError
    return LayerCost(shape, ((shape[-1],),), math.prod(shape))


def _constant(*names: str) -> Callable[[Options, Shape], LayerCost]:
    """A layer with constants, each one number or one per channel."""

    def cost(config: Options, shape: Shape) -> LayerCost:
        if any(constant_count(config[name]) not in (1, shape[-1]) for name in names):
            raise ValueError
        if config.get("axis", -1) not in (None, -1, [], [-1], len(shape), [len(shape)]):
            raise ValueError
        return LayerCost(shape, (), math.prod(shape))

    return cost


def _pooled(config: Options, shape: Shape) -> LayerCost:
    pool = config["pool_size"]
    out = (*_slid(shape, pool, config["strides"] or pool, config), shape[-1])
    return LayerCost(out, (), math.prod(out) * math.prod(pool))


def _globally_pooled(config: Options, shape: Shape) -> LayerCost:
    out = (*[1] * (len(shape) - 1), shape[-1]) if config.get("keepdims") else shape[-1:]
    return LayerCost(out, (), math.prod(shape))


def _bordered(key: str, sign: int) -> Callable[[Options, Shape], LayerCost]:
    """Zero padding (sign 1) or cropping (sign -1)."""

    def cost(config: Options, shape: Shape) -> LayerCost:
        borders = [(b, b) if type(b) is int else b for b in config[key]]
        sizes = (
            n + sign * (_window(a) + _window(b))
            for n, (a, b) in zip(shape[:-1], borders, strict=True)
        )
        out = (*sizes, shape[-1])
        return LayerCost(out, (), math.prod(out))

    return cost


def _upsampled(config: Options, shape: Shape) -> LayerCost:
    out = (*(n * _window(s) for n, s in zip(shape[:-1], config["size"], strict=True)), shape[-1])
    return LayerCost(out, (), math.prod(out) * _RESIZE_TAPS)


def _resized(config: Options, shape: Shape) -> LayerCost:
    _, _, channels = shape
    out = (_units(config["height"], "rows"), _units(config["width"], "columns"), channels)
    return LayerCost(out, (), (math.prod(out) + math.prod(shape)) * _RESIZE_TAPS)


def _permuted(config: Options, shape: Shape) -> LayerCost:
    if sorted(config["dims"]) != list(range(1, len(shape) + 1)):
        raise ValueError
    return LayerCost(tuple(shape[i - 1] for i in config["dims"]), (), math.prod(shape))


def _reshaped(config: Options, shape: Shape) -> LayerCost:
    target, size = list(config["target_shape"]), math.prod(shape)
    if target.count(-1) == 1:
        rest = math.prod(n for n in target if n != -1)
        target[target.index(-1)] = size // rest
    if min(target) < 1 or math.prod(target) != size:
        raise ValueError
    return LayerCost(tuple(target))


def _dropped(config: Options, shape: Shape) -> LayerCost:
    noise = config.get("noise_shape")
    if noise and (
        len(noise) != len(shape) + 1
        or any(n not in (None, 1, m) for n, m in zip(noise[1:], shape, strict=True))
    ):
        raise ValueError
    return LayerCost(shape)


_COSTS: dict[str, Callable[[Options, Shape], LayerCost]] = {
    "Conv": _convolution,
    "DepthwiseConv": _depthwise,
    "SeparableConv": _separable,
    "Dense": _dense,
    "BatchNormalization": _normalized(2),
    "LayerNormalization": _normalized(0),
    "GroupNormalization": _group_normalized,
    "LayerScale": _layer_scale,
    "Normalization": _constant("mean", "variance"),
    "Rescaling": _constant("scale", "offset"),
    "MaxPooling": _pooled,
    "AveragePooling": _pooled,
    "GlobalAveragePooling": _globally_pooled,
    "GlobalMaxPooling": _globally_pooled,
    "ZeroPadding": _bordered("padding", 1),
    "Cropping": _bordered("cropping", -1),
    "UpSampling": _upsampled,
    "ConvTranspose": _transposed,
    "Resizing": _resized,
    "Flatten": lambda config, shape: LayerCost((math.prod(shape),)),
    "Permute": _permuted,
    "Reshape": _reshaped,
    "Dropout": _dropped,
}


def _slid(
    shape: Shape, kernel: Sequence[int], strides: Sequence[int], config: Options
) -> tuple[int, ...]:
    """Spatial sizes after a convolution or pooling."""
    sizes = []
    for n, k, s, d in zip(shape[:-1], kernel, strides, _dilation(config, len(kernel)), strict=True):
        reach = (_window(k) - 1) * d + 1
        same = config["padding"] == "same"
        sizes.append(-(-n // _window(s)) if same else (n - reach) // _window(s) + 1)
    return tuple(sizes)


def _dilation(config: Options, rank: int) -> list[int]:
    return [_window(d) for d in config.get("dilation_rate") or [1] * rank]


def _windows(values: Sequence[int]) -> list[int]:
    return [_window(value) for value in values]


def _units(value: int, what: str) -> int:
    """`value`, checked: the number of `what` (units, filters) of a layer."""
    if not 0 < value <= MAX_UNITS:
        raise ArtefactError(f"a layer has more than {MAX_UNITS} {what}", code="graph_limits")
    return value


def _window(value: int) -> int:
    """`value`, checked: a side of a kernel, pool or padding, or a stride."""
    if not 0 <= value <= MAX_WINDOW:
        raise ArtefactError(
            f"a kernel, stride, pool or padding is above {MAX_WINDOW}", code="graph_limits"
        )
    return value

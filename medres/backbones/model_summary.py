"""The costs of a network per stage: parameters, multiply-adds, activation memory, stride and
receptive field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

import keras

from medres.backbones.build import functional
from medres.backbones.layer_graph import LayerCall, layer_calls
from medres.errors import ModelError

UNSTORED = (keras.layers.InputLayer, keras.layers.Identity, keras.layers.Dropout)
NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)
CONVOLUTIONS = tuple(
    getattr(keras.layers, f"{kind}{rank}D")
    for kind, ranks in (("Conv", (1, 2, 3)), ("DepthwiseConv", (1, 2)))
    for rank in ranks
)
UPSAMPLINGS = tuple(getattr(keras.layers, f"UpSampling{rank}D") for rank in (1, 2, 3))
POOLS = tuple(
    getattr(keras.layers, f"{kind}Pooling{rank}D")
    for kind in ("Max", "Average")
    for rank in (1, 2, 3)
)


@dataclass(frozen=True)
class Part:
    """One stage, or the whole network, for one image.

    multiply_adds: of convolutions and dense layers; a multiply-add counts once. activation_bytes:
    the outputs of all layers in their compute dtype, which is what training stores if nothing is
    fused. receptive_field (pixels along the last spatial axis) and stride (input pixels per output
    pixel): at the end of the part; a global pool, which sees the whole image, is not counted.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int
    multiply_adds: int
    activation_bytes: int
    receptive_field: int
    stride: int


@dataclass(frozen=True)
class Summary:
    """The parts in order, and their total. Prints as a table."""

    parts: tuple[Part, ...]
    total: Part

    def __str__(self) -> str:
        rows = [
            [
                "",
                "output",
                "parameters",
                "trainable",
                "multiply-adds",
                "activations",
                "sees",
                "stride",
            ]
        ]
        for part in (*self.parts, self.total):
            shape = "x".join(map(str, part.output_shape))
            sums = (part.parameters, part.trainable, part.multiply_adds)
            memory = f"{part.activation_bytes / 2**20:.2f} MiB"
            rows.append(
                [
                    part.name,
                    shape,
                    *(f"{n:,}" for n in sums),
                    memory,
                    f"{part.receptive_field} px",
                    str(part.stride),
                ]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )


def summary(model: keras.Model, input_shape: Sequence[int] | None = None) -> Summary:
    """The costs of a functional model for one image of `input_shape` (without the batch axis; None:
    the model's own shape). A layer that several feature maps share counts its parameters once.

    The parts are `input` (windows, scaling), `stem`, `stage1` ..., `decoder` and `head`; in a
    model without these names everything is `head`.
    Raises ModelError if the shape is not fully known or does not fit, and for a layer whose
    operations cannot be counted (a nested model).

    >>> import medres
    >>> model = medres.backbones.resnet(18, (224, 224, 3))
    >>> total = medres.summary(model).total
    >>> total.parameters, total.stride
    (11186112, 32)
    """
    if len(model.inputs) != 1:
        raise ModelError(
            f"model {model.name!r} has {len(model.inputs)} inputs; a model with one input is "
            f"needed",
            code="inputs",
        )
    if isinstance(model, keras.Sequential):
        model = functional(model.inputs[0], model.outputs[0], model.name)
    calls = layer_calls(model)
    shapes = _shapes(model, calls, input_shape)
    seen = {id(model.inputs[0]): (1, 1)}  # receptive field and stride of each tensor
    by_layer: dict[str, list[LayerCall]] = {layer.name: [] for layer in model.layers}
    for call in calls:
        inputs = [seen[id(tensor)] for tensor in keras.tree.flatten(call.inputs)]
        seen[id(call.output)] = _field(call.layer, inputs)
        by_layer[call.layer.name].append(call)
    image = model.inputs[0]
    grouped = {"input": [_costs(model.layers[0], [shapes[id(image)]], 1, 1)]}
    part = "input"
    for name, of_layer in by_layer.items():
        if of_layer:
            part = _part(name, part)
            outputs = [id(call.output) for call in of_layer]
            costs = _costs(of_layer[0].layer, [shapes[key] for key in outputs], *seen[outputs[-1]])
            grouped.setdefault(part, []).append(costs)
    parts = tuple(_sum_of(name, accounts) for name, accounts in grouped.items())
    if len(parts) == 1:
        parts = (_sum_of("head", list(parts)),)
    return Summary(parts, _sum_of("total", list(parts)))


def _shapes(
    model: keras.Model, calls: Sequence[LayerCall], input_shape: Sequence[int] | None
) -> dict[int, tuple[int, ...]]:
    """The shape of every tensor by its identity, without batch."""
    model_shape = model.inputs[0].shape[1:]
    shape = tuple(model_shape if input_shape is None else input_shape)
    if len(shape) != len(model_shape) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ModelError(
            f"input_shape {shape}: give {len(model_shape)} whole numbers that fit the shape of the "
            f"model, {model_shape}",
            code="input_shape",
        )
    if model_shape[-1] not in (None, shape[-1]):
        raise ModelError(
            f"input_shape {shape}: the model takes {model_shape[-1]} channels", code="input_shape"
        )
    image = model.inputs[0]
    specs = {id(image): keras.KerasTensor((1, *shape), dtype=image.dtype)}
    for call in calls:
        inputs = keras.tree.map_structure(lambda tensor: specs[id(tensor)], call.inputs)
        try:
            specs[id(call.output)] = call.layer.compute_output_spec(inputs)
        except ValueError as error:
            raise ModelError(
                f"input_shape {shape} does not fit layer {call.layer.name!r}: {error}",
                code="input_shape",
            ) from error
    return {key: tuple(spec.shape[1:]) for key, spec in specs.items()}


def _part(name: str, part: str) -> str:
    """The part of the layer `name`, where `part` is that of the layer before it."""
    match = re.match(r"stem|stage\d|decoder", name)
    if match:
        return match[0]
    return part if part == "input" or name.startswith("last_") else "head"


def _field(layer: keras.Layer, inputs: list[tuple[int, int]]) -> tuple[int, int]:
    """(receptive field, stride) after a layer: Araujo et al., Computing Receptive Fields, Distill
    2019.
    """
    field, stride = (max(values) for values in zip(*inputs, strict=True)) if inputs else (1, 1)
    if isinstance(layer, CONVOLUTIONS):
        return field + (layer.kernel_size[-1] - 1) * layer.dilation_rate[
            -1
        ] * stride, stride * layer.strides[-1]
    if isinstance(layer, POOLS):
        return field + (layer.pool_size[-1] - 1) * stride, stride * layer.strides[-1]
    if isinstance(layer, UPSAMPLINGS):
        return field, max(1, stride // _last(layer.size))
    return field, stride


def _last(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else size[-1]


def _costs(layer: keras.Layer, shapes: Sequence[tuple[int, ...]], field: int, stride: int) -> Part:
    """shapes: of the outputs of its calls."""
    values = 0 if isinstance(layer, UNSTORED) else sum(map(math.prod, shapes))
    return Part(
        name=layer.name,
        output_shape=shapes[-1],
        parameters=_size(v for v in layer.weights if v.name != "seed_generator_state"),
        trainable=_size(layer.trainable_weights),
        multiply_adds=sum(_multiply_adds(layer, shape) for shape in shapes),
        activation_bytes=values * _bytes(layer.compute_dtype),
        receptive_field=field,
        stride=stride,
    )


def _size(weights: object) -> int:
    return sum(math.prod(w.shape) for w in weights)  # type: ignore[attr-defined]


def _bytes(dtype: str) -> int:
    return {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}[dtype]


def _multiply_adds(layer: keras.Layer, shape: tuple[int, ...]) -> int:
    if isinstance(layer, CONVOLUTIONS):
        return math.prod(layer.kernel.shape) * math.prod(shape[:-1])
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape) * math.prod(shape[:-1])
    if layer.weights and not isinstance(layer, (*NORMS, keras.layers.Dropout)):
        raise ModelError(
            f"the multiply-adds of layer {layer.name!r} ({type(layer).__name__}) cannot be counted",
            code="uncountable_layer",
        )
    return 0


def _sum_of(name: str, parts: list[Part]) -> Part:
    """The sums of the counts, with the shape, receptive field and stride of the last part."""
    last = parts[-1]
    summed = ("parameters", "trainable", "multiply_adds", "activation_bytes")
    values = {
        f.name: sum(getattr(p, f.name) for p in parts)
        if f.name in summed
        else getattr(last, f.name)
        for f in fields(Part)
    }
    return Part(**{**values, "name": name})

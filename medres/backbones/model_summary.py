"""What a network costs and sees: parameters, multiply-adds, activation memory, stride and receptive
field, stage by stage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

import keras

from medres.backbones.build import functional
from medres.backbones.layer_graph import parents
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
POOLS = tuple(
    getattr(keras.layers, f"{kind}Pooling{rank}D")
    for kind in ("Max", "Average")
    for rank in (1, 2, 3)
)


@dataclass(frozen=True)
class Part:
    """One stage, or the whole. Sizes are for one image; multiply-adds are of convolutions and dense
    layers (one each, not two).

    `activation_bytes` adds up the outputs of all layers at the type that they compute in: what
    training keeps when nothing is fused. `receptive_field` (pixels along the last spatial axis) and
    `stride` (pixels a step) are at the part's end; a global pool, which sees everything, is not
    counted in them.
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
    """Account for a functional model, for one image of `input_shape` (without batch; None: the
    model's own).

    The parts are `input` (windows, scaling), `stem`, `stage1` ... and `head`; a model without such
    names is all `head`.
    Raises ModelError where the shape is open or does not fit, and for layers that cannot be counted
    (a model within a model).
    """
    if len(model.inputs) != 1:
        raise ModelError(f"model {model.name!r} has {len(model.inputs)} inputs: one is needed")
    if isinstance(model, keras.Sequential):
        model = functional(model.inputs[0], model.outputs[0], model.name)
    shapes = _shapes(model, input_shape)
    fields_at: dict[str, tuple[int, int]] = {}
    grouped: dict[str, list[Part]] = {}
    at = "input"
    for layer in model.layers:
        at = _part(layer.name, at)
        fields_at[layer.name] = _field(layer, [fields_at[name] for name in parents(layer)])
        grouped.setdefault(at, []).append(
            _account(layer, shapes[layer.name], *fields_at[layer.name])
        )
    parts = tuple(_added(name, accounts) for name, accounts in grouped.items())
    if len(parts) == 1:
        parts = (_added("head", list(parts)),)
    return Summary(parts, _added("total", list(parts)))


def _shapes(model: keras.Model, input_shape: Sequence[int] | None) -> dict[str, tuple[int, ...]]:
    """The output shape of every layer, without batch."""
    own = model.inputs[0].shape[1:]
    shape = tuple(own if input_shape is None else input_shape)
    if len(shape) != len(own) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ModelError(
            f"input_shape {shape}: give {len(own)} whole numbers such as those of the model, {own}"
        )
    if own[-1] not in (None, shape[-1]):
        raise ModelError(f"input_shape {shape}: the model takes {own[-1]} channels")
    specs = {model.layers[0].name: keras.KerasTensor((1, *shape), dtype=model.inputs[0].dtype)}
    for layer in model.layers[1:]:
        given = [specs[name] for name in parents(layer)]
        try:
            specs[layer.name] = layer.compute_output_spec(given if len(given) > 1 else given[0])
        except ValueError as error:
            raise ModelError(
                f"input_shape {shape} does not pass through layer {layer.name!r}: {error}"
            ) from error
    return {name: tuple(spec.shape[1:]) for name, spec in specs.items()}


def _part(name: str, at: str) -> str:
    match = re.match(r"stem|stage\d", name)
    if match:
        return match[0]
    return at if at == "input" or name.startswith("last_") else "head"


def _field(layer: keras.Layer, above: list[tuple[int, int]]) -> tuple[int, int]:
    """(receptive field, stride) after a layer: Araujo et al., Computing Receptive Fields, Distill
    2019.
    """
    field, stride = (max(values) for values in zip(*above, strict=True)) if above else (1, 1)
    if isinstance(layer, CONVOLUTIONS):
        return field + (layer.kernel_size[-1] - 1) * layer.dilation_rate[
            -1
        ] * stride, stride * layer.strides[-1]
    if isinstance(layer, POOLS):
        return field + (layer.pool_size[-1] - 1) * stride, stride * layer.strides[-1]
    return field, stride


def _account(layer: keras.Layer, shape: tuple[int, ...], field: int, stride: int) -> Part:
    return Part(
        name=layer.name,
        output_shape=shape,
        parameters=_size(v for v in layer.weights if v.name != "seed_generator_state"),
        trainable=_size(layer.trainable_weights),
        multiply_adds=_multiply_adds(layer, shape),
        activation_bytes=0
        if isinstance(layer, UNSTORED)
        else math.prod(shape) * _bytes(layer.compute_dtype),
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
            f"the multiply-adds of layer {layer.name!r} ({type(layer).__name__}) cannot be counted"
        )
    return 0


def _added(name: str, parts: list[Part]) -> Part:
    """Sums of the counts; shape, field and stride of the last."""
    last = parts[-1]
    summed = ("parameters", "trainable", "multiply_adds", "activation_bytes")
    values = {
        f.name: sum(getattr(p, f.name) for p in parts)
        if f.name in summed
        else getattr(last, f.name)
        for f in fields(Part)
    }
    return Part(**{**values, "name": name})

"""One flat graph of layers from a model of other people's make, such as those of
keras.applications: a nested Sequential becomes its layers, and a sum of tensors a layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from medres.backbones.build import functional
from medres.errors import ModelError

Tensor = Any  # keras.KerasTensor
# Operations of two tensors (a + b) that have a layer of the same name.
OPERATIONS = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")

# From a layer to the options that its copy has instead, or None to leave the layer out.
Changes = Callable[[keras.Layer], dict[str, Any] | None]


def flat_copy(
    model: keras.Model,
    image: Tensor,
    prefix: str = "",
    *,
    nested: bool = False,
    changes: Changes = lambda layer: {},
) -> Tensor:
    """The output of a copy of `model`, built layer by layer on a symbolic image. The copied layers
    have the same weights and are named prefix + name.

    A nested Sequential is replaced by its layers, a sum or product of two tensors by a layer, and
    the statistics of an adapted Normalization by constants. Raises ModelError (codes shared_layer,
    nested_model, unsupported_operation) for a layer that is called more than once, another nested
    model, and an operation that is no layer.

    nested: nested functional models become their layers too, which is right for a model that only
        predicts: a call of theirs with training=False is not remembered.
    """
    return _copied(model, image, _Copy(prefix, nested, changes))


@dataclass
class _Copy:
    """What a copy takes from the caller, and the names that it has given."""

    prefix: str
    nested: bool
    changes: Changes
    used: set[str] = field(default_factory=set)

    def name(self, layer: Any, changed: dict[str, Any]) -> str:
        first = changed.get("name", self.prefix + layer.name)
        name = next(n for n in _names(first) if n not in self.used)
        self.used.add(name)
        return name


def _copied(model: keras.Model, image: Tensor, copy: _Copy) -> Tensor:
    graph = functional(model.inputs[0], model.outputs[0], model.name)
    outputs: dict[int, Tensor] = {}
    calls: dict[int, list[Any]] = {}
    for node in itertools.chain(*graph._nodes_by_depth.values()):
        calls.setdefault(id(node.operation), []).append(node)
    for operation in graph.operations:
        node = _only(calls[id(operation)], graph.name)
        if isinstance(operation, keras.layers.InputLayer):
            outputs[id(node.output_tensors[0])] = image
            continue
        inputs = [outputs[id(tensor)] for tensor in node.input_tensors]
        outputs[id(node.output_tensors[0])] = _applied(operation, inputs, copy)
    return outputs[id(graph.outputs[0])]


def _only(calls: list[Any], model: str) -> Any:
    """The only call of a layer within a graph."""
    if len(calls) != 1:
        raise ModelError(
            f"layer {calls[0].operation.name!r} of {model!r} is called more than once: use a "
            f"separate layer for each call",
            code="shared_layer",
        )
    return calls[0]


def _applied(operation: Any, inputs: list[Tensor], copy: _Copy) -> Tensor:
    """The output of a copy of one layer, nested model or operation."""
    if isinstance(operation, keras.Model):
        if not copy.nested and not isinstance(operation, keras.Sequential):
            raise ModelError(
                f"layer {operation.name!r} is a nested model: pass the inner model, or apply its "
                f"layers one by one",
                code="nested_model",
            )
        return _copied(operation, inputs[0], copy)
    if not isinstance(operation, keras.Layer):
        return _layer_of(operation, inputs, copy.name(operation, {}))(inputs)
    changed = copy.changes(operation)
    if changed is None:
        return inputs[0]
    name = {"name": copy.name(operation, changed)}
    config = operation.get_config() | _statistics(operation) | changed | name
    layer = type(operation).from_config(config)
    output = layer(inputs if len(inputs) > 1 else inputs[0])
    if layer.weights:
        layer.set_weights(operation.get_weights())
    return output


def _names(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        yield f"{name}_{number}"
        number += 1


def _layer_of(operation: Any, inputs: list[Tensor], name: str) -> keras.Layer:
    kind = type(operation).__name__
    if kind not in OPERATIONS or len(inputs) != 2:
        raise ModelError(
            f"the operation {kind} ({operation.name!r}) is not a layer: build the model from "
            f"layers; supported between layers: {', '.join(OPERATIONS)} of two tensors",
            code="unsupported_operation",
        )
    return getattr(keras.layers, kind)(name=name)


def _statistics(layer: keras.Layer) -> dict[str, Any]:
    """The mean and the variance of an adapted Normalization, which Keras keeps as weights that it
    does not read again when they are assigned.
    """
    if not isinstance(layer, keras.layers.Normalization) or not layer.weights:
        return {}
    return {
        "mean": np.ravel(layer.mean).tolist(),
        "variance": np.ravel(layer.variance).tolist(),
    }

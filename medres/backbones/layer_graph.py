"""A functional model as a graph of layer names, in the order of computation."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

# Keras traverses a graph by recursion: CIFAR-1202 needs about 5,000 calls, Python allows 1,000
MAX_RECURSION = 20_000


@dataclass(frozen=True)
class ResidualBlock:
    """A sum of two paths that start at one layer; the shortcut is the path with fewer kernels. All
    names are layer names.
    """

    name: str  # the Add layer
    source: str  # the layer where both paths start
    shortcut: str  # the last layer of the shortcut; `source` itself if it is the identity
    branch: str  # the last layer of the residual branch
    closed: bool  # no other layer takes the output of `source`


class LayerCall(NamedTuple):
    """One call of a layer within a model: its symbolic inputs (a tensor, or a list of them) and its
    output. A layer that several feature maps share has several calls.
    """

    layer: keras.Layer
    inputs: Any
    output: Any

    @property
    def parents(self) -> list[str]:
        """The names of the layers that compute the inputs."""
        return [tensor._keras_history.operation.name for tensor in keras.tree.flatten(self.inputs)]


def layer_calls(model: keras.Model) -> list[LayerCall]:
    """Every call of a layer within the functional `model`, except its inputs, in the order of
    computation.
    """
    if isinstance(model, keras.Sequential):
        model = functional(model.inputs[0], model.outputs[0], model.name)
    by_depth = model._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [
        LayerCall(node.operation, node.arguments.args[0], node.output_tensors[0])
        for node in nodes
        if not node.is_input
    ]


def parents(layer: keras.Layer) -> list[str]:
    """The names of the layers whose outputs are the inputs of this layer."""
    if isinstance(layer, keras.layers.InputLayer):
        return []
    tensors = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in tensors]


def residual_blocks(model: keras.Model) -> list[ResidualBlock]:
    """Every sum of two paths of which one has more kernels than the other, in order. It works for
    any ResNet, not only those of this package.
    """
    position = {layer.name: i for i, layer in enumerate(model.layers)}
    kernels = {layer.name for layer in model.layers if hasattr(layer, "kernel")}
    consumers: dict[str, set[str]] = {}
    for layer in model.layers:
        for name in parents(layer):
            consumers.setdefault(name, set()).add(layer.name)
    ancestors: dict[str, frozenset[str]] = {}  # of each layer, with the layer itself
    blocks = []
    for layer in model.layers:
        names = parents(layer)
        ancestors[layer.name] = frozenset([layer.name]).union(*(ancestors[name] for name in names))
        if not isinstance(layer, keras.layers.Add) or len(names) != 2:
            continue
        source = max(ancestors[names[0]] & ancestors[names[1]], key=position.__getitem__)
        counts = [len((ancestors[name] - ancestors[source]) & kernels) for name in names]
        if counts[0] != counts[1]:
            fewer = counts.index(min(counts))
            closed = consumers[source] <= ancestors[layer.name]
            blocks.append(ResidualBlock(layer.name, source, names[fewer], names[1 - fewer], closed))
    return blocks


def functional(inputs: Any, outputs: Any, name: str | None = None) -> keras.Model:
    """keras.Model for graphs of any depth. Loading a saved network of about 1,000 layers needs a
    larger sys.setrecursionlimit as well.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, MAX_RECURSION))
    try:
        return keras.Model(inputs, outputs, name=name)
    finally:
        sys.setrecursionlimit(limit)

"""A functional model as a graph of layer names, in the order in which it is computed."""

from __future__ import annotations

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class ResidualBlock:
    """A sum of two paths from one layer: the shortcut is the one with fewer kernels on it. All are
    layer names.
    """

    name: str  # the Add
    source: str  # where both paths begin
    shortcut: str  # the end of the shortcut: `source` itself where it is the identity
    branch: str  # the end of the other path
    closed: bool  # nothing but these two paths takes the output of `source`


def parents(layer: keras.Layer) -> list[str]:
    """The layers whose outputs this layer takes."""
    if isinstance(layer, keras.layers.InputLayer):
        return []
    tensors = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in tensors]


def residual_blocks(model: keras.Model) -> list[ResidualBlock]:
    """Every sum of two paths where one holds more kernels than the other, in order: any ResNet's,
    not only this package's.
    """
    place = {layer.name: i for i, layer in enumerate(model.layers)}
    kernels = {layer.name for layer in model.layers if hasattr(layer, "kernel")}
    takers: dict[str, set[str]] = {}
    for layer in model.layers:
        for name in parents(layer):
            takers.setdefault(name, set()).add(layer.name)
    above: dict[str, frozenset[str]] = {}  # a layer, and all that it follows from
    blocks = []
    for layer in model.layers:
        names = parents(layer)
        above[layer.name] = frozenset([layer.name]).union(*(above[name] for name in names))
        if not isinstance(layer, keras.layers.Add) or len(names) != 2:
            continue
        source = max(above[names[0]] & above[names[1]], key=place.__getitem__)
        counts = [len((above[name] - above[source]) & kernels) for name in names]
        if counts[0] != counts[1]:
            low = counts.index(min(counts))
            closed = takers[source] <= above[layer.name]
            blocks.append(ResidualBlock(layer.name, source, names[low], names[1 - low], closed))
    return blocks

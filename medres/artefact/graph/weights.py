"""Check model.weights.h5 against the graph: exactly its weights, inside the file itself, each
stored once, uncompressed, complete and finite. Nothing larger than a piece is read into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from medres.artefact.graph.shapes import Shape
from medres.artefact.graph_check import Graph
from medres.errors import ArtefactError

NAME = "model.weights.h5"
_PIECE = 1 << 22  # bytes
_DEPTH = 24  # of groups: two for each model within a model
_NODES_PER_LAYER, _BYTES_PER_NODE, _SPARE = 3, 4096, 1 << 20
_FAULTS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


def check_size(size: int, graph: Graph) -> None:
    """Raise ArtefactError (weights_mismatch) where the file is larger than the weights of the graph
    in HDF5: reading it would cost more than the graph needs.
    """
    if size > 8 * graph.parameters + _BYTES_PER_NODE * _max_nodes(graph) + _SPARE:
        raise ArtefactError(
            f"{NAME} is larger than the weights of the graph in config.json",
            code="weights_mismatch",
        )


def check_weights(stored: IO[bytes], size: int, graph: Graph) -> None:
    """Raise ArtefactError unless the HDF5 file of `size` bytes holds exactly the weights of the
    graph. Codes: malformed_weights, weights_storage, weights_mismatch, non_finite_weights.
    """
    import h5py

    shapes: Counter[Shape] = Counter()
    try:
        with h5py.File(stored, "r") as file:
            datasets = list(_datasets(file, _Visited(_max_nodes(graph), size), 0))
            for dataset in datasets:
                if not _is_random_state(dataset):
                    shapes[dataset.shape] += 1
            if shapes == graph.weights and not all(
                np.isfinite(piece).all() for dataset in datasets for piece in _pieces(dataset)
            ):
                raise ArtefactError(
                    f"{NAME} holds weights that are not finite", code="non_finite_weights"
                )
    except _FAULTS as error:
        if isinstance(error, ArtefactError):
            raise
        raise ArtefactError(
            f"{NAME} is not a readable HDF5 file", code="malformed_weights"
        ) from None
    if shapes != graph.weights:
        raise ArtefactError(
            f"{NAME} does not hold the weights of the graph in config.json",
            code="weights_mismatch",
        )


def _max_nodes(graph: Graph) -> int:
    """Groups and datasets of such a graph at most, random states included."""
    return _NODES_PER_LAYER * graph.layers + 2 * sum(graph.weights.values()) + 64


class _Visited:
    """The objects and bytes that were met, against their limits."""

    def __init__(self, nodes: int, size: int) -> None:
        self.nodes, self.bytes = nodes, size
        self.addresses: set[int] = set()

    def count(self, address: int, size: int) -> bool:
        """Whether the object is new and within the limits."""
        self.nodes -= 1
        self.bytes -= size
        is_new = address not in self.addresses
        self.addresses.add(address)
        return is_new and self.nodes >= 0 and self.bytes >= 0


def _datasets(group: Any, visited: _Visited, depth: int) -> Iterator[Any]:
    """All datasets below a group, checked."""
    import h5py

    for name in group:
        if depth > _DEPTH or type(group.get(name, getlink=True)) is not h5py.HardLink:
            raise _storage_error("links to another place or nests too deeply")
        item = group[name]
        is_dataset = isinstance(item, h5py.Dataset)
        size = item.nbytes if is_dataset else 0
        if not visited.count(h5py.h5o.get_info(item.id).addr, size):
            raise _storage_error(
                "stores an object under two names, or more groups or data than the graph needs"
            )
        if isinstance(item, h5py.Group):
            yield from _datasets(item, visited, depth + 1)
        elif is_dataset and _is_plain(item):
            yield item
        else:
            raise _storage_error(
                "holds data that Keras does not write: compressed, external, missing or not numeric"
            )


def _is_plain(dataset: Any) -> bool:
    """Whether a dataset is numeric and stored in one piece inside the file, as a weight of Keras.

    The state of a random generator is a pair of whole numbers; weights are floating-point numbers.
    """
    if (
        dataset.dtype.kind not in "fiu"
        or dataset.external is not None
        or dataset.is_virtual
        or dataset.chunks is not None
        or dataset.id.get_storage_size() != dataset.nbytes
        or dataset.name.split("/")[-2] != "vars"
    ):
        return False
    return not _is_random_state(dataset) or (dataset.shape == (2,) and dataset.dtype.kind in "iu")


def _is_random_state(dataset: Any) -> bool:
    return dataset.name.split("/")[-3:-1] == ["seed_generator", "vars"]


def _pieces(dataset: Any) -> Iterator[np.ndarray]:
    """The values of a dataset, at most 4 MiB at a time."""
    if dataset.nbytes <= _PIECE:
        yield dataset[()]
        return
    if dataset.ndim == 1:
        step = _PIECE // dataset.dtype.itemsize
        yield from (dataset[start : start + step] for start in range(0, len(dataset), step))
        return
    for index in np.ndindex(dataset.shape[: dataset.ndim - 2]):
        rows = max(1, _PIECE // (dataset.shape[-1] * dataset.dtype.itemsize))
        for start in range(0, dataset.shape[-2], rows):
            yield dataset[(*index, slice(start, start + rows))]


def _storage_error(fault: str) -> ArtefactError:
    return ArtefactError(f"{NAME} {fault}", code="weights_storage")

"""Masks onto another grid: nearest where the target is as fine or finer, per-label occupancy of one
half where it is coarser.

Pure functions of label layers (layers, slices, rows, columns) and grids.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_pipelines.annotations.grids import Grid, Vector
from data_pipelines.annotations.label_map import Layers
from data_pipelines.volumes.resampling import Affine

#: a target step is coarser than that of the mask above this ratio
_COARSER = 1 + 1e-3
_MAX_SAMPLES = 16  # along one axis of a voxel
#: decimals of an index: rounding errors never decide which voxel is the nearest
_DECIMALS = 6


def resample_layers(layers: Layers, affine: Affine, target: Grid) -> Layers:
    """The layers on the grid `target`. affine: of the layers, (slice, row, column, 1) to LPS mm.

    An axis of the target that is coarser than the mask is sampled at several points of each voxel:
    a label is kept where it has at least half of them, and of two labels with one half each the
    smaller one. Voxels outside the mask are background.
    """
    offsets = _sample_offsets(affine, target)
    out = np.zeros((len(layers), *target.shape), np.uint8)
    to_index = np.asarray(np.linalg.inv(affine), np.float64)
    for n, origin in enumerate(target.origins):
        for layer, result in zip(layers, out, strict=True):
            samples = [_sampled(layer, to_index, origin + o, target) for o in offsets]
            result[n] = _most_frequent(samples)
    return out


def changed_share(before: Layers, affine: Affine, after: Layers, target: Grid) -> float:
    """The share (0..1) of the labeled voxels of the mask whose label is another one after it was
    resampled to `target` and, by the nearest voxel, back.
    """
    target_affine = target.affine
    if target_affine is None:
        return float("nan")
    shape = before.shape[1:]
    own = Grid.from_affine(affine, (shape[0], shape[1], shape[2]))
    to_index = np.asarray(np.linalg.inv(target_affine), np.float64)
    differs = either = 0
    for n, origin in enumerate(own.origins):
        back = _sampled(after[0], to_index, origin, own)
        differs += int(np.count_nonzero(back != before[0, n]))
        either += int(np.count_nonzero(before[0, n] | back))
    return differs / either if either else 0.0


def _sample_offsets(affine: Affine, target: Grid) -> list[Vector]:
    """Where in a target voxel the mask is sampled, in mm from its center."""
    target_affine = target.affine
    steps = [target.row_step, target.column_step]
    if target_affine is not None:
        steps.append(target_affine[:3, 0])
    along = [list(_offsets_along(np.linalg.inv(affine[:3, :3]) @ step, step)) for step in steps]
    return [np.sum(parts, axis=0) for parts in itertools.product(*along)]


def _offsets_along(in_voxels: Vector, step: Vector) -> Iterator[Vector]:
    """in_voxels: a step of the target, in voxels of the mask."""
    ratio = float(np.linalg.norm(in_voxels))
    count = 1
    if ratio > _COARSER:
        is_whole = abs(ratio - round(ratio)) < _COARSER - 1
        count = min(_MAX_SAMPLES, round(ratio) if is_whole else int(np.ceil(2 * ratio)))
    for n in range(count):
        yield ((n + 0.5) / count - 0.5) * step


def _sampled(layer: NDArray[np.uint8], to_index: Affine, origin: Vector, grid: Grid) -> Layers:
    """The label at each pixel of one slice of `grid` with this origin, by the nearest voxel."""
    start = to_index[:3, :3] @ origin + to_index[:3, 3]
    down, across = to_index[:3, :3] @ grid.row_step, to_index[:3, :3] @ grid.column_step
    rows, columns = np.arange(grid.rows)[:, np.newaxis], np.arange(grid.columns)
    inside = np.ones((grid.rows, grid.columns), np.bool_)
    index = []
    for axis, size in enumerate(layer.shape):
        position = start[axis] + rows * down[axis] + columns * across[axis]
        nearest = np.floor(np.round(position, _DECIMALS) + 0.5)
        inside &= (nearest >= 0) & (nearest < size)
        index.append(np.clip(nearest, 0, size - 1).astype(np.intp))
    return np.where(inside, layer[tuple(index)], 0).astype(np.uint8)


def _most_frequent(samples: list[Layers]) -> Layers:
    """The label that at least half of the samples have, else background."""
    if len(samples) == 1:
        return samples[0]
    stack = np.stack(samples)
    result = np.zeros(stack.shape[1:], np.uint8)
    for label in np.unique(stack)[::-1]:  # the smaller label is written last
        if label:
            result[2 * np.count_nonzero(stack == label, axis=0) >= len(samples)] = label
    return result

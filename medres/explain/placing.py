"""From the grid of the model's input back onto the pixels of the original image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.fitting import AxisFit
from medres.explain.maps import resized


def onto_original(values: np.ndarray, axes: Sequence[AxisFit]) -> np.ndarray:
    """A map on the model's grid -> the original's: padding is cut off; what the model never saw, of a crop, is 0."""
    grid = np.zeros([axis.inner for axis in axes])
    here, there = zip(*(_overlap(axis) for axis in axes), strict=True)
    grid[here] = values[there]
    return resized(grid, [axis.size for axis in axes])


def _overlap(axis: AxisFit) -> tuple[slice, slice]:
    """Where the resized input and the model's grid hold the same samples, in each of them."""
    first = (axis.inner - axis.out) // 2
    count = min(axis.inner, axis.out)
    return slice(max(first, 0), max(first, 0) + count), slice(max(-first, 0), max(-first, 0) + count)

"""Puts volumes on other grids: a regular grid, another spacing, a crop. Pure functions with linear
interpolation.

Arrays are float32 (slices, rows, columns). Affines are 4 x 4 float64, map (slice, row, column, 1)
to LPS mm, and stay exact.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import SpecError
from data_pipelines.volumes.slice_grid import Step, slice_grid, slice_weights

Voxels = NDArray[np.float32]
Affine = NDArray[np.float64]


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """The distance in mm between neighboring voxels along (slice, row, column).

    >>> spacing_of(np.diag([5.0, 0.7, 0.7, 1.0]))
    (5.0, 0.7, 0.7)
    """
    slices, rows, columns = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return slices, rows, columns


def to_regular_grid(
    pixels: Voxels,
    positions: NDArray[np.float64],
    axes: NDArray[np.float64],
    spacing: tuple[float, float],
    fill: float,
    step: Step | float = "modal",
) -> tuple[Voxels, Affine]:
    """Put a stack of slices with a tilt or with gaps on a regular grid along the normal.

    pixels: (slices, rows, columns). positions: (slices, 3), LPS mm of the first pixel of each
    slice, ascending along the normal. axes: (2, 3), row and column cosines. spacing: (row, column)
    mm. fill: the value outside the slices. step: of the grid, in mm or by name (see `slice_grid`).

    Each slice is shifted within its plane to a common frame, which is large enough for all of them.
    Then values are interpolated between slices (see `slice_weights`). Returns the pixels and their
    affine.
    """
    normal = np.cross(axes[0], axes[1])
    heights = (positions - positions[0]) @ normal
    drift = np.stack(
        [
            (positions - positions[0]) @ axes[1] / spacing[0],
            (positions - positions[0]) @ axes[0] / spacing[1],
        ],
        axis=1,
    )
    drift = drift.round(6)  # otherwise rounding errors alone would enlarge the frame
    first = drift.min(axis=0)
    margin = np.ceil(drift.max(axis=0) - first).astype(int)
    targets = slice_grid(heights, step).heights
    weights = slice_weights(heights, targets).astype(np.float32)
    shape = pixels.shape[1] + int(margin[0]), pixels.shape[2] + int(margin[1])
    most = int((weights > 0).sum(axis=1).max())
    shifted = lru_cache(maxsize=most)(lambda n: _shifted(pixels[n], drift[n] - first, shape, fill))
    regular = np.zeros((len(targets), *shape), np.float32)
    for out, row in zip(regular, weights, strict=True):
        for n in np.flatnonzero(row).tolist():
            out += shifted(n) * row[n]
    affine = np.eye(4)
    affine[:3, 0] = normal * heights[-1] / (len(targets) - 1)
    affine[:3, 1], affine[:3, 2] = axes[1] * spacing[0], axes[0] * spacing[1]
    affine[:3, 3] = positions[0] + affine[:3, 1] * first[0] + affine[:3, 2] * first[1]
    return regular, affine


def _shifted(
    plane: Voxels, offset: NDArray[np.float64], shape: tuple[int, int], fill: float
) -> Voxels:
    """A slice in a frame of `shape` (rows, columns), shifted by `offset` (row, column) pixels."""
    padded = np.full(shape, fill, np.float32)
    padded[: plane.shape[0], : plane.shape[1]] = plane
    from scipy import ndimage  # importing it takes a quarter of a worker's start-up time

    return ndimage.shift(padded, offset, order=1, cval=fill)


def resample(
    pixels: Voxels, affine: Affine, spacing_mm: tuple[float, float, float]
) -> tuple[Voxels, Affine]:
    """Linear resampling to a spacing (slice, row, column) in mm over the same extent, edge to edge.

    An axis that becomes coarser is smoothed first (Gaussian, sigma (ratio - 1) / 2 voxels) to
    prevent aliasing. Raises SpecError (`bad_spacing`) unless the spacing is three lengths above 0.
    """
    if not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise SpecError(
            f"The spacing is {spacing_mm}: give three lengths above 0 mm.", code="bad_spacing"
        )
    ratio = np.asarray(spacing_mm) / spacing_of(affine)
    shape = np.maximum(np.rint(np.asarray(pixels.shape) / ratio), 1).astype(int)
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(pixels, np.maximum(ratio - 1, 0) / 2, mode="nearest")
    start = (ratio - 1) / 2
    grid = ndimage.affine_transform(
        smooth, ratio, offset=start, output_shape=tuple(shape), order=1, mode="nearest"
    )
    new_affine = affine.copy()
    new_affine[:3, :3] = affine[:3, :3] * ratio
    new_affine[:3, 3] += affine[:3, :3] @ start
    return grid.astype(np.float32), new_affine


def crop(
    pixels: Voxels,
    affine: Affine,
    start: tuple[int, int, int],
    shape: tuple[int, int, int],
    fill: float,
) -> tuple[Voxels, Affine]:
    """The box of `shape` voxels whose first voxel is `start`. Outside the volume it has the value
    `fill`.
    """
    box = np.full(shape, fill, np.float32)
    low = [max(s, 0) for s in start]
    high = [min(s + n, size) for s, n, size in zip(start, shape, pixels.shape, strict=True)]
    if all(b > a for a, b in zip(low, high, strict=True)):
        inner = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        box[inner] = pixels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    new_affine = affine.copy()
    new_affine[:3, 3] += affine[:3, :3] @ np.asarray(start)
    return box, new_affine

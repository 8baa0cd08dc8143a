"""Volumes onto other grids: rectify a stack, change the spacing, crop. Pure functions, linear.

Arrays are (slices, rows, columns) float32; affines map (slice, row, column, 1) to LPS mm and always
stay exact.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Voxels = NDArray[np.float32]
Affine = NDArray[np.float64]


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """Distance in mm between neighbours along (slice, row, column)."""
    slices, rows, columns = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return slices, rows, columns


def to_regular_grid(
    pixels: Voxels,
    places: NDArray[np.float64],
    axes: NDArray[np.float64],
    spacing: tuple[float, float],
    fill: float,
) -> tuple[Voxels, Affine]:
    """Put a stack whose slices drift (tilt) or leave gaps on a regular grid along the normal.

    `places`: LPS mm of each slice's first pixel, ascending along the normal; `axes`: row and column
        cosines; `spacing`: (row, column) mm. Every slice is moved within its plane to a common
        frame, grown to hold them all (`fill` outside), then values between slices are interpolated;
        the step is the median one, adjusted to end on the last slice.
    """
    normal = np.cross(axes[0], axes[1])
    heights = (places - places[0]) @ normal
    drift = np.stack(
        [(places - places[0]) @ axes[1] / spacing[0], (places - places[0]) @ axes[0] / spacing[1]],
        axis=1,
    )
    drift = drift.round(6)  # a drift of rounding errors alone would fill the border
    first = drift.min(axis=0)
    grown = np.ceil(drift.max(axis=0) - first).astype(int)
    count = round(float(heights[-1] / np.median(np.diff(heights)))) + 1
    targets = np.linspace(0, heights[-1], count)
    below = np.clip(np.searchsorted(heights, targets, side="right") - 1, 0, len(heights) - 2)
    weight = (targets - heights[below]) / (heights[below + 1] - heights[below])
    shape = pixels.shape[1] + int(grown[0]), pixels.shape[2] + int(grown[1])
    moved = lru_cache(maxsize=2)(lambda n: _moved(pixels[n], drift[n] - first, shape, fill))
    regular = np.empty((count, *shape), np.float32)
    for out, n, w in zip(regular, below.tolist(), weight.astype(np.float32), strict=True):
        np.add(moved(n) * (1 - w), moved(n + 1) * w, out=out)
    affine = np.eye(4)
    affine[:3, 0] = normal * heights[-1] / (count - 1)
    affine[:3, 1], affine[:3, 2] = axes[1] * spacing[0], axes[0] * spacing[1]
    affine[:3, 3] = places[0] + affine[:3, 1] * first[0] + affine[:3, 2] * first[1]
    return regular, affine


def _moved(
    plane: Voxels, offset: NDArray[np.float64], shape: tuple[int, int], fill: float
) -> Voxels:
    """A slice in a frame of `shape` (rows, columns), moved by its offset in pixels."""
    padded = np.full(shape, fill, np.float32)
    padded[: plane.shape[0], : plane.shape[1]] = plane
    from scipy import ndimage  # a quarter of a worker's start, and slices alone do without

    return ndimage.shift(padded, offset, order=1, cval=fill)


def resample(
    pixels: Voxels, affine: Affine, spacing_mm: tuple[float, float, float]
) -> tuple[Voxels, Affine]:
    """Linear resampling to a spacing (slice, row, column) in mm over the same extent, edge to edge.

    Where an axis gets coarser it is first smoothed (Gaussian, sigma (ratio - 1) / 2 voxels) against
    aliasing.
    """
    if not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise ValueError(f"a spacing is three lengths above 0 mm, not {spacing_mm}")
    ratio = np.asarray(spacing_mm) / spacing_of(affine)
    shape = np.maximum(np.rint(np.asarray(pixels.shape) / ratio), 1).astype(int)
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(pixels, np.maximum(ratio - 1, 0) / 2, mode="nearest")
    start = (ratio - 1) / 2
    grid = ndimage.affine_transform(
        smooth, ratio, offset=start, output_shape=tuple(shape), order=1, mode="nearest"
    )
    moved = affine.copy()
    moved[:3, :3] = affine[:3, :3] * ratio
    moved[:3, 3] += affine[:3, :3] @ start
    return grid.astype(np.float32), moved


def crop(
    pixels: Voxels,
    affine: Affine,
    start: tuple[int, int, int],
    shape: tuple[int, int, int],
    fill: float,
) -> tuple[Voxels, Affine]:
    """A box of `shape` whose first voxel is `start`; it may reach outside, where it holds
    `fill`.
    """
    box = np.full(shape, fill, np.float32)
    low = [max(s, 0) for s in start]
    high = [min(s + n, size) for s, n, size in zip(start, shape, pixels.shape, strict=True)]
    if all(b > a for a, b in zip(low, high, strict=True)):
        inner = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        box[inner] = pixels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.asarray(start)
    return box, moved

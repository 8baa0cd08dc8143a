"""Images and volumes onto a fixed grid: a separable triangle filter, then symmetric padding or a
central crop.

Pure functions of numpy and scipy, in float64, independent of thread counts. Grid positions are
half-pixel centered: the edges of the resized grid are those of the input.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Imported here and not at the first use: a worker imports this file before it is ready, and the
# time limit of its first image must not pay for a cold disk.
from scipy.sparse import csr_array

FloatArray = NDArray[np.floating]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class AxisResize:
    """How one axis of `size` samples becomes `out` samples: it is resized to `inner` samples, then
    padded or cropped about its middle.

    >>> AxisResize(size=2, inner=2, out=4).apply(np.array([3.0, 5.0]), fill=-1.0)
    array([-1.,  3.,  5., -1.])
    """

    size: int
    inner: int
    out: int

    def apply(self, values: FloatArray, fill: float) -> Float64Array:
        """Values (size, ...) -> (out, ...) float64; `fill` where the input does not reach."""
        offset = (self.inner - self.out) // 2  # of the crop; negative: of the padding
        if self.inner >= self.out:
            return _resample_axis(self.size, self.inner, offset, self.out, values)
        grid = np.full((self.out, *values.shape[1:]), fill)
        grid[-offset : -offset + self.inner] = _resample_axis(
            self.size, self.inner, 0, self.inner, values
        )
        return grid


def fit_within(
    sizes: Sequence[int], spacings: Sequence[float], output_sizes: Sequence[int]
) -> list[AxisResize]:
    """The largest grid that fits into `output_sizes` with equal steps on all axes: proportions are
    kept.

    sizes: samples of the input on each axis. spacings: distance between samples on each axis, in
    any common unit.

    >>> fit_within((20, 40), (1.0, 1.0), (40, 40))
    [AxisResize(size=20, inner=20, out=40), AxisResize(size=40, inner=40, out=40)]
    """
    ratio = min(
        out / (size * spacing)
        for size, spacing, out in zip(sizes, spacings, output_sizes, strict=True)
    )
    lengths = [size * spacing * ratio for size, spacing in zip(sizes, spacings, strict=True)]
    return _resize_to(sizes, lengths, output_sizes)


def at_spacing(
    sizes: Sequence[int],
    spacings: Sequence[float],
    output_sizes: Sequence[int],
    output_spacings: Sequence[float],
) -> list[AxisResize]:
    """A grid with the given output spacings (in the unit of `spacings`), padded or cropped about
    its middle.
    """
    lengths = [
        size * spacing / step
        for size, spacing, step in zip(sizes, spacings, output_spacings, strict=True)
    ]
    return _resize_to(sizes, lengths, output_sizes)


def stretch(sizes: Sequence[int], output_sizes: Sequence[int]) -> list[AxisResize]:
    """The whole grid, each axis with its own step: proportions are not kept."""
    return [AxisResize(size, out, out) for size, out in zip(sizes, output_sizes, strict=True)]


def resize_image(pixels: FloatArray, axes: Sequence[AxisResize], fill: float) -> Float64Array:
    """Pixels (rows, columns) onto the grid of two axes, float64."""
    rows, columns = axes
    return np.ascontiguousarray(columns.apply(rows.apply(pixels, fill).T, fill).T)


def _resize_to(
    sizes: Sequence[int], lengths: Sequence[float], output_sizes: Sequence[int]
) -> list[AxisResize]:
    return [
        AxisResize(size, max(1, round(length)), out)
        for size, length, out in zip(sizes, lengths, output_sizes, strict=True)
    ]


def _resample_axis(
    size: int, inner: int, first: int, count: int, values: FloatArray
) -> Float64Array:
    if size == inner:
        return np.asarray(values[first : first + count], np.float64)
    flat = _triangle(size, inner, first, count) @ np.ascontiguousarray(values, np.float64).reshape(
        size, -1
    )
    return flat.reshape(count, *values.shape[1:])


@functools.lru_cache(maxsize=64)
def _triangle(size_in: int, size_out: int, first: int, count: int) -> csr_array:
    """Interpolation matrix (count, size_in): outputs `first` to `first + count` of `size_out`; each
    row sums to one.

    The filter is as wide as two input samples, or as two output samples if those are wider
    (antialiasing).
    """
    step = size_in / size_out
    support = max(step, 1.0)
    center = (np.arange(first, first + count) + 0.5) * step
    reach = np.arange(int(np.ceil(2 * support)) + 1)
    columns = np.floor(center - support).astype(int)[:, np.newaxis] + reach
    weights = np.maximum(0.0, 1.0 - np.abs(columns + 0.5 - center[:, np.newaxis]) / support)
    weights[(columns < 0) | (columns >= size_in)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.broadcast_to(np.arange(count)[:, np.newaxis], columns.shape)
    nonzero = weights > 0
    return csr_array((weights[nonzero], (rows[nonzero], columns[nonzero])), shape=(count, size_in))

"""Pictures and volumes onto a fixed grid: a separable triangle filter, then symmetric padding or a
central crop.

Pure functions of numpy and scipy, in float64, independent of thread counts. Grid positions are
half-pixel centred: the edges of the resized grid are those of the input.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class AxisResize:
    """How one axis of `size` samples becomes `out`: resized to `inner` samples, then padded or
    cropped about its middle.
    """

    size: int
    inner: int
    out: int

    def apply(self, values: FloatArray, fill: float) -> NDArray[np.float64]:
        """Values (size, ...) -> (out, ...) float64; `fill` where the input does not reach."""
        first = (self.inner - self.out) // 2  # of the crop; negative: of the padding
        if self.inner >= self.out:
            return _resample_axis(self.size, self.inner, first, self.out, values)
        grid = np.full((self.out, *values.shape[1:]), fill)
        grid[-first : -first + self.inner] = _resample_axis(
            self.size, self.inner, 0, self.inner, values
        )
        return grid


def fit_within(
    sizes: Sequence[int], pitches: Sequence[float], outs: Sequence[int]
) -> list[AxisResize]:
    """The largest grid of equal steps on all axes that fits: proportions are kept. `pitches`:
    length of a sample on each axis.
    """
    ratio = min(out / (size * pitch) for size, pitch, out in zip(sizes, pitches, outs, strict=True))
    lengths = (size * pitch * ratio for size, pitch in zip(sizes, pitches, strict=True))
    return [
        AxisResize(size, max(1, round(n)), out)
        for size, n, out in zip(sizes, lengths, outs, strict=True)
    ]


def at_spacing(
    sizes: Sequence[int], pitches: Sequence[float], outs: Sequence[int], spacing: Sequence[float]
) -> list[AxisResize]:
    """A grid of the given spacing (in the unit of `pitches`), padded or cropped about the
    middle.
    """
    lengths = (
        size * pitch / step for size, pitch, step in zip(sizes, pitches, spacing, strict=True)
    )
    return [
        AxisResize(size, max(1, round(n)), out)
        for size, n, out in zip(sizes, lengths, outs, strict=True)
    ]


def stretch(sizes: Sequence[int], outs: Sequence[int]) -> list[AxisResize]:
    """The whole grid, each axis at a step of its own."""
    return [AxisResize(size, out, out) for size, out in zip(sizes, outs, strict=True)]


def resize_image(
    pixels: FloatArray, axes: Sequence[AxisResize], fill: float
) -> NDArray[np.float64]:
    """(rows, cols) onto the grid of two axes."""
    rows, cols = axes
    return np.ascontiguousarray(cols.apply(rows.apply(pixels, fill).T, fill).T)


def _resample_axis(
    size: int, inner: int, first: int, count: int, values: FloatArray
) -> NDArray[np.float64]:
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

    The filter is as wide as two input samples, or two output samples where those are wider
    (antialiasing).
    """
    from scipy.sparse import csr_array

    step = size_in / size_out
    support = max(step, 1.0)
    centre = (np.arange(first, first + count) + 0.5) * step
    reach = np.arange(int(np.ceil(2 * support)) + 1)
    columns = np.floor(centre - support).astype(int)[:, np.newaxis] + reach
    weights = np.maximum(0.0, 1.0 - np.abs(columns + 0.5 - centre[:, np.newaxis]) / support)
    weights[(columns < 0) | (columns >= size_in)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    lines = np.broadcast_to(np.arange(count)[:, np.newaxis], columns.shape)
    kept = weights > 0
    return csr_array((weights[kept], (lines[kept], columns[kept])), shape=(count, size_in))

"""A net of a fixed size on an image of any size: overlapping windows, weighted by a Gaussian as in
nnU-Net (Isensee et al., Nature Methods 2021), in memory that does not depend on their number.

The windows form a grid, and the Gaussian is a product over the axes. So the weight of a window,
divided by the sum of the weights at each pixel, is a product of one vector per axis: no array of
weights is needed, and a pixel that a single window covers has a weight of exactly 1. The sums per
class are kept for one slab, as thick as a window; pixels that no later window covers are reduced to
their class and leave it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medres.errors import PredictionError

SIGMA = 1 / 8  # of the Gaussian, in sides of the window


def largest_class(scores: np.ndarray) -> np.ndarray:
    """The class of the largest score: (classes, ...) -> (...), uint8, or uint16 for more than 256
    classes. The first of equal scores, as `numpy.argmax`, which is slower over few classes.
    """
    label: np.ndarray = np.zeros(scores.shape[1:], _label_type(len(scores)))
    best = scores[0].copy()
    for i, score in enumerate(scores[1:], start=1):
        larger = score > best
        label[larger] = i
        np.maximum(best, score, out=best)
    return label


def _label_type(classes: int) -> type:
    return np.uint8 if classes <= 256 else np.uint16


def sliding_window(
    predict: Callable[[np.ndarray], Any],
    volume: np.ndarray,
    patch: Sequence[int],
    overlap: float = 0.5,
    *,
    batch: int = 1,
    flips: Sequence[Sequence[int]] = (),
    fill: float | None = None,
    reduce: Callable[[np.ndarray], np.ndarray] = largest_class,
) -> np.ndarray:
    """The class of each pixel of `volume`, from the mean of all windows that cover it.

    predict: float32 (batch, *patch, channels) -> (batch, *patch, classes), logits or probabilities.
        It always receives the same shape, so that one compiled graph serves: the last batch is
        filled up.
    volume: ([depth,] height, width) or with a last axis of channels.
    patch: the size of a window, two or three numbers. overlap: of neighbors, 0 or more and below 1;
        windows are moved together so that they cover the image without reaching beyond it.
    flips: axes to flip for each further prediction of a window, such as [(2,), (1, 2)]; the mean
        of all, flipped back, is taken.
    fill: the value around an image that is smaller than a window; None: its smallest value.
    reduce: from the mean scores of a slab (classes, ...) to one value per pixel (...); the default
        is the class of the largest score.

    Returns an array of the size of the volume, without channels. Where windows do not overlap, it
    is exactly that of each window. Raises PredictionError (codes bad_patch, bad_overlap, bad_flips,
    predict_shape, non_finite).

    >>> bright = lambda x: np.concatenate([0.5 - x, x - 0.5], axis=-1)
    >>> sliding_window(bright, np.array([[0.0, 1.0, 1.0]]), (2, 2))
    array([[0, 1, 1]], dtype=uint8)
    """
    patch = _checked_patch(patch, volume)
    _check_options(overlap, batch, flips, len(patch))
    sizes = volume.shape[: len(patch)]
    image = volume if volume.ndim > len(patch) else volume[..., None]
    axes = [_Axis.of(n, side, overlap) for n, side in zip(sizes, patch, strict=True)]
    first = min(range(len(patch)), key=lambda a: min(patch[a], sizes[a]) / sizes[a])
    windows = _Windows(np.moveaxis(image, first, 0), _first(axes, first), fill)

    def scores(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(_scores(predict, np.moveaxis(x, 1, first + 1), flips), first + 1, 1)

    scored = (
        pair
        for positions, x in windows.batches(batch)
        for pair in zip(positions, scores(x), strict=False)
    )
    position, window = next(scored)
    slab = _Slab(windows.axes, window.shape[-1], reduce)
    slab.add(position, window)
    for position, window in scored:
        slab.add(position, window)
    return np.moveaxis(slab.result(), 0, first)


def windows_of(
    volume: np.ndarray, patch: Sequence[int], overlap: float = 0.5
) -> Iterator[np.ndarray]:
    """The windows (*patch, channels) that `sliding_window` gives to the network, one by one.

    >>> len(list(windows_of(np.zeros((8, 8, 1)), (4, 4))))
    9
    """
    patch = _checked_patch(patch, volume)
    _check_options(overlap, 1, (), len(patch))
    image = volume if volume.ndim > len(patch) else volume[..., None]
    sizes = image.shape[: len(patch)]
    axes = [_Axis.of(n, side, overlap) for n, side in zip(sizes, patch, strict=True)]
    for _, windows in _Windows(image, axes, None).batches(1):
        yield windows[0]


def _scores(
    predict: Callable[[np.ndarray], Any], x: np.ndarray, flips: Sequence[Sequence[int]]
) -> np.ndarray:
    """The mean prediction of the windows x and of their flips, flipped back."""
    total = np.zeros((), np.float32)
    for axes in [(), *flips]:
        shifted = tuple(axis + 1 for axis in axes)
        y = np.asarray(predict(np.ascontiguousarray(np.flip(x, shifted))), np.float32)
        if y.shape[:-1] != x.shape[:-1]:
            raise PredictionError(
                f"predict returned the shape {y.shape} for {x.shape}; all axes but the last must "
                f"be equal",
                code="predict_shape",
            )
        y = np.flip(y, shifted)
        total = total + y if flips else y
    if not np.isfinite(total).all():
        raise PredictionError("predict returned values that are not finite", code="non_finite")
    return total / (1 + len(flips)) if flips else total


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis: the size of the image, the side of a window, where each window
    starts, and its normalized weights (side,).
    """

    size: int
    side: int
    starts: list[int]
    weights: list[np.ndarray]

    @classmethod
    def of(cls, size: int, side: int, overlap: float) -> _Axis:
        step = max(1, math.floor(side * (1 - overlap)))
        free = max(0, size - side)
        steps = -(-free // step)
        starts = [round(free * i / steps) if steps else 0 for i in range(steps + 1)]
        center, sigma = (side - 1) / 2, side * SIGMA
        gaussian = np.exp(-0.5 * ((np.arange(side) - center) / sigma) ** 2)
        total = np.zeros(max(size, side))
        for start in starts:
            total[start : start + side] += gaussian
        weights = [(gaussian / total[s : s + side]).astype(np.float32) for s in starts]
        return cls(size, side, starts, weights)

    @property
    def inside(self) -> int:
        """Pixels of a window that lie in the image; the rest is filled."""
        return min(self.side, self.size)


def _first(axes: list[_Axis], first: int) -> list[_Axis]:
    return [axes[first], *axes[:first], *axes[first + 1 :]]


@dataclass(frozen=True)
class _Windows:
    """The windows of an image (*sizes, channels), row by row along its first axis."""

    image: np.ndarray
    axes: list[_Axis]
    fill: float | None

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.image.shape[:-1]

    def batches(self, n: int) -> Iterator[tuple[list[tuple[int, ...]], np.ndarray]]:
        """(the position of each window in the grid, float32 (n, *patch, channels))"""
        fill = 0.0
        if any(axis.size < axis.side for axis in self.axes):
            fill = float(self.image.min()) if self.fill is None else self.fill
        grid = itertools.product(*(range(len(axis.starts)) for axis in self.axes))
        inside = tuple(slice(0, axis.inside) for axis in self.axes)
        while positions := list(itertools.islice(grid, n)):
            shape = (n, *(axis.side for axis in self.axes), self.image.shape[-1])
            x = np.full(shape, fill, np.float32)
            for i, position in enumerate(positions):
                x[i][inside] = self.image[_region(self.axes, position)]
            yield positions, x


def _region(axes: Sequence[_Axis], position: Sequence[int]) -> tuple[slice, ...]:
    starts = [axis.starts[i] for axis, i in zip(axes, position, strict=True)]
    return tuple(
        slice(start, start + axis.inside) for start, axis in zip(starts, axes, strict=True)
    )


class _Slab:
    """The weighted sums of the scores, (classes, rows, ...), for the rows of the image that a
    window can cover at once; row r is stored at r modulo their number. And the result for the rows
    before them.
    """

    def __init__(
        self, axes: list[_Axis], classes: int, reduce: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.axes, self.reduce = axes, reduce
        self.rows = axes[0].inside
        sizes = [axis.size for axis in axes]
        self.sums = np.zeros((classes, self.rows, *sizes[1:]), np.float32)
        value = reduce(np.zeros((classes, *[1] * len(sizes)), np.float32))
        self.output = np.empty(sizes, value.dtype)
        self.done = 0

    def add(self, position: tuple[int, ...], window: np.ndarray) -> None:
        """Add the scores (*patch, classes) of the window at a position of the grid; the positions
        come row by row.
        """
        axis, others = self.axes[0], self.axes[1:]
        start = axis.starts[position[0]]
        self._finish_until(start)
        window = window[tuple(slice(0, a.inside) for a in self.axes)]
        weight = np.ones((), np.float32)
        for a, i in zip(others, position[1:], strict=True):
            weight = weight[..., None] * a.weights[i][: a.inside]
        region = _region(others, position[1:])
        for rows, stored in self._parts(start, start + axis.inside):
            local = slice(rows.start - start, rows.stop - start)
            along = axis.weights[position[0]][local]
            weights = along.reshape(-1, *[1] * len(others)) * weight
            for c, sums in enumerate(self.sums):
                sums[(stored, *region)] += window[..., c][local] * weights

    def result(self) -> np.ndarray:
        """The value of every pixel of the image."""
        self._finish_until(self.axes[0].size)
        return self.output

    def _finish_until(self, end: int) -> None:
        """Reduce the rows before `end`, which no later window covers, and set their sums to 0."""
        for rows, stored in self._parts(self.done, end):
            self.output[rows] = self.reduce(self.sums[:, stored])
            self.sums[:, stored] = 0.0
        self.done = end

    def _parts(self, start: int, end: int) -> Iterator[tuple[slice, slice]]:
        """Rows of the image as pieces that are stored without a break: (rows, where stored)."""
        while start < end:
            first = start % self.rows
            count = min(end - start, self.rows - first)
            yield slice(start, start + count), slice(first, first + count)
            start += count


def _checked_patch(patch: Sequence[int], volume: np.ndarray) -> tuple[int, ...]:
    sides = tuple(int(n) for n in patch)
    if len(sides) not in (2, 3) or min(sides) < 1:
        raise PredictionError(
            f"patch {patch!r}: give two or three sizes of 1 or more", code="bad_patch"
        )
    if volume.ndim - len(sides) not in (0, 1) or 0 in volume.shape:
        raise PredictionError(
            f"an image of shape {volume.shape} does not go with the patch {sides}: give "
            f"{len(sides)} sizes, with or without channels after them",
            code="bad_patch",
        )
    return sides


def _check_options(overlap: float, batch: int, flips: Sequence[Sequence[int]], rank: int) -> None:
    if not 0 <= overlap < 1 or batch < 1:
        raise PredictionError(
            f"overlap {overlap!r}, batch {batch!r}: give an overlap of 0 or more and below 1, and "
            f"a batch of 1 or more",
            code="bad_overlap",
        )
    if any(not axes or not {*axes} <= {*range(rank)} for axes in flips):
        raise PredictionError(
            f"flips {flips!r}: give tuples of axes from 0 to {rank - 1}", code="bad_flips"
        )

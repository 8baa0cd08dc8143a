"""The grid of a mask and the grid of an image: where their slices lie in the patient, and which of
them are the same.

All positions are LPS mm in float64. Two grids are the same where all corners agree within
TOLERANCE_MM, up to a permutation and flips of the axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.resampling import Affine

Vector = NDArray[np.float64]
TOLERANCE_MM = 1e-3
#: steps of a sparse stack are whole multiples of its smallest one within this share
_WHOLE_STEP = 0.02


@dataclass(frozen=True)
class Turn:
    """How axes are permuted and flipped: new axis n is old axis `axes[n]`, reversed where
    `flips[n]`. Axes are (slice, row, column).
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, values: NDArray) -> NDArray:
        """An array (..., slices, rows, columns), a view of the same numbers."""
        leading = values.ndim - 3
        turned = values.transpose(*range(leading), *(leading + axis for axis in self.axes))
        reverse = [slice(None, None, -1) if flip else slice(None) for flip in self.flips]
        return turned[(..., *reverse)]


@dataclass(frozen=True, eq=False)
class Grid:
    """Parallel slices of one size.

    origins: (slices, 3), the center of the first pixel of each slice. row_step: from one row to the
    next. column_step: from one column to the next. rows, columns: the size of a slice.
    """

    origins: Vector
    row_step: Vector
    column_step: Vector
    rows: int
    columns: int

    @classmethod
    def from_affine(cls, affine: Affine, shape: tuple[int, int, int]) -> Grid:
        """The grid of a volume (slices, rows, columns)."""
        origins = affine[:3, 3] + np.arange(shape[0])[:, np.newaxis] * affine[:3, 0]
        return cls(origins, affine[:3, 1].copy(), affine[:3, 2].copy(), shape[1], shape[2])

    @classmethod
    def from_planes(cls, planes: Sequence[Plane]) -> Grid | None:
        """The grid of slices in their order; None where one has no position."""
        first = planes[0]
        if not all(plane.orientation and plane.position and plane.spacing for plane in planes):
            return None
        across, down = np.asarray(first.orientation, np.float64).reshape(2, 3)
        row_spacing, column_spacing = first.spacing or (1.0, 1.0)
        origins = np.asarray([plane.position for plane in planes], np.float64)
        return cls(origins, down * row_spacing, across * column_spacing, first.rows, first.columns)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return len(self.origins), self.rows, self.columns

    @property
    def normal(self) -> Vector:
        """The unit vector row x column."""
        normal = np.cross(self.column_step, self.row_step)
        return np.asarray(normal / np.linalg.norm(normal))

    @property
    def affine(self) -> Affine | None:
        """(slice, row, column, 1) -> LPS mm; None unless there are two slices or more with one
        constant step.
        """
        if len(self.origins) < 2:
            return None
        step = (self.origins[-1] - self.origins[0]) / (len(self.origins) - 1)
        expected = self.origins[0] + np.arange(len(self.origins))[:, np.newaxis] * step
        if np.linalg.norm(self.origins - expected, axis=1).max() > TOLERANCE_MM or not step.any():
            return None
        affine = np.eye(4)
        affine[:3] = np.stack([step, self.row_step, self.column_step, self.origins[0]], axis=1)
        return affine

    def turn_to(self, other: Grid) -> Turn:
        """The permutation and the flips that bring these axes closest to those of `other`."""
        cosines = self._axes() @ other._axes().T
        axes = max(
            itertools.permutations(range(3)),
            key=lambda order: sum(abs(cosines[axis, n]) for n, axis in enumerate(order)),
        )
        flips = [bool(cosines[axis, n] < 0) for n, axis in enumerate(axes)]
        return Turn((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    def turned(self, turn: Turn) -> Grid | None:
        """The same grid with its axes in another order; None where slices without a constant step
        would no longer be slices.
        """
        affine = self.affine
        if turn.axes[0] != 0:
            if affine is None:
                return None
            columns, sizes = (
                affine[:3, :3][:, turn.axes],
                np.array([self.shape[n] for n in turn.axes]),
            )
            signs = np.where(turn.flips, -1.0, 1.0)
            new = np.eye(4)
            new[:3, :3] = columns * signs
            new[:3, 3] = affine[:3, 3] + columns @ (np.asarray(turn.flips) * (sizes - 1))
            return Grid.from_affine(new, (int(sizes[0]), int(sizes[1]), int(sizes[2])))
        steps = (self.row_step, self.column_step)
        sizes_2d = (self.rows, self.columns)
        chosen = [axis - 1 for axis in turn.axes[1:]]
        origins = self.origins[::-1] if turn.flips[0] else self.origins
        new_steps = []
        for axis, flip in zip(chosen, turn.flips[1:], strict=True):
            if flip:
                origins = origins + steps[axis] * (sizes_2d[axis] - 1)
            new_steps.append(-steps[axis] if flip else steps[axis])
        size = [sizes_2d[axis] for axis in chosen]
        return Grid(origins, new_steps[0], new_steps[1], size[0], size[1])

    def slices_at(self, other: Grid) -> NDArray[np.intp] | None:
        """For each slice of `other`, the number of the slice of this grid with the same pixels, or
        -1. None where the pixels within a slice differ. Axes must be in the same order.
        """
        if (self.rows, self.columns) != (other.rows, other.columns):
            return None
        down = (self.row_step - other.row_step) * (self.rows - 1)
        across = (self.column_step - other.column_step) * (self.columns - 1)
        corners = np.stack([0 * down, down, across, down + across])
        if np.linalg.norm(corners, axis=1).max() > TOLERANCE_MM:
            return None
        nearest = np.array(
            [int(np.linalg.norm(self.origins - o, axis=1).argmin()) for o in other.origins]
        )
        shift = self.origins[nearest] - other.origins
        distance = np.linalg.norm(shift[:, np.newaxis] + corners, axis=2).max(axis=1)
        return np.where(distance <= TOLERANCE_MM, nearest, -1)

    def is_apart_from(self, other: Grid) -> bool:
        """Whether the boxes around both grids have no point in common."""
        low, high = self._box()
        other_low, other_high = other._box()
        return bool((low > other_high + TOLERANCE_MM).any() or (other_low > high).any())

    def whole_steps(self) -> NDArray[np.intp] | None:
        """The number of each slice on the regular grid with the smallest step of the stack; None
        where the steps are not whole multiples of it.
        """
        heights = self.origins @ self.normal
        steps = np.diff(heights)
        if not len(steps) or steps.min() <= TOLERANCE_MM:
            return None
        multiples = (heights - heights[0]) / steps.min()
        whole = np.rint(multiples)
        if np.abs(multiples - whole).max() > _WHOLE_STEP:
            return None
        return whole.astype(np.intp)

    def _axes(self) -> Vector:
        affine = self.affine
        along = self.normal if affine is None else affine[:3, 0]
        axes = np.stack([along, self.row_step, self.column_step])
        return np.asarray(axes / np.linalg.norm(axes, axis=1, keepdims=True))

    def _box(self) -> tuple[Vector, Vector]:
        down, across = self.row_step * (self.rows - 1), self.column_step * (self.columns - 1)
        ends = self.origins[[0, -1]]
        corners = np.concatenate([ends, ends + down, ends + across, ends + down + across])
        return corners.min(axis=0), corners.max(axis=0)

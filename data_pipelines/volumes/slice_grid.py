"""The regular grid on which a series with gaps or uneven steps is resampled: its step, its weights,
how much of it is interpolated, and which series are refused.

Pure functions of the heights of the slices: mm along the normal, ascending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Step = Literal["modal", "finest"]
Heights = NDArray[np.float64]

#: two steps are equal within this share of the smaller one
_EQUAL_STEPS = 0.05
#: a grid slice counts as acquired where a stored slice lies within this share of a step
ACQUIRED_WITHIN = 0.1
#: slices closer than this share of the grid's step are averaged, not skipped
_FINER = 0.75
_MAX_SUBSTEPS = 8


@dataclass(frozen=True)
class Resampling:
    """How series with gaps or uneven steps become volumes, and which of them are refused.

    step: "modal": the step that occurs most often; "finest": the smallest one.
    max_gap_mm, max_gap_slices: a gap is a distance of neighboring slices in which at least one
        modal step is missing. These are the longest distance in mm, and the most missing slices.
    max_interpolated: the largest share of slices (0..1) that no stored slice supports.
    """

    step: Step = "modal"
    max_gap_mm: float = 20.0
    max_gap_slices: int = 3
    max_interpolated: float = 0.25


@dataclass(frozen=True)
class SliceGrid:
    """A regular grid over a stack. heights: mm of each grid slice. interpolated: True where no
    stored slice lies within a tenth of a step. gap_mm, gap_slices: the largest gap of the stack.
    """

    heights: Heights
    interpolated: NDArray[np.bool_]
    gap_mm: float
    gap_slices: int

    @property
    def interpolated_share(self) -> float:
        """The share of interpolated slices, 0..1."""
        return float(self.interpolated.mean())

    def refusal(self, limits: Resampling) -> str:
        """Why the series is refused: `gap_too_large`, `too_interpolated`, or '' where it is not."""
        if self.gap_mm > limits.max_gap_mm or self.gap_slices > limits.max_gap_slices:
            return "gap_too_large"
        return "too_interpolated" if self.interpolated_share > limits.max_interpolated else ""


def slice_grid(heights: Heights, step: Step | float = "modal") -> SliceGrid:
    """The grid over a stack of two slices or more at distinct heights. Its step, given in mm or by
    name, is adjusted so that the grid ends on the last slice.

    >>> grid = slice_grid(np.array([0.0, 5.0, 10.0, 20.0]))
    >>> grid.heights.tolist(), grid.interpolated.tolist(), grid.gap_mm, grid.gap_slices
    ([0.0, 5.0, 10.0, 15.0, 20.0], [False, False, False, True, False], 10.0, 1)
    """
    steps, modal = np.diff(heights), modal_step(heights)
    if step == "modal":
        step = modal
    elif step == "finest":
        step = float(steps.min())
    span = heights[-1] - heights[0]
    targets = heights[0] + np.linspace(0, span, max(round(float(span / step)), 1) + 1)
    distance = np.abs(targets - heights[_nearest(heights, targets)])
    missing = np.rint(steps / modal).astype(int) - 1
    gaps = steps[missing > 0]
    return SliceGrid(
        heights=targets,
        interpolated=distance > ACQUIRED_WITHIN * (targets[1] - targets[0]) * (1 + 1e-9),
        gap_mm=float(gaps.max()) if len(gaps) else 0.0,
        gap_slices=int(max(missing.max(), 0)),
    )


def modal_step(heights: Heights) -> float:
    """The step that occurs most often, within 5 %; the smaller one where two occur equally often.

    >>> modal_step(np.array([0.0, 2.5, 5.0, 7.5, 12.5, 17.5]))
    2.5
    """
    steps = np.sort(np.diff(heights))
    first = np.searchsorted(steps, steps * (1 - _EQUAL_STEPS))
    last = np.searchsorted(steps, steps * (1 + _EQUAL_STEPS), side="right")
    most = int((last - first).argmax())
    return float(np.median(steps[first[most] : last[most]]))


def slice_weights(heights: Heights, targets: Heights) -> NDArray[np.float64]:
    """(targets, slices): how much each stored slice contributes to each grid slice.

    Values are interpolated linearly. Where stored slices are closer than the grid, they are
    averaged with a Gaussian of the width that `resample` uses, so that no slice is skipped.
    """
    weights = _linear_weights(heights, targets)
    step = targets[1] - targets[0]
    substeps = min(int(np.rint(step / np.diff(heights).min())), _MAX_SUBSTEPS)
    if substeps <= 1:
        return weights
    fine = np.flatnonzero(_has_finer_slices(heights, targets, step))
    points, sigma = targets[fine], (substeps - 1) / 2
    smooth, total = weights[fine], np.ones((len(fine), 1))
    for offset in range(1, int(np.ceil(3 * sigma)) + 1):
        shift, share = offset * step / substeps, np.exp(-((offset / sigma) ** 2) / 2)
        inside = ((points - shift >= heights[0]) & (points + shift <= heights[-1]))[:, None]
        both = _linear_weights(heights, points - shift) + _linear_weights(heights, points + shift)
        smooth = smooth + np.where(inside, share * both, 0)
        total = total + np.where(inside, 2 * share, 0)
    weights[fine] = smooth / total
    return weights


def _has_finer_slices(heights: Heights, targets: Heights, step: float) -> NDArray[np.bool_]:
    """Whether two slices within one step of each grid slice are closer than the grid."""
    closer = np.diff(heights) < _FINER * step
    low, high = heights[:-1][closer], heights[1:][closer]
    near = (high[None] > targets[:, None] - step) & (low[None] < targets[:, None] + step)
    return np.asarray(near.any(axis=1))


def _linear_weights(heights: Heights, points: Heights) -> NDArray[np.float64]:
    below = np.clip(np.searchsorted(heights, points, side="right") - 1, 0, len(heights) - 2)
    share = np.clip((points - heights[below]) / (heights[below + 1] - heights[below]), 0, 1)
    weights = np.zeros((len(points), len(heights)))
    rows = np.arange(len(points))
    weights[rows, below], weights[rows, below + 1] = 1 - share, share
    return weights


def _nearest(heights: Heights, points: Heights) -> NDArray[np.intp]:
    return np.abs(points[:, None] - heights).argmin(axis=1)

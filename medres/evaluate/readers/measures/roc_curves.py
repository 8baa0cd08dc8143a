"""ROC curves of the readers and their mean, and the points at which readers decide."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from medres.evaluate.readers.ratings import Cell, FloatArray, Ratings
from medres.evaluate.scores.sample import rank_counts
from medres.evaluate.serialization import ABSENT


@dataclass(frozen=True)
class ReaderCurve:
    """Empirical ROC curve from (0, 0) to (1, 1); with marks, of the highest mark of each case.
    reader None: the mean over the readers of the modality (of sensitivity at each false-positive
    rate, so that its area is the mean AUC). at: false-positive rate and sensitivity where positive
    is the rating that the study states.
    """

    modality: str
    reader: str | None
    fpr: list[float]
    tpr: list[float]
    at: tuple[float, float] | None = field(default=None, metadata=ABSENT)


def roc_curves(ratings: Ratings, positive: float | None) -> list[ReaderCurve]:
    """One for each reader and modality, then the mean of the modality."""
    found = []
    for i, modality in enumerate(ratings.modalities):
        curves, points = [], []
        for j, reader in enumerate(ratings.readers):
            cell = ratings.cell(i, j)
            if not cell.case.size:
                continue
            curves.append(_curve(cell))
            points.append(None if positive is None else _point(cell, positive))
            found.append(_named(modality, reader, curves[-1], points[-1]))
        if len(curves) > 1:
            known = [point for point in points if point is not None]
            mean = tuple(float(np.mean(axis)) for axis in zip(*known, strict=True))
            found.append(
                _named(modality, None, mean_curve(curves), mean if len(mean) == 2 else None)
            )
    return found


def mean_curve(curves: list[FloatArray]) -> FloatArray:
    """(2, k): the mean height of curves (2, k_i) at each abscissa; where one of them jumps, from
    below and from above.
    """
    x = np.unique(np.concatenate([curve[0] for curve in curves]))
    low, high = (
        np.mean([_height(curve, x, side) for curve in curves], axis=0) for side in ("left", "right")
    )
    return np.stack([np.repeat(x, 2), np.stack([low, high], axis=1).ravel()])


def _height(curve: FloatArray, x: FloatArray, side: str) -> FloatArray:
    """Of the curve at x, before a jump (left) or after it."""
    if side == "right":
        return np.asarray(np.interp(x, curve[0], curve[1]))
    return np.asarray(np.interp(-x, -curve[0][::-1], curve[1][::-1]))


def _curve(cell: Cell) -> FloatArray:
    counts = rank_counts(cell.truth, cell.rating)
    fpr, tpr = (np.concatenate([[0.0], part / part[-1]]) for part in (counts.fp, counts.tp))
    return _corners(np.stack([fpr, tpr]))


def _corners(curve: FloatArray) -> FloatArray:
    """Without the points that lie on the straight line between their neighbors."""
    step = np.diff(curve, axis=1)
    turn = step[0, 1:] * step[1, :-1] - step[0, :-1] * step[1, 1:]
    return curve[:, np.concatenate([[True], np.abs(turn) > 1e-12, [True]])]


def _point(cell: Cell, positive: float) -> tuple[float, float]:
    called = cell.rating >= positive
    return float(called[~cell.truth].mean()), float(called[cell.truth].mean())


def _named(
    modality: str, reader: str | None, curve: FloatArray, at: tuple[float, ...] | None
) -> ReaderCurve:
    point = None if at is None else (at[0], at[1])
    return ReaderCurve(modality, reader, curve[0].tolist(), curve[1].tolist(), point)

"""Figures of merit from the LROC curve up to a false-positive rate.

The curve is the share of diseased cases that are marked in the right place against the share of
other cases with a mark at least as high, joined by straight lines (Swensson 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medres.evaluate.readers.ratings import Cell, FloatArray, IntArray


@dataclass(frozen=True)
class LrocFigure:
    """The height of the curve at the false-positive rate `limit` (of a jump there, its lower end),
    or with `area` the area from 0 to it, not divided by its width.
    """

    name: str
    limit: float
    area: bool
    u_statistic: bool = False

    def value(self, cell: Cell) -> float:
        """Between 0 and 1, of the area between 0 and `limit`."""
        return self._of(_signal(cell), cell.false_mark[~cell.truth])

    def leave_one_out(self, cell: Cell) -> tuple[IntArray, FloatArray]:
        """The value without each patient."""
        signal, noise = _signal(cell), cell.false_mark[~cell.truth]
        of_signal, of_noise = cell.patient[cell.truth], cell.patient[~cell.truth]
        patients = np.unique(cell.patient)
        values = [self._of(signal[of_signal != p], noise[of_noise != p]) for p in patients]
        return patients, np.array(values)

    def _of(self, signal: FloatArray, noise: FloatArray) -> float:
        x, y = _curve(signal, noise)
        height = float(np.interp(-self.limit, -x[::-1], y[::-1]))
        if not self.area:
            return height
        below = x < self.limit
        return float(np.trapezoid([*y[below], height], [*x[below], self.limit]))


def _signal(cell: Cell) -> FloatArray:
    """The rating of the right place in each diseased case, else minus infinity."""
    owner = (np.cumsum(cell.truth) - 1)[cell.lesion_case]
    signal = np.full(int(cell.truth.sum()), -np.inf)
    signal[owner] = cell.lesion_rating
    return signal


def _curve(signal: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
    """From (0, 0), at each rating from the highest down to the lowest mark."""
    levels = np.unique(np.concatenate([signal[np.isfinite(signal)], noise]))[::-1]
    x, y = (
        np.searchsorted(-np.sort(part)[::-1], -levels, "right") / part.size
        for part in (noise, signal)
    )
    return np.concatenate([[0.0], x]), np.concatenate([[0.0], y])

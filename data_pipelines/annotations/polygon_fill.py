"""Polygons as pixels, exactly: a pixel is inside where its center is, by the even-odd rule.

Coordinates are (x, y) = (column, row) in pixels; the center of the first pixel is (0, 0). Edges
are half-open: a center on a left or an upper edge is inside, on a right or a lower edge outside,
so that two polygons that share an edge share no pixel. The two edges of a keyhole cancel out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

#: decimals of a pixel that count: rounding errors never decide on which side a center lies
DECIMALS = 6
_EDGES_AT_ONCE = 1 << 15


def fill_polygons(polygons: Sequence[Points], rows: int, columns: int) -> NDArray[np.bool_]:
    """The pixels inside an odd number of the polygons, (rows, columns). Each polygon is an array
    (points, 2) and closes by itself.

    >>> square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])
    >>> fill_polygons([square], 4, 4).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    crossings = np.zeros((rows, columns + 1), np.int32)
    for points in polygons:
        start = np.round(points, DECIMALS)
        end = np.roll(start, -1, axis=0)
        for first in range(0, len(start), _EDGES_AT_ONCE):
            part = slice(first, first + _EDGES_AT_ONCE)
            _add_crossings(crossings, start[part], end[part])
    return np.asarray(np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1)


def _add_crossings(crossings: NDArray[np.int32], start: Points, end: Points) -> None:
    """Count, in each row, the edges that cross it, at the first pixel to the right of each."""
    rows, columns = crossings.shape[0], crossings.shape[1] - 1
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(low), 0, rows).astype(np.intp)
    counts = np.clip(np.ceil(high), 0, rows).astype(np.intp) - first
    edge = np.repeat(np.arange(len(start)), counts)
    if not len(edge):
        return
    y = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = np.round(x0 + (y - y0) * (x1 - x0) / (y1 - y0), DECIMALS)
    np.add.at(crossings, (y, np.clip(np.ceil(x), 0, columns).astype(np.intp)), 1)

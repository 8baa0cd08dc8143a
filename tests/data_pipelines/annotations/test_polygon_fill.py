"""Polygons as pixels against a slow even-odd rule, point by point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.annotations.polygon_fill import fill_polygons

ROWS, COLUMNS = 9, 11
COORDINATE = st.one_of(st.integers(-2, 12), st.integers(-8, 48).map(lambda n: n / 4))


def slow_fill(polygons: list[np.ndarray]) -> np.ndarray:
    """For each center, the parity of the edges on its left or at it, in exact fractions."""
    from fractions import Fraction

    inside = np.zeros((ROWS, COLUMNS), bool)
    for row in range(ROWS):
        for column in range(COLUMNS):
            for polygon in polygons:
                points = [(Fraction(float(x)), Fraction(float(y))) for x, y in polygon]
                for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                    if (y0 <= row < y1) or (y1 <= row < y0):
                        crossing = x0 + (row - y0) * (x1 - x0) / (y1 - y0)
                        inside[row, column] ^= crossing <= column
    return inside


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=8), max_size=3))
def test_fill_is_the_even_odd_rule(polygons: list) -> None:
    arrays = [np.array(points, np.float64) for points in polygons]
    np.testing.assert_array_equal(fill_polygons(arrays, ROWS, COLUMNS), slow_fill(arrays))


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def test_neighbors_share_no_pixel() -> None:
    left = fill_polygons([box(1, 1, 4, 6)], ROWS, COLUMNS)
    right = fill_polygons([box(4, 1, 8, 6)], ROWS, COLUMNS)
    both = fill_polygons([box(1, 1, 8, 6)], ROWS, COLUMNS)
    assert not (left & right).any()
    np.testing.assert_array_equal(left | right, both)
    assert left.sum() == 3 * 5  # left and upper edges are inside, right and lower ones are not


def test_a_keyhole_is_a_hole() -> None:
    """Outside once around, along a cut inwards, the hole in the other direction, and back."""
    cut = [[1, 4], [3, 4]]
    keyhole = np.array(
        [[1, 4], [1, 1], [8, 1], [8, 8], [1, 8], *cut, [3, 6], [6, 6], [6, 3], [3, 3], [3, 4]],
        np.float64,
    )
    with_hole = fill_polygons([box(1, 1, 8, 8), box(3, 3, 6, 6)], ROWS, COLUMNS)
    np.testing.assert_array_equal(fill_polygons([keyhole], ROWS, COLUMNS), with_hole)
    assert with_hole.sum() == 49 - 9


@pytest.mark.parametrize("shift", [1e-9, -1e-9])
def test_rounding_errors_decide_nothing(shift: float) -> None:
    exact = fill_polygons([box(1, 1, 4, 6)], ROWS, COLUMNS)
    np.testing.assert_array_equal(fill_polygons([box(1, 1, 4, 6) + shift], ROWS, COLUMNS), exact)

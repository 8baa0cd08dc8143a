"""Grids onto grids: a linear field must come through every step unchanged, at the positions of the
affine.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import SpecError
from data_pipelines.volumes.resampling import crop, resample, spacing_of, to_regular_grid

AXES = np.array([[1.0, 0, 0], [0, 0.9703, -0.2419]])
AXES[1] /= np.linalg.norm(AXES[1])


def field(points: np.ndarray) -> np.ndarray:
    return points @ np.array([0.5, -1.25, 2.0]) + 7


def points_of(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def test_spacing():
    affine = np.diag([2.5, 0.7, 0.6, 1.0])
    assert spacing_of(affine) == (2.5, 0.7, 0.6)


@pytest.mark.parametrize("heights", [[0, 5, 10, 15, 20], [0, 5, 10, 20], [0, 5, 11, 14, 20]])
@pytest.mark.parametrize("tilted", [False, True])
def test_rectified_stacks_hold_the_field_at_their_new_places(heights, tilted):
    normal = np.cross(*AXES)
    direction = np.array([0, 0, 1.0]) / normal[2] if tilted else normal
    positions = np.array([-3.0, 4.0, 5.0]) + np.outer(heights, direction)
    rows, columns, spacing = 12, 9, (0.8, 0.5)
    stack = np.stack(
        [
            field(
                p
                + np.arange(rows)[:, None, None] * AXES[1] * spacing[0]
                + np.arange(columns)[None, :, None] * AXES[0] * spacing[1]
            )
            for p in positions
        ]
    ).astype(np.float32)
    pixels, affine = to_regular_grid(stack, positions, AXES, spacing, np.float32("nan"), 5)
    assert len(pixels) == 5
    np.testing.assert_allclose(affine[:3, 0], normal * 5, atol=1e-9)
    assert spacing_of(affine) == pytest.approx((5, 0.8, 0.5))
    inside = np.isfinite(pixels)
    np.testing.assert_allclose(
        pixels[inside], field(points_of(affine, pixels.shape))[inside], atol=1e-3
    )
    assert inside.mean() > (0.3 if tilted else 0.99)
    if not tilted:
        assert pixels.shape == (5, rows, columns)


@given(
    spacing=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4), st.floats(0.5, 4)),
    shape=st.tuples(st.integers(6, 12), st.integers(6, 12), st.integers(6, 12)),
)
def test_resampling_keeps_a_linear_field_and_the_extent(spacing, shape):
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 0.9], [0, 1.1, 0], [2.0, 0, 0]])
    affine[:3, 3] = [-10, 20, 30]
    pixels = field(points_of(affine, shape)).astype(np.float32)
    resampled, moved = resample(pixels, affine, spacing)
    assert spacing_of(moved) == pytest.approx(spacing)
    for axis in range(3):
        old, new = shape[axis] * spacing_of(affine)[axis], resampled.shape[axis] * spacing[axis]
        assert abs(old - new) <= spacing[axis] / 2 + 1e-9
    corner = np.full(3, -0.5)
    np.testing.assert_allclose(
        moved[:3, :3] @ corner + moved[:3, 3], affine[:3, :3] @ corner + affine[:3, 3]
    )
    expected = field(points_of(moved, resampled.shape))
    margin = [
        int(np.ceil(4 * max(s, o) / s)) for s, o in zip(spacing, spacing_of(affine), strict=True)
    ]
    inner = tuple(slice(m, n - m) for m, n in zip(margin, resampled.shape, strict=True))
    np.testing.assert_allclose(resampled[inner], expected[inner], atol=2e-3)


def test_resampling_to_the_same_spacing_changes_nothing():
    pixels = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    affine = np.diag([2.5, 0.7, 0.6, 1.0])
    resampled, moved = resample(pixels, affine, (2.5, 0.7, 0.6))
    np.testing.assert_allclose(resampled, pixels, atol=1e-6)
    np.testing.assert_allclose(moved, affine)


def test_coarser_resampling_averages_what_would_alias():
    stripes = (
        np.tile(np.array([0.0, 1000.0], np.float32), 40)[None, None, :].repeat(3, 0).repeat(3, 1)
    )
    resampled, _ = resample(stripes, np.eye(4), (1.0, 1.0, 4.0))
    np.testing.assert_allclose(resampled[:, :, 3:-3], 500, atol=25)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (-1, 1, 1), (np.nan, 1, 1), (1, 1, np.inf)])
def test_spacings_that_are_no_lengths_are_refused(spacing):
    with raises_code(SpecError, "bad_spacing"):
        resample(np.zeros((2, 2, 2), np.float32), np.eye(4), spacing)


def test_crops_keep_places_and_fill_what_lies_outside():
    pixels = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    box, moved = crop(pixels, affine, (1, -1, 3), (2, 3, 4), -1024.0)
    expected = np.full((2, 3, 4), -1024.0)
    expected[:, 1:, :2] = pixels[1:3, 0:2, 3:5]
    np.testing.assert_array_equal(box, expected)
    np.testing.assert_allclose(moved[:3, 3], [2, -3, 12])
    nowhere, _ = crop(pixels, affine, (9, 0, 0), (1, 1, 1), 5.0)
    assert nowhere.tolist() == [[[5.0]]]

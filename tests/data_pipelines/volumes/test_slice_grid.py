"""The grid over a stack with gaps or uneven steps: its step, its weights and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.volumes.slice_grid import Resampling, modal_step, slice_grid, slice_weights

HOLE = np.array([1.6 * n for n in range(19)] + [211.2 + 1.6 * n for n in range(18)])


@pytest.mark.parametrize(
    ("heights", "step"),
    [
        ([0, 5, 10, 20], 5.0),
        ([0, 2.5, 5, 7.5, 12.5, 17.5], 2.5),
        ([0, 5, 10, 15, 17.5, 20], 5.0),
        ([0, 2.5, 7.5], 2.5),
        ([0, 1.0, 2.01, 3.0, 4.0, 9.0], 1.0),
    ],
)
def test_the_modal_step(heights, step):
    assert modal_step(np.array(heights, float)) == pytest.approx(step, rel=0.01)


def test_a_hole_of_182_mm_is_measured_and_refused():
    grid = slice_grid(HOLE)
    assert len(grid.heights) == 150
    assert grid.interpolated.sum() == 113
    assert (grid.gap_mm, grid.gap_slices) == (pytest.approx(182.4), 113)
    assert grid.refusal(Resampling()) == "gap_too_large"
    assert grid.refusal(Resampling(max_gap_mm=183, max_gap_slices=112)) == "gap_too_large"
    assert grid.refusal(Resampling(max_gap_mm=182, max_gap_slices=113)) == "gap_too_large"
    assert grid.refusal(Resampling(max_gap_mm=183, max_gap_slices=113)) == "too_interpolated"
    limits = Resampling(max_gap_mm=183, max_gap_slices=113, max_interpolated=0.76)
    assert grid.refusal(limits) == ""


def test_many_small_gaps_exceed_the_share():
    every_third_missing = np.array([n for n in range(40) if n % 3 != 2], float)
    grid = slice_grid(every_third_missing)
    assert grid.interpolated_share == pytest.approx(1 / 3, abs=0.03)
    assert grid.refusal(Resampling()) == "too_interpolated"
    assert (
        slice_grid(np.array([n for n in range(40) if n % 9 != 2], float)).refusal(Resampling())
        == ""
    )


def test_the_finest_step_uses_every_slice_and_counts_what_it_invents():
    heights = np.array([0, 2.5, 5, 10, 15, 20, 25.0])
    modal, finest = slice_grid(heights), slice_grid(heights, "finest")
    assert modal.heights.tolist() == [0, 5, 10, 15, 20, 25]
    assert not modal.interpolated.any()
    assert finest.heights.tolist() == [2.5 * n for n in range(11)]
    assert finest.interpolated.sum() == 4


def test_without_gaps_nothing_is_interpolated_and_nothing_changes():
    heights = np.arange(6) * 2.5
    grid = slice_grid(heights)
    assert (grid.gap_mm, grid.gap_slices, grid.interpolated_share) == (0, 0, 0)
    np.testing.assert_array_equal(slice_weights(heights, grid.heights), np.eye(6))


def test_a_tenth_of_a_step_separates_acquired_from_interpolated():
    heights = np.array([0, 1, 2, 3.1, 4.11, 5.0])
    assert slice_grid(heights, 1.0).interpolated.tolist() == [False] * 4 + [True, False]


def test_fine_slices_are_averaged_and_not_skipped():
    heights = np.array([0, 5, 10, 11, 12, 13, 14, 15, 20, 25, 30.0])
    targets = slice_grid(heights, 5.0).heights
    weights = slice_weights(heights, targets)
    assert (weights.sum(axis=0)[2:8] > 0.05).all()
    np.testing.assert_array_equal(weights[0], np.eye(11)[0])
    np.testing.assert_array_equal(weights[-1], np.eye(11)[-1])


@given(
    steps=st.lists(st.sampled_from([1.0, 2.5, 5.0, 7.3]), min_size=2, max_size=12),
    step=st.sampled_from([1.0, 2.5, 5.0]),
)
def test_a_linear_field_is_kept(steps, step):
    heights = np.concatenate([[0.0], np.cumsum(steps)])
    targets = slice_grid(heights, step).heights
    weights = slice_weights(heights, targets)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights @ heights, targets, atol=1e-9)

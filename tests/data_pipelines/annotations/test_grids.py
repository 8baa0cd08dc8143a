"""Grids: all 48 orientations are copied exactly, and what differs is not the same grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from data_pipelines.annotations.grids import TOLERANCE_MM, Grid, Turn

ALL_TURNS = [
    Turn(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def oblique_affine() -> np.ndarray:
    """Three lengths along axes that are turned out of the patient's."""
    angle = 0.3
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.9, 2.5])[:, [2, 1, 0]]
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return affine


@pytest.mark.parametrize("turn", ALL_TURNS, ids=str)
def test_every_orientation_comes_back_exactly(turn: Turn) -> None:
    shape = (3, 4, 5)
    values = np.arange(60, dtype=np.uint8).reshape(shape)
    target = Grid.from_affine(oblique_affine(), shape)
    turned = target.turned(turn)
    assert turned is not None
    stored = turn.apply(values)
    assert turned.shape == stored.shape
    # the center of each voxel is where it was
    affine = turned.affine
    assert affine is not None
    for index in ((0, 0, 0), (1, 2, 1)):
        old = np.argwhere(values == stored[index])[0]
        np.testing.assert_allclose(affine @ (*index, 1), oblique_affine() @ (*old, 1), atol=1e-9)
    back = turned.turn_to(target)
    own = turned.turned(back)
    assert own is not None
    numbers = own.slices_at(target)
    assert numbers is not None
    assert numbers.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(back.apply(stored)[numbers], values)


def test_tolerance_is_a_thousandth_of_a_millimeter() -> None:
    grid = Grid.from_affine(oblique_affine(), (3, 40, 50))
    for shift, same in ((0.9 * TOLERANCE_MM, True), (1.1 * TOLERANCE_MM, False)):
        moved = oblique_affine()
        moved[0, 3] += shift
        numbers = Grid.from_affine(moved, (3, 40, 50)).slices_at(grid)
        assert numbers is not None
        assert (numbers >= 0).all() == same
    wider = oblique_affine()
    wider[:3, 2] *= 1 + 1e-3 / (0.7 * 40)  # more than a thousandth of a mm at the last column
    assert Grid.from_affine(wider, (3, 40, 50)).slices_at(grid) is None


def test_slices_of_a_gap_are_found_one_by_one() -> None:
    grid = Grid.from_affine(oblique_affine(), (6, 4, 4))
    part = Grid(grid.origins[[1, 2, 5]], grid.row_step, grid.column_step, 4, 4)
    assert part.affine is None
    numbers = part.slices_at(grid)
    assert numbers is not None
    assert numbers.tolist() == [-1, 0, 1, -1, -1, 2]
    whole = part.whole_steps()
    assert whole is not None
    assert whole.tolist() == [0, 1, 4]


def test_two_slices_have_an_affine_and_one_has_a_unit_normal_only() -> None:
    affine = oblique_affine()
    two = Grid.from_affine(affine, (2, 4, 5))
    np.testing.assert_allclose(two.affine, affine, atol=1e-12)
    assert Grid.from_affine(affine, (1, 4, 5)).affine is None
    assert np.linalg.norm(two.normal) == pytest.approx(1.0)
    np.testing.assert_allclose(
        two.normal @ np.stack([two.row_step, two.column_step]).T, 0, atol=1e-12
    )

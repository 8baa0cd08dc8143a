"""Masks on other grids: nearest where finer, half a voxel where coarser."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.mask_resampling import changed_share, resample_layers


def grid(spacing: float, size: int) -> Grid:
    """A cube whose edges are at 0."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = spacing / 2
    return Grid.from_affine(affine, (size, size, size))


def affine_of(cube: Grid) -> np.ndarray:
    affine = cube.affine
    assert affine is not None
    return affine


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (1, 6, 6, 6)).astype(np.uint8)


def test_finer_repeats_the_nearest_voxel(labels: np.ndarray) -> None:
    fine = resample_layers(labels, affine_of(grid(2, 6)), grid(1, 12))
    expected = labels.repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(fine, expected)
    assert changed_share(labels, affine_of(grid(2, 6)), fine, grid(1, 12)) == 0


def test_coarser_keeps_a_label_from_one_half_on(labels: np.ndarray) -> None:
    coarse = resample_layers(labels, affine_of(grid(1, 6)), grid(2, 3))
    blocks = labels.reshape(3, 2, 3, 2, 3, 2).transpose(0, 2, 4, 1, 3, 5).reshape(3, 3, 3, 8)
    expected = np.zeros((3, 3, 3), np.uint8)
    for label in (3, 2, 1):
        expected[(blocks == label).sum(axis=-1) >= 4] = label
    np.testing.assert_array_equal(coarse[0], expected)
    share = changed_share(labels, affine_of(grid(1, 6)), coarse, grid(2, 3))
    back = coarse[0].repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    own = labels[0]
    assert share == (back != own).sum() / ((back > 0) | (own > 0)).sum()


def test_outside_of_the_mask_is_background() -> None:
    ones = np.ones((1, 4, 4, 4), np.uint8)
    longer = Grid.from_affine(affine_of(grid(1, 4)), (6, 4, 4))
    placed = resample_layers(ones, affine_of(grid(1, 4)), longer)
    assert placed[0].reshape(6, -1).sum(axis=1).tolist() == [16, 16, 16, 16, 0, 0]

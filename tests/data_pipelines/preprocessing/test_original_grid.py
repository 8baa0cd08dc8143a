from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.annotations.preparation import resize_labels
from data_pipelines.preprocessing.original_grid import restored_labels
from data_pipelines.preprocessing.resize import AxisResize, fit_within


@pytest.mark.parametrize(
    ("sizes", "sides"), [((20, 30), (32, 32)), ((9, 20, 30), (16, 32, 32)), ((16, 16), (16, 16))]
)
def test_a_finer_grid_and_back_is_exact(sizes: tuple, sides: tuple) -> None:
    labels = np.zeros(sizes, np.uint8)
    labels[tuple(slice(s // 4, s // 2) for s in sizes)] = 3
    labels[tuple(slice(s // 2, s - 2) for s in sizes)] = 1
    axes = fit_within(sizes, (1.0,) * len(sizes), sides)
    np.testing.assert_array_equal(restored_labels(resize_labels(labels, axes), axes), labels)


def test_a_coarser_grid_keeps_the_area_of_a_disc() -> None:
    y, x = np.mgrid[:200, :160]
    disc = ((y - 90) ** 2 + (x - 70) ** 2 < 50**2).astype(np.uint8)
    axes = fit_within(disc.shape, (1.0, 1.0), (48, 48))
    back = restored_labels(resize_labels(disc, axes), axes)
    both = np.count_nonzero(back & disc)
    assert 2 * both / (back.sum() + disc.sum()) > 0.98


def test_what_was_cropped_away_is_background() -> None:
    axes = [AxisResize(8, 8, 4), AxisResize(4, 4, 4)]
    back = restored_labels(np.full((4, 4), 2, np.uint8), axes)
    assert back[2:6].all()
    assert not back[:2].any()
    assert not back[6:].any()

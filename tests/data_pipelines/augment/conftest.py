from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.augment import AugmentSpec


@pytest.fixture
def key() -> np.ndarray:
    return np.stack([np.full(6, 987654, np.int32), np.arange(6, dtype=np.int32)], axis=1)


@pytest.fixture
def image() -> np.ndarray:
    """(6, 20, 24, 2), smooth enough that small errors of coordinates are small errors of values."""
    return smooth((6, 20, 24, 2))


@pytest.fixture
def volume() -> np.ndarray:
    return smooth((6, 10, 12, 14, 1))


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(0).random(shape)
    return gaussian_filter(noise, [0, *[0.7] * (len(shape) - 2), 0]).astype(np.float32)


@pytest.fixture
def moving() -> AugmentSpec:
    """Every way of moving an image at once."""
    return AugmentSpec(
        rotation=40,
        zoom=0.3,
        shear=0.2,
        shift=0.1,
        elastic=0.4,
        flip_left_right=True,
        flip_up_down=True,
        fill=-3.0,
    )

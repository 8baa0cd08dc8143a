"""Augmentation of color pictures: saturation, and the padded crop of CIFAR."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from data_pipelines.augment import AugmentSpec, apply, augmentation, draw

N, SIDE = 12, 10
KEYS = np.stack([np.full(N, 3, np.int32), np.arange(N, dtype=np.int32)], axis=1)
PICTURES = np.random.default_rng(0).random((N, SIDE, SIDE, 3)).astype(np.float32)


def test_saturation_moves_the_channels_away_from_their_mean() -> None:
    spec = AugmentSpec(units="rgb", saturation=0.4)
    params = draw(KEYS, spec)
    factor = 1 + np.asarray(params["saturation"])[:, 0].reshape(-1, 1, 1, 1)
    mean = PICTURES.mean(-1, keepdims=True)
    expected = np.clip(mean + factor * (PICTURES - mean), 0, 1)
    np.testing.assert_allclose(apply(PICTURES, params, spec), expected, atol=1e-5)
    assert factor.min() < 0.9 < 1.1 < factor.max()


def test_saturation_is_for_color() -> None:
    with pytest.raises(ValidationError):
        AugmentSpec(units="display", saturation=0.1)


def test_the_padded_crop_is_a_shift_by_whole_pixels() -> None:
    spec = AugmentSpec(units="rgb", pad=2)
    params = draw(KEYS, spec)
    shifts = np.asarray(params["pad"])
    padded = np.pad(PICTURES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    result = np.asarray(apply(PICTURES, params, spec))
    for picture, (down, right), moved in zip(padded, shifts.astype(int), result, strict=True):
        top, left = 2 - down, 2 - right
        np.testing.assert_allclose(moved, picture[top : top + SIDE, left : left + SIDE], atol=1e-6)
    many = np.stack([np.full(4000, 1, np.int32), np.arange(4000, dtype=np.int32)], axis=1)
    counts = np.unique(np.asarray(draw(many, spec)["pad"]), return_counts=True)
    assert counts[0].tolist() == [-2, -1, 0, 1, 2]
    assert np.abs(counts[1] / 8000 - 0.2).max() < 0.02


def test_cifar_is_the_augmentation_of_the_paper() -> None:
    spec = augmentation("cifar", "rgb")
    assert (spec.pad, spec.flip_left_right, spec.fill) == (4, True, 0)
    assert {*draw(KEYS, spec)} == {"pad", "flip", "key"}

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.ingestion.near_duplicates import near_duplicates
from data_pipelines.ingestion.perceptual_hash import perceptual_hash


def near_duplicate_pairs(hashes: list[str], owners: np.ndarray) -> list[tuple[int, int, float]]:
    return near_duplicates(hashes, owners, show=1000).nearest


def smooth(seed: int, side: int = 96) -> np.ndarray:
    """An image of a few soft blobs, 0 to 255."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 9)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray) -> np.ndarray:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=50)
    return np.asarray(Image.open(data))


def marked(pixels: np.ndarray) -> np.ndarray:
    return np.where(np.arange(96)[:, None] + np.arange(96) < 14, 255, pixels)


SAME = {
    "jpeg": jpeg,
    "half": lambda p: np.asarray(Image.fromarray(p).resize((48, 48), Image.Resampling.BILINEAR)),
    "gamma": lambda p: 255 * (p / 255) ** 0.6,
    "sixteen bits": lambda p: p.astype(np.uint16) * 257,
    "a mark": marked,
}


@pytest.mark.parametrize("change", SAME)
def test_a_copy_of_other_make_is_near_and_its_like_are_not(change: str) -> None:
    images = [smooth(n) for n in range(40)]
    hashes = [perceptual_hash(p) for p in [*images, *map(SAME[change], images)]]
    pairs = near_duplicate_pairs(hashes, np.arange(80))
    assert sorted((i, j) for i, j, _ in pairs) == [(n, n + 40) for n in range(40)]


def test_a_large_picture_is_near_its_small_self() -> None:
    large, small = smooth(3, 1100), smooth(3, 200)
    assert (
        len(near_duplicate_pairs([perceptual_hash(large), perceptual_hash(small)], np.arange(2)))
        == 1
    )


def test_flat_pictures_are_like_nothing_and_tiny_ones_have_a_hash() -> None:
    flat = perceptual_hash(np.zeros((40, 40)))
    assert near_duplicate_pairs([flat, flat], np.arange(2)) == []
    assert near_duplicate_pairs([], np.arange(0)) == []
    assert len(perceptual_hash(np.arange(12.0).reshape(3, 4))) == 128

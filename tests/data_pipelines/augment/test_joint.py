from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.augment import AugmentSpec, draw
from data_pipelines.augment.joint import IGNORED, aimed, apply_to_pair, compiled_pair


def keys(count: int, epoch: int = 3) -> np.ndarray:
    return np.stack([np.full(count, epoch), np.arange(count)], axis=1).astype(np.int32)


def pair(count: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An image that is 1 where the label map is 2, else 0."""
    mask = np.zeros((count, *shape), np.int32)
    mask[(slice(None), *(slice(side // 4, side // 2) for side in shape))] = 2
    return (mask > 0).astype(np.float32)[..., None], mask


@pytest.mark.parametrize("shape", [(24, 20), (12, 16, 20)])
def test_one_draw_moves_image_and_mask(shape: tuple[int, ...]) -> None:
    image, mask = pair(4, shape)
    spec = AugmentSpec(
        rotation=30, zoom=0.1, shift=0.1, elastic=0.1, flip_left_right=True, interpolation="nearest"
    )
    params = draw(keys(4), spec, len(shape))
    moved, labels = map(np.asarray, apply_to_pair(image, mask, params, spec))
    assert not np.array_equal(labels, mask)
    # with the same interpolation, the image is 1 exactly where the label is 2
    np.testing.assert_array_equal(moved[..., 0], (labels == 2).astype(np.float32))
    assert set(np.unique(labels)) == {IGNORED, 0, 2}


def test_gray_values_change_the_image_alone() -> None:
    image, mask = pair(3, (16, 16))
    spec = AugmentSpec(offset=0.2, noise=0.1, blur=2.0, cutout=0.4, share=1.0)
    moved, labels = map(np.asarray, apply_to_pair(image, mask, draw(keys(3), spec), spec))
    np.testing.assert_array_equal(labels, mask)
    assert np.abs(moved - image).max() > 0.1


@pytest.mark.parametrize(
    ("share", "low", "high"), [(1.0, 1.0, 1.0), (0.5, 0.45, 0.75), (0.0, 0, 0.3)]
)
def test_patches_hold_foreground_in_the_stated_share(share: float, low: float, high: float) -> None:
    mask = np.zeros((200, 32, 32), np.int32)
    mask[:, 20:23, 5:8] = 1
    image = mask[..., None].astype(np.float32)
    spec = AugmentSpec(crop=(8, 8))
    patches, labels = map(np.asarray, compiled_pair(spec, share)(image, mask, keys(200)))
    assert patches.shape == (200, 8, 8, 1)
    assert labels.shape == (200, 8, 8)
    np.testing.assert_array_equal(patches[..., 0], labels)
    assert low <= np.mean((labels == 1).any(axis=(1, 2))) <= high


def test_a_patch_is_a_function_of_key_and_mask() -> None:
    _, mask = pair(6, (20, 20, 20))
    spec = AugmentSpec(crop=(8, 8, 8), rotation=20)
    params = draw(keys(6), spec, 3)
    first = np.asarray(aimed(mask, params, spec, 1.0)["crop"])
    alone = np.asarray(aimed(mask[2:3], draw(keys(6)[2:3], spec, 3), spec, 1.0)["crop"])
    np.testing.assert_array_equal(first[2:3], alone)
    assert not np.array_equal(
        first, np.asarray(aimed(mask, draw(keys(6, 4), spec, 3), spec, 1.0)["crop"])
    )
    empty = np.zeros_like(mask)
    np.testing.assert_array_equal(
        np.asarray(aimed(empty, params, spec, 1.0)["crop"]), np.asarray(params["crop"])
    )

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.augment import AugmentSpec, draw
from data_pipelines.augment.joint import (
    IGNORED,
    IGNORED_BOX,
    NO_BOX,
    aimed,
    apply_to_boxes,
    apply_to_pair,
    compiled_boxes,
    compiled_pair,
)


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


def boxed(count: int, side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """An image that is 1 inside of its box, and lines of boxes: one box, and two of padding."""
    image = np.zeros((count, side, side, 1), np.float32)
    image[:, 4:10, 6:16] = 1
    lines = np.full((count, 3, 5), -1, np.float32)
    lines[:, 0] = (6, 4, 16, 10, 2)
    return image, lines


def test_boxes_move_with_their_image() -> None:
    image, lines = boxed(6)
    spec = AugmentSpec(
        zoom=0.2, shift=0.1, flip_left_right=True, flip_up_down=True, interpolation="nearest"
    )
    moved, boxes = map(np.asarray, apply_to_boxes(image, lines, draw(keys(6), spec), spec))
    assert not np.array_equal(boxes, lines)
    for picture, (box, *rest) in zip(moved[..., 0] > 0.5, boxes, strict=True):
        y, x = np.nonzero(picture)
        hull = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        np.testing.assert_allclose(box[:4], hull, atol=0.6)  # pixels of the nearest value
        assert box[4] == 2
        np.testing.assert_array_equal(rest, np.full((2, 5), NO_BOX))


def test_a_box_that_is_mostly_outside_is_ignored_and_one_outside_is_none() -> None:
    image, _ = boxed(1)
    lines = np.array([[[20, 8, 24, 12, 0], [14, 8, 20, 12, 1], [0, 8, 4, 12, -2]]], np.float32)
    spec = AugmentSpec(shift=0.25)
    params = {"key": keys(1), "shift": np.array([[0.0, 0.2]], np.float32)}  # 4.8 px to the right
    _, boxes = apply_to_boxes(image, lines, params, spec)
    outside, cut, ignored = np.asarray(boxes)[0]
    np.testing.assert_array_equal(outside, np.full(5, NO_BOX))
    np.testing.assert_allclose(cut, [18.8, 8, 24, 12, 1], atol=1e-4)
    np.testing.assert_allclose(ignored, [4.8, 8, 8.8, 12, IGNORED_BOX], atol=1e-4)
    _, boxes = apply_to_boxes(image, lines, params, spec, min_visible=0.9)
    np.testing.assert_allclose(np.asarray(boxes)[0, 1], [18.8, 8, 24, 12, IGNORED_BOX], atol=1e-4)


def test_an_image_without_any_line_and_gray_values_alone() -> None:
    image, lines = boxed(2)
    none = lines[:, :0]
    spec = AugmentSpec(rotation=20, offset=0.1)
    _, boxes = apply_to_boxes(image, none, draw(keys(2), spec), spec)
    assert np.asarray(boxes).shape == (2, 0, 5)
    gray = AugmentSpec(offset=0.1)
    moved, boxes = apply_to_boxes(image, lines, draw(keys(2), gray), gray)
    np.testing.assert_array_equal(boxes, lines)
    assert not np.array_equal(np.asarray(moved), image)


def test_compiled_boxes_are_equal_to_those_that_are_not() -> None:
    image, lines = boxed(3)
    spec = AugmentSpec(zoom=0.2, shift=0.1, flip_left_right=True)
    expected = apply_to_boxes(image, lines, draw(keys(3), spec), spec)
    for a, b in zip(compiled_boxes(spec)(image, lines, keys(3)), expected, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-4)


def test_constants_of_boxes_are_the_same_everywhere() -> None:
    from data_pipelines.annotations.boxes import padding
    from medres.losses import boxes

    assert (padding.PADDING, padding.IGNORED) == (NO_BOX, IGNORED_BOX)
    assert (boxes.PADDING, boxes.IGNORED) == (NO_BOX, IGNORED_BOX)

"""Half-open boxes move with their image: against masks that are drawn and warped."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines.augment import AugmentSpec, draw, move_boxes, move_edge_boxes, warp_mask

SHAPE = (40, 44)
KEYS = np.stack([np.full(24, 7), np.arange(24)], axis=1).astype(np.int32)
BOX = (12, 15, 21, 30)
SPECS = {
    "flips": AugmentSpec(flip_left_right=True, flip_up_down=True),
    "shift": AugmentSpec(shift=0.2),
    "crop": AugmentSpec(crop=(24, 24)),
    "zoom": AugmentSpec(zoom=0.3),
    "turn": AugmentSpec(rotation=25, zoom=0.2, shear=0.1, shift=0.1),
    "bend": AugmentSpec(elastic=0.25, rotation=10),
    "all": AugmentSpec(
        **{"rotation": 15, "zoom": 0.2, "shift": 0.1, "elastic": 0.1, "flip_up_down": True},
        crop=(30, 36),
    ),
}


def drawn_mask(box: tuple[int, ...] = BOX) -> np.ndarray:
    mask = np.zeros((len(KEYS), *SHAPE, 1), np.uint8)
    mask[:, box[0] : box[2], box[1] : box[3]] = 1
    return mask


def moved(spec: AugmentSpec, box: tuple[float, ...] = BOX, **options: float):
    boxes = np.tile(np.array(box, np.float32), (len(KEYS), 1, 1))
    edges, visible = move_edge_boxes(boxes, draw(KEYS, spec), spec, SHAPE, **options)
    return np.asarray(edges)[:, 0], np.asarray(visible)[:, 0]


@pytest.mark.parametrize("name", SPECS)
def test_a_moved_box_is_the_box_of_the_moved_mask(name: str) -> None:
    """To a pixel: the nearest pixel is at most half a pixel away at each edge; corners of turned
    boxes are cut by the pixels.
    """
    spec = SPECS[name]
    masks = np.asarray(warp_mask(drawn_mask(), draw(KEYS, spec), spec))[..., 0]
    edges, visible = moved(spec, min_visible=0.0)
    compared = 0
    for mask, (top, left, bottom, right), is_visible in zip(masks, edges, visible, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            compared += 1
            want = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
            tolerance = 0.51 if name in ("flips", "shift", "crop", "zoom") else 1.75
            assert np.abs(np.array([top, left, bottom, right]) - want).max() <= tolerance
            assert is_visible
    assert compared > 15


def test_flips_and_crops_are_exact() -> None:
    """Whole pixels stay whole: no half pixel is added or lost."""
    for name in ("flips", "crop"):
        spec = SPECS[name]
        masks = np.asarray(warp_mask(drawn_mask(), draw(KEYS, spec), spec))[..., 0]
        edges, visible = moved(spec, min_visible=0.0)
        for mask, box, is_visible in zip(masks, edges, visible, strict=True):
            rows, columns = np.nonzero(mask)
            assert is_visible == bool(len(rows))
            if is_visible:
                want = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
                np.testing.assert_allclose(box, want, atol=1e-4)


@pytest.mark.parametrize("min_visible", [0.25, 0.6])
def test_a_box_is_kept_while_enough_of_it_is_inside(min_visible: float) -> None:
    """The share of the mask's pixels that are still there decides, and boxes stay in the image."""
    spec = AugmentSpec(crop=(14, 14))
    masks = np.asarray(warp_mask(drawn_mask(), draw(KEYS, spec), spec))[..., 0]
    edges, visible = moved(spec, min_visible=min_visible)
    shares = masks.sum(axis=(1, 2)) / drawn_mask()[0].sum()
    np.testing.assert_array_equal(visible, (shares >= min_visible) & (shares > 0))
    assert 0 < visible.sum() < len(visible)
    assert edges.min() >= 0
    assert edges.max() <= 14


def test_a_box_that_has_left_is_not_visible() -> None:
    spec = AugmentSpec(shift=0.2)
    parameters = {"key": KEYS, "shift": np.full((len(KEYS), 2), 0.9, np.float32)}
    boxes = np.tile(np.array(BOX, np.float32), (len(KEYS), 1, 1))
    edges, visible = move_edge_boxes(boxes, parameters, spec, SHAPE, min_visible=0.0)
    assert not np.asarray(visible).any()
    assert np.asarray(edges).max() <= max(SHAPE)


@pytest.mark.parametrize("spec", [SPECS["turn"], SPECS["bend"], AugmentSpec()])
def test_an_image_without_boxes(spec: AugmentSpec) -> None:
    none = np.zeros((len(KEYS), 0, 4), np.float32)
    parameters = draw(KEYS, spec)
    edges, visible = move_edge_boxes(none, parameters, spec, SHAPE)
    assert (tuple(edges.shape), tuple(visible.shape)) == ((len(KEYS), 0, 4), (len(KEYS), 0))
    assert tuple(move_boxes(none, parameters, spec, SHAPE).shape) == (len(KEYS), 0, 4)


def test_any_number_of_boxes_in_a_compiled_graph() -> None:
    spec = SPECS["shift"]

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec((None, None, 4), tf.float32),
            tf.TensorSpec((None, 2), tf.int32),
        ],
    )
    def step(boxes, keys):
        return move_edge_boxes(boxes, draw(keys, spec), spec, SHAPE)

    for count in (0, 3):
        boxes = np.tile(np.array(BOX, np.float32), (len(KEYS), count, 1))
        edges, visible = step(boxes, KEYS)
        want, _ = move_edge_boxes(boxes, draw(KEYS, spec), spec, SHAPE)
        assert tuple(visible.shape) == (len(KEYS), count)
        np.testing.assert_allclose(edges, want, atol=1e-3)


def test_boxes_of_volumes() -> None:
    spec, shape = AugmentSpec(crop=(6, 10, 12), flip_up_down=True), (10, 16, 20)
    box = (2, 3, 5, 7, 9, 13)
    mask = np.zeros((len(KEYS), *shape, 1), np.uint8)
    mask[:, box[0] : box[3], box[1] : box[4], box[2] : box[5]] = 1
    parameters = draw(KEYS, spec, 3)
    masks = np.asarray(warp_mask(mask, parameters, spec))[..., 0]
    boxes = np.tile(np.array(box, np.float32), (len(KEYS), 1, 1))
    edges, _ = move_edge_boxes(boxes, parameters, spec, shape)
    for voxels, edge in zip(masks, np.asarray(edges)[:, 0], strict=True):
        index = np.argwhere(voxels)
        np.testing.assert_allclose(edge, [*index.min(axis=0), *index.max(axis=0) + 1], atol=1e-4)

from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code

from medres.detection import DecodingSettings, Detections, decode
from medres.detection.decoding import suppress
from medres.detection.settings import positions
from medres.errors import ModelError

SETTINGS = DecodingSettings((32, 48), (8, 16))  # 4 x 6 and 2 x 3 positions


def raw_maps(settings: DecodingSettings, classes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (settings.n_positions, 2 * settings.rank)
    sides = rng.uniform(1.0, 20.0, shape)
    logits = rng.normal(0.0, 2.0, (settings.n_positions, 1 + classes))
    return np.concatenate([sides, logits], axis=1).astype(np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes, axis by axis."""
    rank = len(a) // 2
    shared = first = second = 1.0
    for axis in range(rank):
        shared *= max(0.0, min(a[rank + axis], b[rank + axis]) - max(a[axis], b[axis]))
        first *= a[rank + axis] - a[axis]
        second *= b[rank + axis] - b[axis]
    return shared / (first + second - shared)


def slowly_suppressed(corners: np.ndarray, labels: np.ndarray, iou: float, most: int) -> list[int]:
    kept: list[int] = []
    for i in range(len(corners)):
        rivals = [j for j in kept if labels[j] == labels[i]]
        if all(overlap(corners[i], corners[j]) <= iou for j in rivals):
            kept.append(i)
    return kept[:most]


def slowly_decoded(raw: np.ndarray, settings: DecodingSettings) -> Detections:
    """By definition: position by position and class by class."""
    rank, found = settings.rank, []
    centers = np.concatenate(positions(settings.input_size, settings.strides))
    for center, row in zip(centers, raw.astype(float), strict=True):
        for label, logit in enumerate(row[2 * rank + 1 :]):
            score = 1 / np.sqrt((1 + np.exp(-logit)) * (1 + np.exp(-row[2 * rank])))
            if score >= settings.score_threshold:
                box = [*(center - row[:rank]), *(center + row[rank : 2 * rank])]
                size = settings.input_size[::-1] * 2
                clipped = np.clip(box, 0, size)
                found.append((score, clipped, label))
    found.sort(key=lambda item: -item[0])
    found = found[: settings.candidates]
    found = [item for item in found if (item[1][rank:] > item[1][:rank]).all()]
    scores, corners, labels = (np.array(column) for column in zip(*found, strict=True))
    kept = slowly_suppressed(corners, labels, settings.nms_iou, settings.most)
    return Detections(corners[kept], scores[kept], labels[kept])


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        DecodingSettings((30, 41), (8, 16), score_threshold=0.5, nms_iou=0.2),
        DecodingSettings((32, 48), (8,), nms_iou=1.0, candidates=15, most=9),
        DecodingSettings((32, 48), (8,), score_threshold=0.0, nms_iou=0.0, most=4),
        DecodingSettings((16, 24, 20), (8, 16), nms_iou=0.3),
    ],
)
def test_equal_to_a_slow_version(settings: DecodingSettings) -> None:
    raw = raw_maps(settings, 3)
    ours, slow = decode(raw, settings), slowly_decoded(raw, settings)
    assert 0 < len(ours) <= settings.most
    np.testing.assert_allclose(ours.corners, slow.corners, atol=1e-4)
    np.testing.assert_allclose(ours.scores, slow.scores, atol=1e-6)
    np.testing.assert_array_equal(ours.labels, slow.labels)


def test_many_clusters_of_boxes_against_the_slow_suppression() -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 6, (400, 2)) * 10 + rng.normal(0, 2, (400, 2))
    corners = np.concatenate([low, low + rng.uniform(8, 12, (400, 2))], 1).astype(np.float32)
    labels = rng.integers(0, 3, 400)
    for iou in (0.1, 0.5, 0.9):
        kept = suppress(corners, labels, iou, 400)
        assert kept.tolist() == slowly_suppressed(corners, labels, iou, 400)
        assert 36 <= len(kept) < 400


def test_a_box_by_hand() -> None:
    raw = np.full((30, 7), -20.0, np.float32)
    raw[:, :4] = 1.0
    raw[7] = [5, 3, 6, 4, 0.0, -20, 1.0]  # the second of the second row: x 12, y 12
    raw[24] = [9, 2, 9, 2, 20.0, 20.0, -20]  # the first of stride 16: x 8, y 8
    found = decode(raw, SETTINGS)
    assert found.corners.tolist() == [[0, 6, 17, 10], [7, 9, 18, 16]]  # clipped at 0
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [1.0, np.sqrt(0.5 / (1 + np.exp(-1)))], rtol=1e-6)
    first, second = found
    assert (first[1:], second[2]) == ((1.0, 0), 1)


def test_boxes_of_other_classes_and_twins_at_the_limit_stay() -> None:
    raw = np.full((30, 7), -20.0, np.float32)
    raw[:, :4] = 1.0
    raw[0] = [4, 4, 4, 4, 20, 5, 4]  # 8 x 8 at the origin, of both classes
    raw[1] = [8, 4, 0, 4, 20, 3, -20]  # from x 4 to 12: half of it is shared
    labels = decode(raw, SETTINGS).labels.tolist()
    assert labels == [0, 1, 0]
    third = DecodingSettings((32, 48), (8, 16), nms_iou=1 / 3)
    assert decode(raw, third).labels.tolist() == [0, 1, 0]
    below = DecodingSettings((32, 48), (8, 16), nms_iou=0.33)
    assert decode(raw, below).labels.tolist() == [0, 1]


def test_positions_outside_the_image_give_no_box() -> None:
    """An image of 8 x 8 in a map for 16 x 16."""
    settings = DecodingSettings((8, 8), (8, 16), nms_iou=1.0)
    raw = np.full((5, 6), 9.0, np.float32)
    raw[:, :4] = 2.0
    found = decode(raw, settings)  # at (4, 4), and the half at (8, 8) that lies within
    assert found.corners.tolist() == [[2, 2, 6, 6], [6, 6, 8, 8]]
    raw[:, :4] = 4.5  # those at 12 now begin at 7.5
    assert len(decode(raw, settings)) == 5


def test_none_and_batches() -> None:
    raw = np.stack([raw_maps(SETTINGS, 1), np.full((30, 6), -9.0)])
    found = decode(raw, SETTINGS)
    assert isinstance(found, list)
    assert len(found[0]) > 0
    assert (found[1].corners.shape, len(found[1])) == ((0, 4), 0)
    np.testing.assert_array_equal(found[0].corners, decode(raw[0], SETTINGS).corners)
    assert decode(raw[:0], SETTINGS) == []


@pytest.mark.parametrize(
    ("code", "raw"),
    [
        ("raw_shape", np.zeros((29, 7))),
        ("raw_shape", np.zeros((30, 5))),
        ("raw_shape", np.zeros(30)),
        ("non_finite", np.full((30, 7), np.nan)),
        ("non_finite", np.full((30, 7), np.inf)),
    ],
)
def test_raw_maps_that_do_not_fit_are_refused(code: str, raw: np.ndarray) -> None:
    with raises_code(ModelError, code):
        decode(raw, SETTINGS)


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("input_shape", {"input_size": (32, 0)}),
        ("input_shape", {"input_size": (32, None)}),
        ("input_shape", {"strides": ()}),
        ("out_of_range", {"strides": (16, 8)}),
        ("out_of_range", {"strides": (8, 8)}),
        ("out_of_range", {"score_threshold": 1.5}),
        ("out_of_range", {"nms_iou": float("nan")}),
        ("out_of_range", {"most": 0}),
        ("out_of_range", {"candidates": True}),
    ],
)
def test_settings_are_checked(code: str, options: dict) -> None:
    with raises_code(ModelError, code):
        DecodingSettings(**({"input_size": (32, 32), "strides": (8,)} | options))

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

from medres.detection.settings import positions
from medres.errors import TrainingError
from medres.losses import DetectionLoss
from medres.losses.boxes import assign, grid

SIZE, STRIDES = (32, 48), (4, 8)


def slow_targets(
    boxes: np.ndarray, size: tuple[int, ...], strides: tuple[int, ...], radius: float, side: float
) -> list[tuple[int, list[float] | None, float]]:
    """(label, corners, centerness) of each position of one image, by definition."""
    rank, result = len(size), []
    for number, (stride, centers) in enumerate(zip(strides, positions(size, strides), strict=True)):
        low_limit = 0.0 if number == 0 else side * strides[number - 1]
        high_limit = np.inf if number == len(strides) - 1 else side * stride
        for center in centers.tolist():
            best: tuple[float, int, list[float]] | None = None
            ignored = False
            for *corners, label in boxes.tolist():
                low, high = corners[:rank], corners[rank:]
                sides = [b - a for a, b in zip(low, high, strict=True)]
                if min(sides) <= 0:
                    continue
                offsets = [p - (a + b) / 2 for p, a, b in zip(center, low, high, strict=True)]
                inside = all(a < p < b for p, a, b in zip(center, low, high, strict=True))
                ignored |= inside and label == -2
                near = inside and all(abs(o) < radius * stride for o in offsets)
                nearest = all(-stride / 2 <= o < stride / 2 for o in offsets)
                volume = float(np.prod(sides))
                if (
                    label >= 0
                    and (near or nearest)
                    and low_limit < max(sides) <= high_limit
                    and (best is None or volume < best[0])
                ):
                    best = volume, int(label), corners
            if best is None:
                result.append((-2 if ignored else -1, None, 0.0))
            else:
                corners = best[2]
                ratio = 1.0
                for p, a, b in zip(center, corners[:rank], corners[rank:], strict=True):
                    pair = max(p - a, stride / 4), max(b - p, stride / 4)
                    ratio *= min(pair) / max(pair)
                result.append((best[1], corners, ratio ** (1 / rank)))
    return result


def slow_loss(boxes: np.ndarray, raw: np.ndarray, loss: DetectionLoss) -> float:
    """The loss of a batch: plain Python in double precision."""
    size, strides, options = loss.input_size, loss.strides, loss.numbers
    rank = len(size)
    centers = np.concatenate(positions(size, strides)).tolist()
    focal = giou = center_loss = weight = 0.0
    count = 0
    for rows, image in zip(boxes, raw.astype(float), strict=True):
        targets = slow_targets(rows, size, strides, options["radius"], options["longest_side"])
        for (label, corners, centerness), center, values in zip(
            targets, centers, image.tolist(), strict=True
        ):
            if label != -2:
                for i, logit in enumerate(values[2 * rank + 1 :]):
                    p = 1 / (1 + np.exp(-logit))
                    right = p if i == label else 1 - p
                    balance = options["alpha"] if i == label else 1 - options["alpha"]
                    focal -= balance * (1 - right) ** options["gamma"] * np.log(right)
            if corners is None:
                continue
            count, weight = count + 1, weight + centerness
            p = 1 / (1 + np.exp(-values[2 * rank]))
            center_loss -= centerness * np.log(p) + (1 - centerness) * np.log(1 - p)
            shared = hull = predicted = true = 1.0
            for axis in range(rank):
                low, high = center[axis] - values[axis], center[axis] + values[rank + axis]
                a, b = corners[axis], corners[rank + axis]
                shared *= max(0.0, min(b, high) - max(a, low))
                hull *= max(b, high) - min(a, low)
                predicted, true = predicted * (high - low), true * (b - a)
            union = predicted + true - shared
            giou += centerness * (1 - shared / union + (hull - union) / hull)
    terms = focal / max(1, count), giou / max(1.0, weight), center_loss / max(1, count)
    return sum(t * options[k] for t, k in zip(terms, ("focal", "giou", "centerness"), strict=True))


def random_boxes(size: tuple[int, ...], seed: int) -> np.ndarray:
    """Two images of seven rows: boxes of all sizes, one to ignore, one without area, padding."""
    rng = np.random.default_rng(seed)
    ends = np.array(size[::-1])
    boxes = np.full((2, 7, 2 * len(size) + 1), -1.0, np.float32)
    for image, row in itertools.product(range(2), range(6)):
        middle = rng.uniform(0.1, 0.9, len(size)) * ends
        half = rng.uniform(0.02, 0.3, len(size)) * ends
        box = [*np.maximum(middle - half, 0), *np.minimum(middle + half, ends)]
        boxes[image, row] = [*box, rng.integers(0, 2)]
    boxes[:, 2, -1] = -2
    boxes[:, 4, 0] = boxes[:, 4, len(size)]
    return boxes


def random_raw(size: tuple[int, ...], strides: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count, rank = sum(map(len, positions(size, strides))), len(size)
    raw = rng.normal(0, 2, (2, count, 2 * rank + 3))
    raw[..., : 2 * rank] = rng.uniform(0.5, 12, raw[..., : 2 * rank].shape)
    return raw.astype(np.float32)


CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, float]]] = [
    (SIZE, STRIDES, {"longest_side": 3.0}),
    ((30, 45), (4, 8, 16), {"radius": 2.5, "gamma": 1.0, "alpha": 0.4, "longest_side": 2.0}),
    ((16, 24, 20), (4, 8), {"longest_side": 1.5, "giou": 2.0, "centerness": 0.5, "focal": 3.0}),
]


@pytest.mark.parametrize(("size", "strides", "options"), CASES)
def test_equal_to_a_slow_version(
    size: tuple[int, ...], strides: tuple[int, ...], options: dict[str, float]
) -> None:
    loss, labels = DetectionLoss(size, strides, **options), set()
    for seed in range(2):
        boxes, raw = random_boxes(size, seed), random_raw(size, strides, seed)
        where = grid(size, strides, loss.numbers["longest_side"])
        targets = [np.asarray(t) for t in assign(boxes, where, loss.numbers["radius"])]
        for image in range(2):
            slow = slow_targets(
                boxes[image], size, strides, loss.numbers["radius"], loss.numbers["longest_side"]
            )
            assert targets[0][image].tolist() == [label for label, _, _ in slow]
            np.testing.assert_allclose(targets[2][image], [c for _, _, c in slow], atol=1e-5)
        labels |= set(targets[0].ravel().tolist())
        assert float(loss(boxes, raw)) == pytest.approx(slow_loss(boxes, raw, loss), rel=1e-4)
    assert labels == {-2, -1, 0, 1}


def test_a_box_of_any_size_has_a_position() -> None:
    """Also one that lies between the positions, and one at the corner of the image."""
    for box in (
        [5.1, 5.1, 5.4, 6.0],
        [0, 0, 1, 1],
        [47, 31, 48, 32],
        [0, 0, 48, 32],
        [8, 0, 9, 32],
    ):
        labels = assign([[[*map(float, box), 1.0]]], grid(SIZE, STRIDES, 8.0), 1.5).label
        assert (np.asarray(labels) == 1).any(), box


def test_a_perfect_answer_costs_next_to_nothing() -> None:
    box = np.array([[[8, 8, 24, 24, 1]]], np.float32)
    where = grid(SIZE, STRIDES, 8.0)
    targets = assign(box, where, 1.5)
    raw = np.full((1, len(where.centers), 7), -30.0, np.float32)
    corners = np.asarray(targets.corners)
    raw[..., :2] = where.centers - corners[..., :2]
    raw[..., 2:4] = corners[..., 2:] - where.centers
    label = np.asarray(targets.label)
    raw[label == 1, 6] = 30.0
    centerness = np.asarray(targets.centerness)
    with np.errstate(divide="ignore"):
        raw[..., 4] = np.clip(np.log(centerness) - np.log1p(-centerness), -30, 30)
    terms = DetectionLoss(SIZE, STRIDES).terms(box, raw)
    assert float(terms["focal"][0]) < 1e-6
    assert float(terms["giou"][0]) < 1e-5
    assert (label == 1).sum() == 4  # of stride 4: 2 pixels from the center; the next are 6 away


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_batch_without_boxes_is_finite(rows: int) -> None:
    boxes = np.full((2, rows, 5), -1, np.float32)
    raw = tf.constant(random_raw(SIZE, STRIDES, 0))
    loss = DetectionLoss(SIZE, STRIDES)
    with tf.GradientTape() as tape:
        tape.watch(raw)
        value = loss(boxes, raw)
    gradient = np.asarray(tape.gradient(value, raw))
    assert np.isfinite(value)
    assert float(value) > 0
    assert np.isfinite(gradient).all()
    assert (gradient[..., :5] == 0).all()
    assert (gradient[..., 5:] > 0).all()


def test_nothing_is_judged_in_a_region_to_ignore_but_the_boxes_in_it() -> None:
    whole = [0, 0, 48, 32, -2]
    raw = random_raw(SIZE, STRIDES, 0)
    loss = DetectionLoss(SIZE, STRIDES)
    assert float(loss(np.array([[whole]] * 2, np.float32), raw)) == 0.0
    boxes = np.array([[whole, [8, 8, 24, 24, 1]]] * 2, np.float32)
    assert float(loss(boxes, raw)) == pytest.approx(slow_loss(boxes, raw, loss), rel=1e-4)


def test_extreme_values_and_half_precision_stay_finite() -> None:
    boxes = random_boxes(SIZE, 0)
    raw = random_raw(SIZE, STRIDES, 0).astype(np.float16)
    raw[0, :, :4], raw[1, :, :4], raw[..., 4:] = 60000, 0, 30000
    value = tf.constant(raw)
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = DetectionLoss(SIZE, STRIDES, dtype="float32")(boxes, value)
    assert np.isfinite(float(total))
    assert np.isfinite(np.asarray(tape.gradient(total, value))).all()
    huge = random_raw(SIZE, STRIDES, 0)
    huge[..., :4] = 1e30
    assert np.isfinite(float(DetectionLoss(SIZE, STRIDES)(boxes, huge)))


def test_an_unknown_class_is_reported_as_nan() -> None:
    boxes = np.array([[[8, 8, 24, 24, 2]]] * 2, np.float32)
    assert np.isnan(float(DetectionLoss(SIZE, STRIDES)(boxes, random_raw(SIZE, STRIDES, 0))))


def test_the_same_with_xla() -> None:
    loss = DetectionLoss(SIZE, STRIDES, longest_side=3.0)
    boxes, raw = random_boxes(SIZE, 0), tf.constant(random_raw(SIZE, STRIDES, 0))

    def run(jit: bool) -> list[np.ndarray]:
        @tf.function(jit_compile=jit)
        def both(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(boxes, x)
            return value, tape.gradient(value, x)

        return [np.asarray(t) for t in both(raw)]

    for plain, compiled in zip(run(False), run(True), strict=True):
        np.testing.assert_allclose(plain, compiled, rtol=1e-4, atol=1e-6)


def test_options_survive_saving_and_are_checked() -> None:
    loss = DetectionLoss(SIZE, STRIDES, alpha=0.4, radius=2.0)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    boxes, raw = random_boxes(SIZE, 0), random_raw(SIZE, STRIDES, 0)
    assert float(again(boxes, raw)) == float(loss(boxes, raw))
    weighted = loss(boxes, raw, sample_weight=np.array([2.0, 0.0], np.float32))
    assert float(weighted) == pytest.approx(float(loss.call(boxes, raw)[0]), rel=1e-5)
    for options in ({"alpha": 1.5}, {"gamma": -1.0}, {"radius": float("nan")}):
        with raises_code(TrainingError, "out_of_range"):
            DetectionLoss(SIZE, STRIDES, **options)

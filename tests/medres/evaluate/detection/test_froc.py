"""FROC against a slow obvious version and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_boxes import made_boxes, one_class, reference_of

from medres.evaluate.detection.coco import read_predictions, read_reference
from medres.evaluate.detection.froc import Marks, match_marks

RATES = np.array([0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0])


def marks_of(reference: Any, predictions: Any, rule: str = "center", category: int = 0) -> Marks:
    known = read_reference(reference)
    boxes = read_predictions(predictions, known)
    return match_marks(
        boxes.of_class(category), known.boxes.of_class(category), len(known.images), rule
    )


def slow_counts(
    reference: Any, predictions: Any, category: int, threshold: float, rule: str
) -> tuple[int, int]:
    """(lesions hit, false marks) with `score >= threshold`, one image after the other."""
    hits = false = 0
    for image in reference["images"]:
        lesions = [
            a
            for a in reference["annotations"]
            if a["image_id"] == image["id"] and a["category_id"] == category
        ]
        marks = [
            p
            for p in predictions
            if p["image_id"] == image["id"]
            and p["category_id"] == category
            and p["score"] >= threshold
        ]
        taken: set[int] = set()
        for mark in sorted(marks, key=lambda p: -p["score"]):
            touched = [a for a in lesions if not a["iscrowd"] and slow_hit(mark, a, rule)]
            free = [a for a in touched if a["id"] not in taken]
            if free:
                taken.add(max(free, key=lambda a: slow_iou(mark["bbox"], a["bbox"]))["id"])
            elif not touched:
                ignored = [a for a in lesions if a["iscrowd"] and slow_hit(mark, a, "center")]
                false += not ignored
        hits += len(taken)
    return hits, false


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def slow_hit(mark: Any, lesion: Any, rule: str) -> bool:
    a, b = mark["bbox"], lesion["bbox"]
    if rule == "iou":
        return slow_iou(a, b) >= 0.5
    x, y = a[0] + a[2] / 2, a[1] + a[3] / 2
    return b[0] <= x < b[0] + b[2] and b[1] <= y < b[1] + b[3]


@pytest.mark.parametrize("rule", ["center", "iou"])
@pytest.mark.parametrize("seed", range(3))
def test_every_threshold_equals_the_slow_version(seed: int, rule: str) -> None:
    reference, predictions = made_boxes(seed, ties=True)
    marks = marks_of(reference, predictions, rule)
    rate, sensitivity = marks.curve()
    lesions = int(marks.lesions.sum())
    scores = sorted({p["score"] for p in predictions if p["category_id"] == 1}, reverse=True)
    kept = {float(score) for score in marks.score}
    points = iter(zip(rate[1:], sensitivity[1:], strict=True))
    for score in scores:
        if score not in kept:
            continue
        hits, false = slow_counts(reference, predictions, 1, score, rule)
        x, y = next(points)
        assert (x * 24, y * lesions) == (pytest.approx(false), pytest.approx(hits))
        assert (marks.hits(score).sum(), marks.false_marks(score).sum()) == (hits, false)


def test_by_hand() -> None:
    """Two images, two lesions in the first. Marks: .9 hits lesion A, .8 hits it again, .7 is false
    in the second image, .6 hits lesion B.
    """
    reference = reference_of(one_class([[0, 0, 10, 10], [50, 50, 10, 10]]), images=2)
    predictions = [
        {"image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [2, 2, 8, 8], "score": 0.8},
        {"image_id": 2, "category_id": 1, "bbox": [1, 1, 8, 8], "score": 0.7},
        {"image_id": 1, "category_id": 1, "bbox": [50, 50, 10, 9], "score": 0.6},
    ]
    marks = marks_of(reference, predictions)
    rate, sensitivity = marks.curve()
    assert rate.tolist() == [0, 0, 0, 0.5, 0.5]
    assert sensitivity.tolist() == [0, 0.5, 0.5, 0.5, 1.0]
    assert marks.duplicates == 1
    assert marks.sensitivities(RATES).tolist() == [0.5, 0.5, 1, 1, 1, 1, 1]
    assert (marks.reaches(), marks.threshold_at(0.25), marks.threshold_at(1.0)) == (0.5, 0.8, 0.6)
    assert marks.sensitivities(RATES, np.array([2.0, 1.0]))[1] == 0.5  # 1/3 false per image


def test_no_mark_is_within_a_rate_when_the_highest_score_is_false() -> None:
    reference = reference_of(one_class([[0, 0, 10, 10]]))
    predictions = [{"image_id": 1, "category_id": 1, "bbox": [90, 90, 5, 5], "score": 0.9}]
    marks = marks_of(reference, predictions)
    assert marks.threshold_at(0.5) == np.inf
    assert marks.sensitivities(RATES).tolist() == [0.0] * 7


def test_without_predictions() -> None:
    marks = marks_of(reference_of(one_class([[0, 0, 10, 10]])), [])
    assert marks.sensitivities(RATES).tolist() == [0.0] * 7
    assert marks.threshold_at(1.0) == np.inf


def test_an_overlap_of_exactly_one_half_is_a_hit_by_overlap() -> None:
    reference = reference_of(one_class([[0, 0, 10, 10]]))
    for height, hits in ((5, 1), (4, 0)):
        mark = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, height], "score": 0.9}
        marks = marks_of(reference, [mark], "iou")
        assert (marks.hits(0.5).sum(), marks.false_marks(0.5).sum()) == (hits, 1 - hits)

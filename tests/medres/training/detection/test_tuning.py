from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medres.artefact.card_fields import ABOVE_ONE
from medres.detection import Detections
from medres.detection.decoding import suppress
from medres.evaluate.detection.study import evaluate_boxes
from medres.training.detection.finalize import box_thresholds
from medres.training.detection.suppression import OVERLAPS, chosen_overlap
from medres.training.detection.tuning import SplitBoxes, figures_row

NAMES = ("cyst", "mass")
PATIENT = np.repeat(np.arange(8), 3)  # three images of each of eight patients


def detections(rng: np.random.Generator, lines: np.ndarray) -> Detections:
    """The boxes of an image, some of them moved or missed, and false ones."""
    kept = lines[(lines[:, 4] >= 0) & (rng.random(len(lines)) < 0.8)]
    corners = [*(kept[:, :4] + rng.integers(-3, 4, (len(kept), 4)))]
    labels = [*kept[:, 4].astype(int)]
    for _ in range(rng.integers(0, 3)):
        x, y = rng.integers(0, 60, 2)
        corners.append(np.array([x, y, x + 10, y + 10], np.float32))
        labels.append(int(rng.integers(0, 2)))
    scores = np.sort(rng.random(len(labels)).astype(np.float32))[::-1]
    table = np.array(corners, np.float32).reshape(-1, 4)
    return Detections(table, scores, np.array(labels, np.int64))


@pytest.fixture
def boxes() -> SplitBoxes:
    rng = np.random.default_rng(4)
    made = SplitBoxes(NAMES, PATIENT)
    for image in range(len(PATIENT)):
        lines = np.full((4, 5), -1, np.float32)
        for n in range(image % 4):
            x, y = rng.integers(0, 50, 2)
            lines[n] = (x, y, x + 12, y + 14, n % 2)
        made.add(image, detections(rng, lines), lines)
    return made


def coco(boxes: SplitBoxes) -> tuple[list[dict], dict]:
    results, annotations = [], []
    for rows, out in ((boxes.predicted, results), (boxes.reference, annotations)):
        for image, label, x, y, right, bottom, score in np.concatenate(rows).tolist():
            entry = {"image_id": int(image), "category_id": int(label)}
            entry |= {"bbox": [x, y, right - x, bottom - y], "score": score, "id": len(out) + 1}
            out.append(entry)
    images = [{"id": n} for n in range(len(PATIENT))]
    categories = [{"id": n, "name": name} for n, name in enumerate(NAMES)]
    return results, {"images": images, "annotations": annotations, "categories": categories}


def test_the_columns_are_the_figures_of_the_report(boxes: SplitBoxes) -> None:
    patients = pd.DataFrame({"image_id": range(len(PATIENT)), "patient": PATIENT})
    report = evaluate_boxes(*coco(boxes), patients=patients, replicates=50).numbers
    row = figures_row(boxes)
    for name in NAMES:
        assert row[f"tune_ap50_{name}"] == pytest.approx(
            report["findings"][name]["ap50"]["estimate"]
        )
    assert row["tune_ap50"] == pytest.approx(report["macro"]["ap50"]["estimate"])
    assert row["tune_froc"] == pytest.approx(report["macro"]["froc_mean"]["estimate"])
    low, high = row["tune_ap50_low"], row["tune_ap50_high"]
    assert low is not None
    assert high is not None
    assert 0 < low < row["tune_ap50"] < high < 1


def test_the_threshold_finds_most_objects_with_so_few_false_positives(boxes: SplitBoxes) -> None:
    points, notes = box_thresholds(boxes, 0.25)
    assert [point.finding for point in points] == [*NAMES]
    for label, point in enumerate(points):
        marks = boxes.matches()[label].marks
        found = marks.hits(point.threshold).sum()
        assert marks.false_marks(point.threshold).sum() <= 0.25 * len(PATIENT)
        for score in boxes.of_class(label)[0].score:
            few = marks.false_marks(score).sum() <= 0.25 * len(PATIENT)
            if score > point.threshold:
                assert marks.hits(score).sum() < found
            elif few:
                assert marks.hits(score).sum() == found
        assert (point.unit, point.n_patients) == ("box", 8)
        assert f"{point.threshold:.3f}" in notes[label]
        assert f"{found} of {marks.hits(0.0).size} objects" in notes[label]


def test_a_class_without_any_box_has_no_figure_and_one_without_prediction_no_positive() -> None:
    made = SplitBoxes(NAMES, np.arange(6))
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    for image in range(6):
        lines = np.full((1, 5), -1, np.float32)
        lines[0] = (1, 1, 5, 5, 0)
        made.add(image, none, lines)
    row = figures_row(made)
    assert row["tune_ap50_mass"] is None
    assert row["tune_ap50_cyst"] == row["tune_ap50"] == 0.0
    points, notes = box_thresholds(made, 1.0)
    assert [point.threshold for point in points] == [ABOVE_ONE] * 2
    assert "no box is positive" in notes[0]


def by_overlap(objects: list, predicted: list) -> dict[float, SplitBoxes]:
    """predicted: corners from the highest score down, the same in each of 6 images."""
    corners = np.array(predicted, np.float32)
    labels = np.zeros(len(corners), np.int64)
    scores = np.linspace(0.9, 0.5, len(corners), dtype=np.float32)
    lines = np.column_stack([np.array(objects, np.float32), np.zeros(len(objects))])
    boxes = {}
    for overlap in OVERLAPS:
        kept = suppress(corners, labels, overlap, 100)
        boxes[overlap] = SplitBoxes(("cyst",), np.arange(6))
        for image in range(6):
            found = Detections(corners[kept], scores[kept], labels[kept])
            boxes[overlap].add(image, found, lines)
    return boxes


@pytest.mark.parametrize(
    ("objects", "predicted", "overlap"),
    [
        # objects apart, a second box on the first one (intersection over union 1/3)
        ([[0, 0, 10, 10], [30, 0, 40, 10]], [[0, 0, 10, 10], [5, 0, 15, 10], [30, 0, 40, 10]], 0.1),
        # two objects that overlap by 1/3
        ([[0, 0, 10, 10], [5, 0, 15, 10]], [[0, 0, 10, 10], [5, 0, 15, 10]], 0.4),
        # all overlaps are equally good
        ([[0, 0, 10, 10]], [[0, 0, 10, 10]], 0.1),
    ],
)
def test_boxes_may_overlap_as_far_as_the_objects_do(
    objects: list, predicted: list, overlap: float
) -> None:
    chosen, note = chosen_overlap(by_overlap(objects, predicted))
    assert chosen == overlap
    assert f"above {overlap:g}, " in note
    assert all(f"{value:g}: " in note for value in OVERLAPS)


def test_without_any_object_the_overlap_stays() -> None:
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    boxes = {overlap: SplitBoxes(("cyst",), np.arange(1)) for overlap in OVERLAPS}
    for split in boxes.values():
        split.add(0, none, np.full((1, 5), -1, np.float32))
    assert chosen_overlap(boxes)[0] == max(OVERLAPS)


def test_marks_on_a_region_to_ignore_are_dropped() -> None:
    made = SplitBoxes(("cyst",), np.arange(1))
    lines = np.array([[0, 0, 9, 9, -2], [20, 20, 30, 30, 0]], np.float32)
    found = Detections(
        np.array([[2, 2, 7, 7], [20, 20, 30, 30], [40, 40, 50, 50]], np.float32),
        np.array([0.9, 0.8, 0.7], np.float32),
        np.zeros(3, np.int64),
    )
    made.add(0, found, lines)
    marks = made.matches()[0].marks
    assert marks.false_marks(0.0).tolist() == [1]
    assert marks.hits(0.0).tolist() == [True]

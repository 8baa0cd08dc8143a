"""Every reference, prediction and patients table that does not fit is refused with its code."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import raises_code
from made_boxes import made_boxes, one_class, reference_of

from medres.errors import EvaluationError
from medres.evaluate.detection.coco import (
    count_copies,
    read_predictions,
    read_reference,
    with_patients,
)

REFERENCE = reference_of(one_class([[0, 0, 10, 10], [20, 20, 5, 5]]), images=3)
PREDICTIONS = [entry | {"score": 0.5} for entry in one_class([[0, 0, 10, 10]])]


def changed(change: Callable[[Any], Any]) -> Any:
    reference = deepcopy(REFERENCE)
    change(reference)
    return reference


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: r.pop("categories"), "not_coco"),
        (lambda r: r["annotations"][0].pop("bbox"), "not_coco"),
        (lambda r: r.update(images=[], annotations=[]), "no_images"),
        (lambda r: r["images"].append({"id": 1}), "repeated_id"),
        (lambda r: r["categories"].append({"id": 2, "name": "nodule"}), "repeated_id"),
        (lambda r: r["annotations"][0].update(image_id=9), "unknown_image"),
        (lambda r: r["annotations"][0].update(category_id=9), "unknown_class"),
        (lambda r: r["annotations"][0].update(bbox=[0, 0, 10]), "bad_box"),
        (lambda r: r["annotations"][0].update(bbox=[0, 0, 10, "10"]), "bad_box"),
        (lambda r: r["annotations"][0].update(bbox=[0, 0, float("nan"), 4]), "bad_box"),
        (lambda r: r["annotations"][0].update(bbox=[20, 20, -10, 4]), "bad_box"),
        (lambda r: r["annotations"][0].update(bbox=[20, 20, 0, 4]), "bad_box"),
        (lambda r: r["images"][0].update(width=10, height=10), "bad_box"),
        (lambda r: r["images"][0].update(width="wide"), "not_coco"),
        (lambda r: r["images"][0].update(height=float("nan")), "not_coco"),
        (lambda r: r["images"][0].update(id=[1]), "not_coco"),
        (lambda r: r.update(images=None), "not_coco"),
        (lambda r: r.update(annotations={}), "not_coco"),
        (lambda r: r.update(categories=[], annotations=[]), "no_classes"),
        (lambda r: r["annotations"][0].update(area="large"), "bad_box"),
        (lambda r: r["annotations"][0].update(area=float("nan")), "bad_box"),
        (lambda r: r["annotations"][0].update(iscrowd="no"), "bad_box"),
    ],
)
def test_a_reference_that_does_not_fit(change: Callable[[Any], Any], code: str) -> None:
    with raises_code(EvaluationError, code):
        read_reference(changed(change))


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"image_id": 99}, "unknown_image"),
        ({"category_id": 99}, "unknown_class"),
        ({"bbox": [1, 2, 3]}, "bad_box"),
        ({"bbox": [5, 5, -1, 2]}, "bad_box"),
        ({"score": float("nan")}, "bad_score"),
        ({"score": "high"}, "bad_score"),
    ],
)
def test_predictions_that_do_not_fit(entry: dict[str, Any], code: str) -> None:
    with raises_code(EvaluationError, code):
        read_predictions([PREDICTIONS[0] | entry], read_reference(REFERENCE))


def test_predictions_without_a_score_or_as_annotations() -> None:
    known = read_reference(REFERENCE)
    with raises_code(EvaluationError, "not_coco", "score"):
        read_predictions(one_class([[0, 0, 1, 1]]), known)
    with raises_code(EvaluationError, "not_coco"):
        read_predictions(REFERENCE, known)


def test_files_that_are_no_json(tmp_path: Path) -> None:
    (tmp_path / "reference.json").write_text("{")
    for name in ("reference.json", "absent.json"):
        with raises_code(EvaluationError, "unreadable", name):
            read_reference(tmp_path / name)


def test_a_file_gives_what_the_object_gives(tmp_path: Path) -> None:
    reference, predictions = made_boxes(0)
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    (tmp_path / "predictions.json").write_text(json.dumps(predictions))
    known, read = read_reference(reference), read_reference(tmp_path / "reference.json")
    assert (read.boxes.corners == known.boxes.corners).all()
    assert read.images.ids == known.images.ids
    boxes = read_predictions(tmp_path / "predictions.json", read)
    assert (boxes.score == read_predictions(predictions, known).score).all()


def test_copies_are_counted() -> None:
    twice = reference_of(one_class([[0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10]]))
    assert count_copies(read_reference(twice).boxes) == 1


def patients(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": [3, 1, 2], "patient": ["B", "A", "B"]} | columns)


def test_patients_are_matched_by_id_and_not_by_order() -> None:
    images = read_reference(REFERENCE).images
    grouped, columns = with_patients(images, patients(site=["x", "y", "z"]), ["site"])
    a, b, c = grouped.patient
    assert a != b == c
    assert columns["site"].tolist() == ["y", "z", "x"]
    assert grouped.clustered


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (patients().rename(columns={"patient": "person"}), "missing_column"),
        (patients().rename(columns={"image_id": "key"}), "missing_column"),
        (patients(patient=["B", None, "B"]), "missing_id"),
        (patients(image_id=[1, 1, 2]), "repeated_id"),
        (patients(image_id=[1, 2, 7]), "unmatched_images"),
        (pd.concat([patients(), patients()[["patient"]]], axis=1), "duplicate_column"),
    ],
)
def test_a_patients_table_that_does_not_fit(table: pd.DataFrame, code: str) -> None:
    with raises_code(EvaluationError, code):
        with_patients(read_reference(REFERENCE).images, table)


def test_a_flag_that_is_the_text_0_is_no_crowd() -> None:
    known = read_reference(changed(lambda r: r["annotations"][0].update(iscrowd="0")))
    assert not known.boxes.ignore.any()


def test_file_names_that_do_not_tell_images_apart() -> None:
    reference = changed(lambda r: [image.update(file_name="a/x.png") for image in r["images"]])
    table = pd.DataFrame({"case": ["x"], "patient": ["A"]})
    with raises_code(EvaluationError, "repeated_id", "image_id"):
        with_patients(read_reference(reference).images, table)


def test_only_the_scores_that_are_no_numbers_are_counted() -> None:
    entries = [PREDICTIONS[0], PREDICTIONS[0] | {"score": "high"}]
    with raises_code(EvaluationError, "bad_score", "1 of 2"):
        read_predictions(entries, read_reference(REFERENCE))

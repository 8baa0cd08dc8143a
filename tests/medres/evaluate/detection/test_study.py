"""The evaluation of boxes from its inputs to the report on disk."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from made_boxes import made_boxes, one_class, reference_of
from PIL import Image

from medres.errors import EvaluationError
from medres.evaluate.detection.study import DetectionResult, evaluate_boxes

KEYS = {"ap", "ap50", "ap75", "froc", "froc_mean", "case_auc", "n_boxes", "n_images", "duplicates"}
KEYS |= {"n_lesions", "n_patients", "operating_points"}


@pytest.fixture(scope="module")
def inputs() -> tuple[dict[str, Any], list[dict[str, Any]], pd.DataFrame]:
    reference, predictions = made_boxes(3, images=60)
    table = pd.DataFrame(
        {
            "image_id": [image["id"] for image in reference["images"]],
            "patient": [f"P{i // 2}" for i in range(60)],
            "site": ["A" if i < 40 else "B" if i < 56 else "C" for i in range(60)],
        }
    )
    return reference, predictions, table


@pytest.fixture(scope="module")
def result(inputs: Any) -> DetectionResult:
    reference, predictions, table = inputs
    return evaluate_boxes(
        predictions,
        reference,
        patients=table,
        subgroups=["site"],
        compare={"half": predictions[::2], "same": predictions},
        thresholds={"class0": 0.5},
        replicates=60,
    )


def test_report_json_has_the_keys_of_the_contract(result: DetectionResult) -> None:
    numbers = json.loads(result.to_json())
    assert numbers["task"] == "detection"
    assert (numbers["cluster"], numbers["hit_rule"]) == ("patient", "center")
    assert set(numbers["findings"]) == {"class0", "class1"}
    for finding in numbers["findings"].values():
        assert set(finding) >= KEYS
        assert [p["fp_per_image"] for p in finding["froc"]] == [0.125, 0.25, 0.5, 1, 2, 4, 8]
        assert finding["ap"]["ci_low"] <= finding["ap"]["estimate"] <= finding["ap"]["ci_high"]
        assert (finding["n_images"], finding["n_patients"]) == (60, 30)
    assert set(numbers["macro"]) == {"ap", "ap50", "froc_mean"}
    means = [f["ap50"]["estimate"] for f in numbers["findings"].values()]
    assert numbers["macro"]["ap50"]["estimate"] == pytest.approx(np.mean(means))


def test_a_model_compared_with_itself_does_not_differ(result: DetectionResult) -> None:
    same = [c for c in result.report.comparisons if c.b == "same"]
    assert [c.difference.estimate for c in same] == [0.0] * 6
    assert all(c.difference.bounds is None for c in same)
    half = {(c.finding, c.metric): c for c in result.report.comparisons if c.b == "half"}
    assert half["class0", "froc_mean"].difference.estimate > 0


def test_subgroups_and_the_small_one(result: DetectionResult) -> None:
    groups = {g.level: g for g in result.report.findings["class0"].subgroups}
    assert {level: g.n_patients for level, g in groups.items()} == {"A": 20, "B": 8, "C": 2}
    assert groups["A"].ap50.bounds is not None
    assert groups["B"].ap50.estimate is None


def test_a_subgroup_is_the_evaluation_of_its_images(inputs: Any, result: DetectionResult) -> None:
    reference, predictions, table = inputs
    keys = set(table.loc[table["site"] == "A", "image_id"])
    part = reference | {
        "images": [i for i in reference["images"] if i["id"] in keys],
        "annotations": [a for a in reference["annotations"] if a["image_id"] in keys],
    }
    alone = evaluate_boxes([p for p in predictions if p["image_id"] in keys], part, replicates=20)
    for name, finding in result.report.findings.items():
        group = finding.subgroups[0]
        assert group.ap50.estimate == pytest.approx(alone.report.findings[name].ap50.estimate)
        mean = alone.report.findings[name].froc_mean.estimate
        assert group.froc_mean.estimate == pytest.approx(mean)


def test_declared_and_exploratory_thresholds(result: DetectionResult) -> None:
    first = result.report.findings["class0"].operating_points[0]
    assert (first.threshold, first.origin) == (0.5, "declared")
    assert first.tp + first.fn == result.report.findings["class0"].n_lesions
    assert first.fp_per_image.estimate == pytest.approx(first.fp / 60)
    assert result.report.findings["class1"].operating_points[0].origin == "exploratory"


def test_a_threshold_of_the_tuning_split_is_frozen(inputs: Any) -> None:
    reference, predictions, _ = inputs
    tune = made_boxes(8, images=30)
    found = evaluate_boxes(
        predictions, reference, tune=(tune[1], tune[0]), fp_per_image=0.25, replicates=20
    ).report.findings["class0"]
    on_tune = evaluate_boxes(tune[1], tune[0], replicates=20).report.findings["class0"]
    point = found.operating_points[0]
    assert point.origin == "frozen"
    assert point.threshold == on_tune.froc[1].threshold


def test_no_patients_no_boxes_and_one_class_of_case(inputs: Any) -> None:
    reference = reference_of(one_class([[0, 0, 9, 9]]), images=1)
    report = evaluate_boxes([], reference, replicates=20).report
    assert report.cluster is None
    assert len(report.warnings) == 2
    finding = report.findings["nodule"]
    assert finding.ap.estimate == 0.0
    assert finding.case_auc.why == "every case holds this class"
    assert finding.operating_points[0].threshold is None
    empty = evaluate_boxes([], reference_of([], images=2), replicates=20)
    assert empty.report.findings["nodule"].ap.estimate is None
    assert empty.report.macro.ap.estimate is None
    assert "NaN" not in empty.to_json()
    assert "nodule" in empty.to_html()


def test_case_level_roc_by_image_and_by_patient() -> None:
    """Patient A: one image with a lesion; B: none. The highest score of A is .9, of B .95."""
    reference = reference_of(one_class([[0, 0, 9, 9]]), images=3)
    boxes = {1: 0.9, 2: 0.95}
    predictions = [
        {"image_id": image, "category_id": 1, "bbox": [0, 0, 9, 9], "score": score}
        for image, score in boxes.items()
    ]
    table = pd.DataFrame({"image_id": [1, 2, 3], "patient": ["A", "B", "A"]})
    image, patient = (
        evaluate_boxes(predictions, reference, patients=table, unit=unit, replicates=20)
        .report.findings["nodule"]
        .case_auc.estimate
        for unit in ("image", "patient")
    )
    assert (image, patient) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"hit": "touch"}, "unknown_hit_rule"),
        ({"unit": "study"}, "unknown_unit"),
        ({"unit": "patient"}, "no_patients"),
        ({"subgroups": ["site"]}, "no_patients"),
        ({"thresholds": {"mass": 0.5}}, "unknown_class"),
        ({"fp_per_image": 0.0}, "out_of_range"),
        ({"images": "absent"}, "not_a_folder"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], code: str) -> None:
    reference = reference_of(one_class([[0, 0, 9, 9]]), images=2)
    with raises_code(EvaluationError, code):
        evaluate_boxes([], reference, replicates=10, **options)


def test_the_folder_and_the_page(inputs: Any, result: DetectionResult, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "report")
    assert {p.name for p in folder.iterdir()} == {"report.html", "report.json", "tables"}
    tables = {p.stem for p in (folder / "tables").iterdir()}
    assert tables == {"classes", "froc", "sizes", "operating_points", "subgroups", "comparisons"}
    page = (folder / "report.html").read_text()
    assert not re.search(r"(?:src|href)=.https?:", page)
    assert "esearch use only" in page
    assert page.count("<svg") == 4 + len(result.report.worst)


def test_pictures_stay_within_their_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for path in (tmp_path / "images" / "a.png", tmp_path / "outside.png"):
        Image.new("L", (40, 30)).save(path)
    reference = reference_of([*one_class([[0, 0, 9, 9]]), *one_class([[0, 0, 9, 9]], 2)], images=2)
    for image, name in zip(reference["images"], ("a.png", "../outside.png"), strict=True):
        image["file_name"] = name
    report = evaluate_boxes([], reference, images=tmp_path / "images", replicates=10).report
    pictures = [worst.picture for worst in report.worst]
    assert sorted(picture is None for picture in pictures) == [False, True]


def hit_in_each(images: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A reference box in each image but the last two, and a prediction on each of those."""
    boxes = [one_class([[0, 0, 10, 10]], image)[0] for image in range(1, images - 1)]
    return reference_of(boxes, images), [box | {"score": 0.5} for box in boxes]


def test_images_that_were_refused_are_counted_and_in_no_figure() -> None:
    reference, predictions = hit_in_each(8)
    table = pd.DataFrame(
        {"image_id": range(1, 9), "patient": list("ABCDEFGH"), "status": ["scored"] * 8}
    )
    table.loc[[0, 1], "status"] = ["refused", "failed"]
    result = evaluate_boxes(predictions[1:], reference, patients=table, replicates=20)
    numbers = result.numbers
    assert (numbers["n"]["images"], numbers["n"]["images_refused"]) == (6, 2)
    found = numbers["findings"]["nodule"]
    assert (found["n_lesions"], found["n_patients"], found["n_predictions"]) == (4, 6, 4)
    assert found["froc_mean"]["estimate"] == 1.0
    assert "2 images (status refused or failed), which hold 2 " in numbers["warnings"][0]
    with raises_code(EvaluationError, "bad_status"):
        evaluate_boxes(predictions, reference, patients=table.assign(status="done"))
    with raises_code(EvaluationError, "no_images"):
        evaluate_boxes(predictions, reference, patients=table.assign(status="failed"))


def test_marks_in_a_region_to_ignore_do_not_count_for_the_case() -> None:
    """Image 8 has no lesion, but a region to ignore with the highest score of all."""
    reference, predictions = hit_in_each(8)
    crowd = one_class([[50, 50, 20, 20]], 8)[0]
    reference["annotations"].append(crowd | {"id": 99, "iscrowd": 1})
    predictions.append(crowd | {"score": 0.9})
    found = evaluate_boxes(predictions, reference, replicates=20).report.findings["nodule"]
    assert found.case_auc.estimate == 1.0


def test_a_score_of_minus_infinity_is_above_no_box_at_all() -> None:
    reference, predictions = hit_in_each(8)
    for entry in predictions:
        entry["score"] = float("-inf")
    result = evaluate_boxes(predictions, reference, replicates=20)
    found = result.report.findings["nodule"]
    assert found.case_auc.estimate == 1.0
    point = found.operating_points[0]
    assert (point.threshold, point.tp, point.why) == (None, 6, "below every score")
    assert "Infinity" not in result.to_json()


def test_a_tuning_split_with_the_files_of_the_test_is_said() -> None:
    reference, predictions = hit_in_each(8)
    for image in reference["images"]:
        image["file_name"] = f"{image['id']}.png"
    same = evaluate_boxes(predictions, reference, tune=(predictions, reference), replicates=20)
    assert any(w.startswith("8 images of the tuning reference") for w in same.report.warnings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_thresholds_must_be_finite(value: float) -> None:
    reference, predictions = hit_in_each(8)
    with raises_code(EvaluationError, "out_of_range"):
        evaluate_boxes(predictions, reference, thresholds=value)

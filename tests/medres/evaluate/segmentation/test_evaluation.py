"""From folders of masks to the report, with numbers worked by hand."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medres.errors import EvaluationError
from medres.evaluate import evaluate_masks
from tests.helpers import raises_code
from tests.medres.evaluate.segmentation.conftest import square

EMPTY = np.zeros((24, 24), np.uint8)
# reference, prediction: Dice 1, 1/2, missed, false alarm, both empty
REFERENCE = {"a": square(2, 2), "b": square(2, 2), "c": square(2, 2), "d": EMPTY, "e": EMPTY}
PREDICTION = {
    "a": square(2, 2),
    "b": square(2, 6),
    "c": EMPTY,
    "d": square(9, 9, size=4),
    "e": EMPTY,
}


@pytest.fixture
def folders(save_png) -> tuple[Path, Path]:
    return save_png("pred", **PREDICTION), save_png("ref", **REFERENCE)


def finding(*arguments, **options) -> dict:
    return evaluate_masks(*arguments, **options).numbers["findings"]["1"]


def test_empty_cases_by_the_stated_rule(folders) -> None:
    found = finding(*folders, spacing=(0.5, 0.5))
    assert found["dice"]["estimate"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["iou"]["estimate"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert found["dice"]["n"] == 3
    counts = {key: found[key] for key in found if key.startswith("n_")}
    assert counts["n_cases"] == 5
    assert (counts["n_empty_reference"], counts["n_empty_both"]) == (2, 1)
    assert (counts["n_missed"], counts["n_false_alarm"]) == (1, 1)
    # the missed case has no distance; with the diagonal of 24 x 24 pixels it has one
    assert (found["hd95_mm"]["n"], found["assd_mm"]["n"]) == (2, 2)
    assert found["hd95_mm"]["estimate"] == pytest.approx((0 + 2) / 2)
    diagonal = 0.5 * np.hypot(24, 24)
    assert found["hd95_or_diagonal_mm"]["estimate"] == pytest.approx((0 + 2 + diagonal) / 3)
    assert found["nsd"]["n"] == 3
    assert found["missed_rate"]["estimate"] == pytest.approx(1 / 3)
    assert found["false_alarm_rate"]["estimate"] == pytest.approx(1 / 2)
    assert found["area_difference_mm2"]["estimate"] == pytest.approx((0 + 0 - 16) / 3)
    assert found["volume_difference_ml"]["estimate"] is None
    assert found["tolerance_mm"] == 1.0


def test_lesions_are_counted_over_all_cases(folders) -> None:
    found = finding(*folders, spacing=(0.5, 0.5))
    assert (found["n_lesions"], found["lesion_sensitivity"]["numerator"]) == (3, 2)
    assert found["lesion_false_positives_per_case"]["estimate"] == pytest.approx(1 / 5)
    by_size = {row["size"]: row for row in found["lesion_bins"]}
    assert by_size["10 to 100 mm2"]["n_lesions"] == 3  # 64 pixels of 0.25 mm2
    assert by_size["10 to 100 mm2"]["n_found"] == 2
    assert by_size["below 10 mm2"]["n_false_positives"] == 1


def test_without_spacing_there_are_pixels_and_reasons(folders) -> None:
    report = evaluate_masks(*folders)
    found = report.numbers["findings"]["1"]
    for key in ("hd95_mm", "nsd", "assd_mm", "volume_difference_ml", "hd95_or_diagonal_mm"):
        assert found[key]["estimate"] is None
        assert "spacing" in found[key]["why"]
    assert found["hd95_px"]["estimate"] == pytest.approx(2.0)
    assert found["assd_px"]["n"] == 2
    assert found["dice"]["estimate"] == pytest.approx(0.5)
    assert found["size_unit"] == "pixels"
    assert any("spacing" in note for note in report.report.notes)


def test_patients_count_once(folders, tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,patient,site\na,P,x\nb,P,x\nc,Q,y\nd,Q,y\ne,R,y\n")
    report = evaluate_masks(*folders, patients=table, subgroups=["site"])
    found = report.numbers["findings"]["1"]
    assert found["dice"]["estimate"] == pytest.approx((0.75 + 0) / 2)
    assert (found["dice"]["n"], found["dice"]["n_clusters"]) == (3, 2)
    assert (report.numbers["n_cases"], report.numbers["n_patients"]) == (5, 3)
    rows = {row["level"]: row for row in found["subgroups"]}
    assert rows["x"]["dice"]["estimate"] == pytest.approx(0.75)
    assert (rows["y"]["n_cases"], rows["y"]["n_missed"]) == (1, 1)
    assert not any("table of the patients" in note for note in report.report.notes)


def test_volumes_and_distances_of_nifti_are_in_mm_and_ml(save_nifti) -> None:
    cube = np.zeros((20, 20, 12), np.uint8)
    cube[4:14, 4:14, 2:8] = 1  # 600 voxels of 20 mm3
    longer = cube.copy()
    longer[4:14, 4:14, 8] = 1  # 100 voxels more, one slice of 5 mm
    reference, prediction = save_nifti("ref", case=cube), save_nifti("pred", case=longer)
    found = finding(prediction, reference, tolerance_mm=4.9)
    assert found["volume_difference_ml"]["estimate"] == pytest.approx(2.0)
    assert found["dice"]["estimate"] == pytest.approx(1200 / 1300)
    assert found["hd95_mm"]["estimate"] == pytest.approx(5.0)
    assert 0.5 < found["nsd"]["estimate"] < 1.0
    assert finding(prediction, reference, tolerance_mm=5.0)["nsd"]["estimate"] == 1.0
    assert found["lesion_sensitivity"]["estimate"] == 1.0


def test_second_model_is_compared_within_patients(save_png) -> None:
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(12)]
    shifts = rng.integers(0, 4, (2, 12))
    reference = save_png("ref", **{name: square(6, 6) for name in names})
    one, two = (
        save_png(folder, **{n: square(6, 6 + s) for n, s in zip(names, row, strict=True)})
        for folder, row in zip(("one", "two"), shifts, strict=True)
    )
    report = evaluate_masks(one, reference, compare=[two], spacing=(1, 1))
    rows = {row["metric"]: row for row in report.numbers["comparisons"]}
    expected = np.mean((1 - shifts[0] / 8) - (1 - shifts[1] / 8))
    assert rows["dice"]["difference"]["estimate"] == pytest.approx(expected)
    assert (rows["dice"]["a"], rows["dice"]["b"], rows["dice"]["n_common"]) == ("one", "two", 12)
    assert rows["hd95_mm"]["difference"]["estimate"] == pytest.approx(-8 * expected)
    back = evaluate_masks(two, reference, compare=[one], spacing=(1, 1)).numbers["comparisons"][0]
    assert back["difference"]["estimate"] == pytest.approx(-expected)


def test_boundary_convention_gives_other_numbers_and_is_named(save_png) -> None:
    folders = save_png("pred", a=square(4, 4, size=4)), save_png("ref", a=square(2, 2))
    reports = [
        evaluate_masks(*folders, spacing=(1, 1), convention=name)
        for name in ("surface", "boundary")
    ]
    assert [report.numbers["convention"] for report in reports] == ["surface", "boundary"]
    a, b = (report.numbers["findings"]["1"]["assd_mm"]["estimate"] for report in reports)
    assert a != pytest.approx(b)
    # by hand: 12 inner voxels are 2 away; of 28 outer ones 16 are 2 away, 8 root 5, 4 root 8
    assert b == pytest.approx((28 * 2 + 8 * np.sqrt(5) + 4 * np.sqrt(8)) / 40)
    assert "MONAI" in reports[1].report.methods


def test_report_on_disk_is_whole_and_shows_no_name(save_png, tmp_path: Path) -> None:
    names = {f"Doe{name}": values for name, values in REFERENCE.items()}
    answers = {f"Doe{name}": values for name, values in PREDICTION.items()}
    reference, prediction = save_png("ref", **names), save_png("pred", **answers)
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24).astype(np.uint8)).save(
        images / "Doeb.png"
    )
    report = evaluate_masks(prediction, reference, images=images, classes={1: "<lung>"})
    out = report.save(tmp_path / "out")
    page = (out / "report.html").read_text()
    numbers = json.loads((out / "report.json").read_text())
    assert numbers == report.numbers
    assert numbers["task"] == "segmentation"
    assert "Doe" not in page + json.dumps(numbers)
    assert "&lt;lung&gt;" in page
    assert "<lung>" not in page
    assert len(re.findall(r'<img src="data:image/png;base64,', page)) == 3  # half, missed, alarm
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")
    with (out / "tables/cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["case", "class", "dice", "iou", "hd95_mm", "nsd"]
    status = [row["status"] for row in rows]
    assert status == ["overlap", "overlap", "missed", "false_alarm", "both_empty"]
    assert rows[1]["dice"] == "0.5"
    worst = [row["case"] for row in numbers["findings"]["<lung>"]["worst_cases"]]
    assert worst == [rows[i]["case_hash"] for i in (2, 1, 3)]
    assert report.save(tmp_path / "out", overwrite=True) == out


def test_two_runs_agree_and_answers_reach_the_checklists(folders) -> None:
    one, two = (
        evaluate_masks(*folders, design={"annotation": "Two readers"}).numbers for _ in range(2)
    )
    for numbers in (one, two):
        numbers["provenance"].pop("created")
    assert one == two
    answers = {row["answer"] for row in one["checklists"][1]["rows"]}
    assert "Two readers." in answers


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"tolerance_mm": -1.0}, "out_of_range"),
        ({"hit_iou": 1.0}, "out_of_range"),
        ({"level": 1.0}, "out_of_range"),
        ({"spacing": (1.0, 0.0)}, "out_of_range"),
        ({"spacing": (1.0, 1.0, 1.0)}, "spacing_axes"),
        ({"convention": "medpy"}, "unknown_convention"),
        ({"classes": {2: "other"}}, "unknown_label"),
    ],
)
def test_options_that_cannot_be_used(folders, options: dict, code: str) -> None:
    with raises_code(EvaluationError, code):
        evaluate_masks(*folders, **options)


def test_masks_that_cannot_be_compared(save_png, save_nifti, tmp_path: Path) -> None:
    reference = save_png("ref", a=square(2, 2), b=square(2, 2))
    smaller = save_png("small", a=square(2, 2), b=square(2, 2, shape=(24, 23)))
    with raises_code(EvaluationError, "other_grid", "case 2 of 2"):
        evaluate_masks(smaller, reference)
    twos = save_png("twos", a=square(2, 2), b=2 * square(2, 2))
    with raises_code(EvaluationError, "unknown_label", "2"):
        evaluate_masks(twos, reference)
    with raises_code(EvaluationError, "no_class"):
        evaluate_masks(save_png("e1", a=EMPTY), save_png("e2", a=EMPTY))
    mixed = save_nifti("mixed", b=np.ones((24, 24, 3), np.uint8))
    (mixed / "a.png").write_bytes((reference / "a.png").read_bytes())
    with raises_code(EvaluationError, "mixed_axes"):
        evaluate_masks(mixed, mixed)
    moved = np.diag([2.0, 2.0, 5.0, 1.0])
    moved[1, 3] = 0.1
    volume = {"a": np.ones((4, 4, 4), np.uint8)}
    with raises_code(EvaluationError, "other_grid", "0.1 mm"):
        evaluate_masks(save_nifti("n1", moved, **volume), save_nifti("n2", **volume))
    images = tmp_path / "images"
    images.mkdir()
    Image.new("L", (5, 5)).save(images / "a.png")
    with raises_code(EvaluationError, "image_grid"):
        evaluate_masks(save_png("p", a=square(3, 3), b=square(2, 2)), reference, images=images)


def test_all_cases_empty_in_a_named_class(save_png) -> None:
    empty, alarm = save_png("ref", a=EMPTY, b=EMPTY), save_png("pred", a=square(2, 2), b=EMPTY)
    report = evaluate_masks(alarm, empty, classes={1: "lesion"}, spacing=(1, 1))
    found = report.numbers["findings"]["lesion"]
    assert found["dice"]["estimate"] is None
    assert (found["n_false_alarm"], found["n_empty_both"]) == (1, 1)
    assert found["lesion_sensitivity"]["estimate"] is None
    assert "lesion" in report.to_html()


def test_a_label_below_0_is_no_class(save_nifti) -> None:
    below = save_nifti("below", a=np.full((4, 4, 4), -1, np.int16))
    with raises_code(EvaluationError, "unknown_label", "below 0"):
        evaluate_masks(below, below)


def test_few_patients_and_missed_cases_are_flagged_on_the_first_screen(save_png) -> None:
    def evaluated(n: int, missed: int) -> tuple[str | None, str]:
        truth = {f"c{i:02}": block(8, 1 + i % 3) for i in range(n)}
        answer = {c: v * (i >= missed) for i, (c, v) in enumerate(truth.items())}
        answer["c20"] = block(8, 2)
        folders = save_png(f"a{n}-{missed}", **answer), save_png(f"r{n}", **truth)
        found = evaluate_masks(*folders, classes={1: "lung"})
        return found.report.findings["lung"].figures.dice.flag, found.to_html().partition("<h2>")[0]

    for missed, words in ((2, "cases of 2 of 40 patients were missed"), (0, "up to 8% of all")):
        flag, first_screen = evaluated(40, missed)
        assert words in (flag or "")
        assert f"<li>Dice of lung: {flag}.</li>" in first_screen
    flag, first_screen = evaluated(60, 2)
    assert flag is None
    assert "Dice of lung" not in first_screen


def block(size: int, start: int) -> np.ndarray:
    values = np.zeros((size, size), np.uint8)
    values[start : start + 4, 2:6] = 1
    return values

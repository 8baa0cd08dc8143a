"""Which prediction belongs to which reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medres.errors import EvaluationError
from medres.evaluate.segmentation.cases import check_labels, find_cases, read_classes
from tests.helpers import raises_code
from tests.medres.evaluate.segmentation.conftest import square

ONE = square(2, 2)


def test_files_match_by_stem_across_formats(save_png, save_nifti, tmp_path: Path) -> None:
    reference = save_png("ref", b=ONE, a=ONE)
    predictions = save_nifti("pred", a=ONE[..., None], b=ONE[..., None])
    (predictions / ".hidden.png").write_bytes(b"")
    (predictions / "notes.txt").write_text("not a mask")
    cases = find_cases(reference, [predictions])
    assert [case.name for case in cases] == ["a", "b"]
    assert [case.patient for case in cases] == ["a", "b"]
    assert cases[0].predictions[0].name == "a.nii.gz"


def test_two_files_of_other_names_are_one_case(save_png) -> None:
    reference, prediction = save_png("ref", truth=ONE), save_png("pred", answer=ONE)
    cases = find_cases(reference / "truth.png", [prediction / "answer.png"])
    assert [(case.name, case.predictions[0].name) for case in cases] == [("truth", "answer.png")]


def test_missing_cases_are_counted_not_named(save_png) -> None:
    two, one = save_png("two", secret=ONE, b=ONE), save_png("one", b=ONE)
    with raises_code(EvaluationError, "missing_prediction", "1 of 2") as caught:
        find_cases(two, [one])
    assert "secret" not in str(caught.value)
    with raises_code(EvaluationError, "missing_reference", "1 of 2"):
        find_cases(one, [two])
    with raises_code(EvaluationError, "missing_prediction"):
        find_cases(two, [two, one])


def test_folders_that_cannot_be_used(save_png, tmp_path: Path) -> None:
    reference = save_png("ref", a=ONE)
    (tmp_path / "empty").mkdir()
    with raises_code(EvaluationError, "no_masks"):
        find_cases(reference, [tmp_path / "empty"])
    with raises_code(EvaluationError, "no_file"):
        find_cases(tmp_path / "absent", [reference])
    (reference / "a.nii").write_bytes(b"")
    with raises_code(EvaluationError, "duplicate_case"):
        find_cases(reference, [reference])


def test_patients_table_beside_the_reference(save_png, tmp_path: Path) -> None:
    reference = save_png("ref", **{"1": ONE, "2": ONE, "x": ONE})
    table = reference / "patients.csv"
    table.write_text("case,patient,site\n1,P1,A\n2,P1,B\nx,P2,\n3,P3,A\n")
    cases = find_cases(reference, [reference], subgroups=["site"])
    assert [(case.patient, case.levels) for case in cases] == [
        ("P1", ("A",)),
        ("P1", ("B",)),
        ("P2", ("",)),
    ]
    other = tmp_path / "other.csv"
    for text, code in (
        ("case,patient\n1,P1\n2,P1\n", "unknown_case"),
        ("case,patient\n1,P1\n2,\nx,P2\n", "unknown_case"),
        ("case,patient\n1,P1\n1,P1\nx,P2\n", "duplicate_case"),
        ("case,person\n1,P1\n", "missing_column"),
    ):
        other.write_text(text)
        with raises_code(EvaluationError, code):
            find_cases(reference, [reference], other)
    with raises_code(EvaluationError, "missing_column", "age"):
        find_cases(reference, [reference], subgroups=["age"])
    table.unlink()
    with raises_code(EvaluationError, "missing_column", "site"):
        find_cases(reference, [reference], subgroups=["site"])


def test_classes_from_texts_mappings_and_files(tmp_path: Path) -> None:
    table, listing = tmp_path / "classes.csv", tmp_path / "classes.json"
    table.write_text("value,name\n0,background\n2,tumor\n1,liver\n")
    listing.write_text(json.dumps({"1": "liver", "2": "tumor"}))
    for given in ("2=tumor,1=liver", {1: "liver", 2: "tumor"}, table, str(listing)):
        assert read_classes(given) == {1: "liver", 2: "tumor"}
    assert read_classes(None) is None
    for given in ("1=", "a=liver", "1=x,2=x", {}, "-1=x", {"1.5": "x"}):
        with raises_code(EvaluationError, "classes"):
            read_classes(given)


def test_label_without_a_class() -> None:
    check_labels({1}, {1: "liver"}, "reference")
    with raises_code(EvaluationError, "unknown_label", "255", "liver"):
        check_labels({1, 255}, {1: "liver"}, "prediction")


@pytest.mark.parametrize("name", ["two.dots.png", "sub/case.png"])
def test_names_with_dots_and_folders(name: str, save_png, tmp_path: Path) -> None:
    folder = save_png("flat", a=ONE)
    for root in ("r", "p"):
        path = tmp_path / root / name
        path.parent.mkdir(parents=True)
        path.write_bytes((folder / "a.png").read_bytes())
    cases = find_cases(tmp_path / "r", [tmp_path / "p"])
    assert [case.name for case in cases] == [name.removesuffix(".png")]

"""The structured report: what it states, reopened by other readers, and its identity."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import raises_code
from pydicom import dcmread
from pydicom.dataset import Dataset
from result_objects import (
    MODEL,
    Box,
    ct_slice,
    prediction,
    radiograph,
    refusal,
    validation_errors,
    written,
)

from medres.errors import ResultError
from medres.results import ModelIdentity, content_of, is_own_result, results_of, structured_report
from medres.results.result import Result

hd = pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
CREATED = dt.datetime(2026, 11, 30, 12, 1, 2, 345)


def result(*datasets: Dataset, **options: object) -> Result:
    answer = options.pop("prediction", None) or prediction(*datasets)
    return results_of(answer, datasets, MODEL, **{"created": CREATED, **options})


def reopened(dataset: Dataset, folder: Path) -> hd.sr.Comprehensive3DSR:
    path = written(dataset, folder)
    assert validation_errors(path) == []
    return hd.sr.Comprehensive3DSR.from_dataset(dcmread(path))


def groups(report: hd.sr.Comprehensive3DSR) -> dict[str, object]:
    return {
        group.tracking_identifier: group
        for group in [
            *report.content.get_image_measurement_groups(),
            *report.content.get_planar_roi_measurement_groups(),
        ]
    }


def numbers(group: object) -> dict[str, float]:
    return {
        m.name.value: m[0].MeasuredValueSequence[0].FloatingPointValue
        for m in group.get_measurements()
    }


def evaluations(group: object) -> list[tuple[str, str]]:
    return [(e.name.value, e.value.meaning) for e in group.get_qualitative_evaluations()]


def comments(dataset: Dataset) -> list[str]:
    return [
        item.TextValue
        for item in dataset.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "121106"
    ]


def test_the_report_states_the_prediction(tmp_path: Path) -> None:
    images = [radiograph(0), radiograph(1)]
    report = reopened(structured_report(result(*images)), tmp_path)
    found = groups(report)
    assert list(found) == ["nodule", "effusion", "image 1", "image 2"]
    assert numbers(found["nodule"]) == {
        "probability": 0.8125431,
        "threshold": 0.5,
        "alpha": 0.1,
        "novelty": 1.5,
    }
    assert evaluations(found["nodule"]) == [
        ("decision", "Positive"),
        ("certainty", "uncertain"),
        ("conformal_set", "Negative"),
        ("conformal_set", "Positive"),
    ]
    assert evaluations(found["effusion"]) == [
        ("decision", "Negative"),
        ("conformal_set", "Negative"),
    ]
    assert numbers(found["image 2"]) == {"nodule": 0.2, "effusion": 0.01}
    assert [i.referenced_sop_instance_uid for i in found["image 2"].source_images] == [
        images[1].SOPInstanceUID
    ]
    algorithm = [
        item.TextValue
        for item in found["nodule"][0].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "111002"
    ]
    assert algorithm == [
        f"model SHA-256: {MODEL.sha256}",
        f"preprocessing SHA-256: {MODEL.preprocessing_sha256}",
    ]


def test_of_many_images_the_most_probable_ones_are_listed(tmp_path: Path) -> None:
    image = radiograph()
    answer = prediction(
        images=tuple({"nodule": n / 30} for n in range(30)),
        slices=tuple([((str(image.SOPInstanceUID), 0),)] * 30),
    )
    report = reopened(structured_report(result(image, prediction=answer)), tmp_path)
    listed = [name for name in groups(report) if name.startswith("image")]
    assert listed == [f"image {n}" for n in range(11, 31)]
    assert comments(report)[1].startswith("Of 30 images, the 20 with")


def test_it_is_unverified_for_research_and_of_the_study_of_its_images(tmp_path: Path) -> None:
    image = radiograph(IssuerOfPatientID="North", AccessionNumber="A7", PatientSex="F")
    report = reopened(structured_report(result(image, notes=["UNSIGNED model"])), tmp_path)
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert comments(report)[0].startswith("RESEARCH USE ONLY.")
    assert comments(report)[1] == "UNSIGNED model"
    for keyword in ("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "AccessionNumber"):
        assert report[keyword].value == image[keyword].value
    assert str(report.PatientName) == "Doe^J"
    assert report.PatientBirthDate == "" or report.PatientBirthDate is None
    assert "PatientBirthDate" in report
    assert report.SeriesInstanceUID != image.SeriesInstanceUID
    assert report.DeviceSerialNumber == MODEL.sha256
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID


def test_a_refusal_states_its_code(tmp_path: Path) -> None:
    report = reopened(structured_report(result(ct_slice(0), prediction=refusal())), tmp_path)
    found = groups(report)
    assert list(found) == ["refusal"]
    assert evaluations(found["refusal"]) == [("refusal", "modality")]
    assert comments(report)[1] == "Refused (modality): the study is an MR"


def test_exclusive_classes(tmp_path: Path) -> None:
    name = "an adenocarcinoma of the lung, poorly differentiated, with Größe über 3 cm \\ T2"
    answer = prediction(
        probabilities={name: 0.7, "none": 0.3},
        decisions={"class": name},
        thresholds={},
        sets={"class": []},
        images=(),
        slices=(),
    )
    report = reopened(structured_report(result(radiograph(), prediction=answer)), tmp_path)
    found = groups(report)
    assert len(found) == 3
    (name_of_decision, decision), certainty = evaluations(found["class"])
    assert name_of_decision == "decision"
    assert decision.startswith("an adenocarcinoma of the lung, poorly differentiated")
    assert certainty == ("certainty", "atypical")
    assert numbers(found["class"])["alpha"] == 0.1


def test_the_same_input_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    images = [ct_slice(n) for n in range(3)]
    first = structured_report(result(*images))
    again = structured_report(result(*images))
    assert written(first, tmp_path).read_bytes() == written(again, tmp_path).read_bytes()
    answer = prediction(*images)
    moved = structured_report(result(images[2], images[0], images[1], prediction=answer))
    assert written(moved, tmp_path).read_bytes() == written(first, tmp_path).read_bytes()
    images[1].PixelData = bytes(len(images[1].PixelData))
    other = structured_report(result(*images))
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert other.SeriesInstanceUID != first.SeriesInstanceUID


def test_the_key_is_the_same_from_a_file_its_bytes_and_its_data_set(tmp_path: Path) -> None:
    path = written(ct_slice(0), tmp_path)
    contents = {content_of(path), content_of(path.read_bytes()), content_of(dcmread(path))}
    assert len(contents) == 1


def test_own_results_are_recognized_and_images_are_not(tmp_path: Path) -> None:
    report = structured_report(result(radiograph()))
    assert is_own_result(report)
    assert is_own_result(written(report, tmp_path))
    assert not is_own_result(radiograph(Manufacturer="Medres Imaging"))


def test_a_later_revision_names_its_predecessor(tmp_path: Path) -> None:
    half = result(ct_slice(0))
    whole = result(ct_slice(0), ct_slice(1), predecessor=half.key)
    report = reopened(structured_report(whole), tmp_path)
    item = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    uid = item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert uid == structured_report(half).SOPInstanceUID


def test_names_in_any_script(tmp_path: Path) -> None:
    image = radiograph(SpecificCharacterSet="ISO_IR 192", PatientName="山田^太郎")
    report = reopened(structured_report(result(image)), tmp_path)
    assert str(report.PatientName) == "山田^太郎"


@pytest.mark.parametrize(
    ("elements", "keyword", "value"),
    [
        ({"PatientSex": "female"}, "PatientSex", ""),
        ({"StudyDate": "1999"}, "StudyDate", ""),
        ({"PatientID": None}, "PatientID", ""),
        ({"StudyTime": "101112.5"}, "StudyTime", "101112.5"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_an_attribute_that_may_be_empty_is_empty_where_it_is_absent_or_invalid(
    elements: dict, keyword: str, value: str, tmp_path: Path
) -> None:
    report = reopened(structured_report(result(radiograph(**elements))), tmp_path)
    assert str(report[keyword].value or "") == value


@pytest.mark.parametrize(
    ("images", "code"),
    [
        ([], "no_image"),
        ([{"StudyInstanceUID": None}], "missing_attribute"),
        ([{"Rows": None}], "missing_attribute"),
        ([{}, {"StudyInstanceUID": "1.2.3"}], "several_studies"),
        ([{}, {"PatientID": "P2"}], "several_patients"),
        ([{}, {"IssuerOfPatientID": "South"}], "several_patients"),
    ],
)
def test_images_that_refuse_a_result(images: list[dict], code: str) -> None:
    datasets = [radiograph(n, **elements) for n, elements in enumerate(images)]
    with raises_code(ResultError, code):
        results_of(refusal(), datasets, MODEL, contents=[])


@pytest.mark.parametrize(
    "fields", [("", "1", "a" * 64, "b" * 64), ("n", " ", "a" * 64, "b" * 64), ("n", "1", "a", "b")]
)
def test_a_model_without_an_identity_is_refused(fields: tuple) -> None:
    with raises_code(ResultError, "bad_model"):
        ModelIdentity(*fields)


def test_boxes_are_planar_regions_in_edges(tmp_path: Path) -> None:
    image = radiograph()
    box = Box("nodule", 0.75, 0.0, 2.5, 12.25, 20.0, str(image.SOPInstanceUID))
    report = reopened(structured_report(result(image, boxes=[box])), tmp_path)
    group = groups(report)["box 1"]
    assert group.roi.graphic_type.value == "POLYLINE"
    assert group.roi.value.tolist() == [[0, 2.5], [12.25, 2.5], [12.25, 20], [0, 20], [0, 2.5]]
    assert numbers(group) == {"probability": 0.75}
    assert group.finding_type.meaning == "nodule"


def test_a_detector_that_found_nothing_has_a_report_that_says_so(tmp_path: Path) -> None:
    nothing = prediction(
        probabilities={}, decisions={"nodule": 0}, thresholds={}, sets={}, images=(), slices=()
    )
    report = reopened(structured_report(result(radiograph(), prediction=nothing)), tmp_path)
    assert [*groups(report)] == ["nodule"]
    group = groups(report)["nodule"]
    assert evaluations(group) == [("decision", "Negative")]
    assert group.finding_type.meaning == "nodule"


@pytest.mark.parametrize(
    ("corners", "code"),
    [
        ((0, 0, 31, 20), "bad_box"),
        ((5, 5, 5, 9), "bad_box"),
        ((float("nan"), 0, 3, 3), "bad_box"),
    ],
)
def test_a_box_outside_its_image_is_refused(corners: tuple, code: str) -> None:
    image = radiograph()
    boxes = [Box("nodule", 0.5, *corners, str(image.SOPInstanceUID))]
    with raises_code(ResultError, code):
        structured_report(result(image, boxes=boxes))


def test_a_box_on_an_image_of_another_study_is_refused() -> None:
    with raises_code(ResultError, "unknown_image"):
        structured_report(result(radiograph(), boxes=[Box("a", 0.5, 0, 0, 1, 1, "1.2.3")]))


def test_objects_are_validated(tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed: nothing is validated")
    report = structured_report(result(radiograph()))
    del report.CompletionFlag
    assert any("CompletionFlag" in line for line in validation_errors(written(report, tmp_path)))


def test_dcmtk_reads_the_numbers(tmp_path: Path) -> None:
    program = shutil.which("dsrdump")
    if program is None:
        pytest.skip("dsrdump is not installed (Debian package dcmtk)")
    path = written(structured_report(result(radiograph())), tmp_path)
    text = subprocess.run([program, str(path)], capture_output=True, text=True, check=True).stdout
    assert '"0.8125431" (1,UCUM' in text
    assert "UNVERIFIED" in text

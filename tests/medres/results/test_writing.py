"""The files of a result: complete, the same again, read by others, and free of identifiers."""

from __future__ import annotations

import datetime as dt
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from canaries import CANARIES, encodings, with_canaries
from helpers import raises_code
from pydicom import dcmread
from pydicom.dataset import Dataset
from result_objects import MODEL, Box, ct_slice, prediction, radiograph, validation_errors

from data_pipelines.annotations.label_map import LabelMap
from data_pipelines.dicom.eligibility import eligible_kind
from data_pipelines.dicom.header import read_header
from data_pipelines.dicom.reader import parse, silence_pydicom
from data_pipelines.errors import Ineligible
from medres.errors import ResultError
from medres.results import (
    Masks,
    Overlay,
    coco_results,
    display_picture,
    is_own_result,
    results_of,
    structured_report,
    write_results,
)
from medres.results.result import Result

hd = pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
CREATED = dt.datetime(2026, 11, 30, 12, 1, 2, tzinfo=dt.UTC)
#: where the values of patient, study and source belong (PS3.3 C.7.1, C.7.2, C.12.1)
BELONGS = {
    "AccessionNumber",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "ReferencedSOPInstanceUID",
    "ReferringPhysicianName",
    "SeriesInstanceUID",
    "StudyDate",
    "StudyDescription",
    "StudyID",
    "StudyInstanceUID",
}


def everything(image: Dataset, folder: Path) -> dict[str, Path]:
    """All kinds of files for one radiograph."""
    uid, shape = str(image.SOPInstanceUID), (image.Rows, image.Columns)
    result = results_of(
        prediction(image),
        [image],
        MODEL,
        created=CREATED,
        boxes=[Box("nodule", 0.75, 1, 2, 7.5, 9, uid)],
    )
    mask = np.zeros((1, *shape), bool)
    mask[0, 2:5, 3:6] = True
    drawn = LabelMap.empty(mask.shape, ("lung",)).with_plane("lung", mask)
    overlay = Overlay(display_picture(image), uid, masks={"lung": mask[0]})
    return write_results(
        folder, result, overlays=[overlay], masks=[Masks(drawn)], categories=["mass", "nodule"]
    )


def test_all_files_of_a_result(tmp_path: Path) -> None:
    image = radiograph()
    files = everything(image, tmp_path / "new" / "folder")
    assert list(files) == ["report", "overlay 1", "segmentation 1", "coco", "fhir", "result"]
    document = json.loads(files["result"].read_text())
    assert {path.name.split("_")[0] for path in files.values()} == {document["result_key"][:16]}
    for entry in document["objects"]:
        path = files[entry["role"]]
        dataset = dcmread(path)
        assert validation_errors(path) == []
        assert is_own_result(path)
        with pytest.raises(Ineligible):  # no ingest takes it in as an image
            eligible_kind(read_header(path))
        assert dataset.SOPInstanceUID == entry["sop_instance_uid"]
        assert dataset.StudyInstanceUID == image.StudyInstanceUID == document["study_uid"]
    assert len({entry["series_uid"] for entry in document["objects"]}) == 3
    assert document["probabilities"] == {"nodule": 0.8125431, "effusion": 0.0625}
    assert document["research_use_only"].startswith("RESEARCH USE ONLY")
    assert json.loads(files["coco"].read_text()) == [
        {
            "image_id": 1,
            "category_id": 2,
            "bbox": [1.0, 2.0, 6.5, 7.0],
            "score": 0.75,
            "label": "nodule",
            "sop_instance_uid": image.SOPInstanceUID,
            "frame": 0,
        }
    ]
    assert json.loads(files["fhir"].read_text())["resourceType"] == "Bundle"


def test_the_same_result_writes_the_same_files(tmp_path: Path) -> None:
    first = {p.name: p.read_bytes() for p in everything(radiograph(), tmp_path / "a").values()}
    again = {p.name: p.read_bytes() for p in everything(radiograph(), tmp_path / "b").values()}
    assert first == again


def test_no_file_is_written_where_one_object_is_refused(tmp_path: Path) -> None:
    result = results_of(prediction(), [radiograph()], MODEL, contents=[])
    wrong = Masks(LabelMap.empty((1, 3, 3), ("lung",)))
    with raises_code(ResultError, "wrong_size"):
        write_results(tmp_path / "out", result, masks=[wrong])
    assert not (tmp_path / "out").exists()


def test_a_segmentation_that_the_images_do_not_allow_is_left_out_with_its_code(
    tmp_path: Path,
) -> None:
    image = ct_slice(0, FrameOfReferenceUID=None)
    result = results_of(prediction(image), [image], MODEL)
    files = write_results(
        tmp_path, result, masks=[Masks(LabelMap.empty((1, 9, 13), ("lung",)))], fhir=False
    )
    assert list(files) == ["report", "result"]
    (refused,) = json.loads(files["result"].read_text())["refused_objects"]
    assert (refused["role"], refused["code"]) == ("segmentation 1", "missing_attribute")
    assert "FrameOfReferenceUID" in refused["reason"]


@pytest.mark.parametrize(
    ("images", "categories", "code"),
    [({}, {"nodule": 1}, "unknown_image"), ({("1.2", 0): 7}, {}, "unknown_class")],
)
def test_a_box_without_a_coco_id_is_refused(images: dict, categories: dict, code: str) -> None:
    with raises_code(ResultError, code):
        coco_results([Box("nodule", 0.5, 0, 0, 1, 1, "1.2")], images, categories)


def canaries_in(data: bytes) -> list[bytes]:
    return [data for canary in CANARIES for code in encodings(canary) if code in data]


def test_identifiers_are_in_their_attributes_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    image = with_canaries(1)
    with silence_pydicom():
        image.PatientName = "CANARY^" + "X" * 80  # longer than allowed: pydicom would quote it
    uids = {str(image[k].value) for k in ("SOPInstanceUID", "StudyInstanceUID")}
    caplog.set_level(logging.DEBUG)
    files = everything(image, tmp_path)
    output = capfd.readouterr()
    for text in (caplog.text, output.out, output.err, *(p.name for p in files.values())):
        assert canaries_in(text.encode()) == []
    for path in files.values():
        if path.suffix == ".json":
            text = path.read_text()
            for uid in uids:  # a result names its study and its images
                text = text.replace(uid, "")
            assert canaries_in(text.encode()) == []
        else:
            dataset = parse(path, pixels=False).dataset
            with silence_pydicom():
                found = {
                    element.keyword
                    for element in dataset.iterall()
                    if element.VR != "SQ" and canaries_in(str(element.value).encode())
                }
            assert found <= BELONGS
            assert {"PatientName", "PatientID", "PatientBirthDate"} <= found


def broken(**elements: object) -> Result:
    image = with_canaries(1)
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    return results_of(prediction(), [image, with_canaries(2)], MODEL, contents=[])


def test_an_error_holds_no_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    for elements in ({}, {"StudyInstanceUID": "2.25.731946280511"}, {"SOPInstanceUID": ""}):
        with pytest.raises(ResultError) as caught:
            broken(**elements)
        assert canaries_in(str(caught.value).encode()) == []
    result = results_of(prediction(), [with_canaries(1)], MODEL, contents=[])

    def fails(*_: object, **__: object) -> None:
        raise ValueError("CANARY")

    monkeypatch.setattr(hd.sr, "MeasurementReport", fails)
    with raises_code(ResultError, "not_made") as caught:
        structured_report(result)
    assert canaries_in(str(caught.value).encode()) == []
    assert caught.value.__suppress_context__


def test_without_highdicom_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    result = results_of(prediction(), [ct_slice(0)], MODEL, contents=[])
    with raises_code(ResultError, "no_highdicom", "medres[results]"):
        structured_report(result)

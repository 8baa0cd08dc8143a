"""The DICOM objects beside the masks of `medres predict --out`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from result_objects import ct_slice, radiograph, validation_errors

from data_pipelines.annotations.dicom_seg import read_segmentation
from data_pipelines.annotations.label_map import ClassNames
from medres.artefact.masks import SegmentationFields, class_colors
from medres.inference.decoder import Decoder
from medres.inference.masks.study_mask import StudyMask
from medres.inference.objects.study_objects import object_lines, write_objects
from medres.inference.prediction import Prediction
from medres.results.writing import file_bytes

NAMES = ("background", "organ", "tumor")
CARD: Any = SimpleNamespace(
    names=list(NAMES),
    task="segmentation",
    preprocess=SimpleNamespace(sha256="cd" * 32),
    segmentation=SegmentationFields(colors=class_colors(3), postprocess=[]),
    training={"config": {"model": {"variant": "resnet10"}}},
)
HERE = Decoder(isolate=False)


def predicted(labels: np.ndarray, uids: list[str], **fields: Any) -> StudyMask:
    spacing = (2.5, 0.7, 0.8)[-labels.ndim :]
    affine = np.diag([*spacing, 1.0]) if labels.ndim == 3 else None
    errors = {"organ": (0.2, 0.1)}
    slices = tuple((uid, 0) for uid in uids)
    return StudyMask(
        labels, NAMES, tuple(class_colors(3)), affine, spacing, slices, errors=errors, **fields
    )


def prediction(masks: list[StudyMask], files: list[Any]) -> Prediction:
    slices = tuple(tuple(mask.slices) for mask in masks)
    return Prediction(
        {}, {}, masks=tuple(masks), slices=slices, model_sha256="ab" * 32, files=tuple(files)
    )


def test_the_segmentation_equals_the_mask_on_every_slice(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
    images = [ct_slice(n) for n in (2, 0, 1, 3)]  # files in any order
    files = [file_bytes(image) for image in images]
    labels = np.random.default_rng(0).integers(0, 3, (4, 9, 13)).astype(np.uint8)
    labels[1] = 0  # a slice without anything
    order = sorted(images, key=lambda image: image.ImagePositionPatient[2])
    uids = [str(image.SOPInstanceUID) for image in order]
    mask = predicted(labels, uids)
    made = write_objects(prediction([mask], files), files, CARD, tmp_path, HERE)
    assert made.refused == ()
    (segmentation,) = tmp_path.glob("*_segmentation_1.dcm")
    (report,) = tmp_path.glob("*_report.dcm")
    assert {segmentation.name, report.name} < set(made.files)
    assert validation_errors(segmentation) == validation_errors(report) == []
    raw = read_segmentation(segmentation, ClassNames())
    slots = {frame[0]: n for n, frame in enumerate(raw.frames) if frame}
    for n, uid in enumerate(uids):
        for value, name in enumerate(NAMES[1:], start=1):
            stored = raw.label_map.plane(name)[slots[uid]] if uid in slots else np.zeros((9, 13))
            np.testing.assert_array_equal(stored, labels[n] == value)
    groups = _numbers(report)
    ml = mask.counts["organ"] * 2.5 * 0.7 * 0.8 / 1000
    assert groups["organ"]["Volume"] == pytest.approx(ml)
    low = "Lower bound of the volume by the conformal error"
    assert groups["organ"][low] == pytest.approx(0.8 * ml)
    assert set(groups["tumor"]) == {"Volume"}  # no interval in the card
    (fhir,) = tmp_path.glob("*_fhir.json")
    sizes = [e["resource"] for e in json.loads(fhir.read_text())["entry"][1:]]
    assert sizes[0]["valueQuantity"] == {
        "value": pytest.approx(ml),
        "unit": "mL",
        "system": "http://unitsofmeasure.org",
        "code": "mL",
    }
    assert object_lines([made.as_dict()]) == ["DICOM and FHIR objects: 4 files"]


def test_two_films_have_a_segmentation_each_and_areas(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
    images = [radiograph(n) for n in range(2)]
    files = [file_bytes(image) for image in images]
    masks = [
        predicted(np.full((20, 30), n + 1, np.uint8), [str(image.SOPInstanceUID)])
        for n, image in enumerate(images)
    ]
    made = write_objects(prediction(masks, files), files, CARD, tmp_path, HERE)
    assert made.refused == ()
    for n in (1, 2):
        (path,) = tmp_path.glob(f"*_segmentation_{n}.dcm")
        raw = read_segmentation(path, ClassNames())
        assert raw.label_map.plane(NAMES[n]).all()
    (report,) = tmp_path.glob("*_report.dcm")
    assert validation_errors(report) == []
    assert _numbers(report)["mask 2 tumor"]["Area"] == pytest.approx(600 * 0.7 * 0.8)


def test_without_a_spacing_pixels_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
    image = radiograph()
    files = [file_bytes(image)]
    mask = predicted(np.ones((20, 30), np.uint8), [str(image.SOPInstanceUID)])
    write_objects(prediction([replace(mask, spacing_mm=None)], files), files, CARD, tmp_path, HERE)
    (report,) = tmp_path.glob("*_report.dcm")
    assert validation_errors(report) == []
    assert _numbers(report)["organ"] == {"Number of pixels or voxels": 600}


def test_what_has_no_objects_is_named_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
    image = ct_slice(0)
    files = [file_bytes(image)]
    labels = np.ones((1, 9, 13), np.uint8)
    mask = predicted(labels, [str(image.SOPInstanceUID)])
    whole = prediction([mask], files)
    resampled = replace(whole, masks=(replace(mask, slices=(), is_resampled=True),))
    made = write_objects(resampled, files, CARD, tmp_path, HERE)
    assert [row["code"] for row in made.refused] == ["resampled_grid"]
    assert len(made.files) == 3
    assert write_objects(replace(whole, refused="no"), files, CARD, tmp_path, HERE).files == ()
    no_dicom = write_objects(whole, [b"\x89PNG\r\n\x1a\n"], CARD, tmp_path, HERE)
    assert [row["code"] for row in no_dicom.refused] == ["no_dicom_image"]
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    absent = write_objects(whole, files, CARD, tmp_path, HERE)
    assert [row["code"] for row in absent.refused] == ["no_highdicom"]
    (line,) = object_lines([absent.as_dict(), {"refused": "another"}])
    assert line.startswith("objects that were not written: 1 no_highdicom: ")


def _numbers(path: Path) -> dict[str, dict[str, float]]:
    """Tracking identifier -> meaning of a measurement -> value, of a report."""
    groups: dict[str, dict[str, float]] = {}

    def walk(items: Any, name: str) -> None:
        for item in items:
            meaning = item.ConceptNameCodeSequence[0].CodeMeaning
            if meaning == "Tracking Identifier":
                name = item.TextValue
            if item.ValueType == "NUM":
                value = item.MeasuredValueSequence[0].NumericValue
                groups.setdefault(name, {})[meaning] = float(value)
            walk(item.get("ContentSequence", ()), name)

    walk(dcmread(path).ContentSequence, "")
    return groups

"""The DICOM objects of a job: from a model file and received files to what a PACS gets."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from result_objects import ct_slice, radiograph, validation_errors

import medres
from medres.inference.boxes.box import Box
from medres.inference.decoder import Decoder
from medres.inference.masks.study_mask import StudyMask
from medres.inference.objects.study_objects import write_objects
from medres.inference.prediction import Prediction
from medres.results.identity import result_uid
from medres.results.result import results_of
from medres.results.writing import file_bytes
from medres.serve.model_process import ModelOptions, run_model
from medres.serve.objects import make_all, make_objects
from medres.serve.parts import FHIR, MAKER, EarlierResult, Objects, Part, part_key, predecessor_key

hd = pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")
KEY = "ab" * 32


@pytest.fixture(scope="module")
def study(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for number, image in enumerate(sorted((tiny_work.parent / "images").glob("TINY001*"))):
        shutil.copyfile(image, folder / f"{number:06d}.dcm")
    return folder


def answers_of(model: Path, *requests: dict[str, Any]) -> Iterator[Any]:
    answers: list[Any] = []
    options = ModelOptions(str(model), maker=MAKER)
    run_model(options, map(json.dumps, requests), lambda value: answers.append(json.dumps(value)))
    return (json.loads(answer).get("result") for answer in answers[1:])


def order_of(study: Path, out: Path, **more: Any) -> dict[str, Any]:
    order = {"verb": "make", "folder": str(study), "out": str(out), "key": KEY, "revision": 1}
    return order | {"predecessor": None, "created": 1.8e9} | more


def test_objects_state_what_the_answer_says_and_are_the_same_again(
    tiny_run: Path, study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    (prediction,), made, same, again, refused = answers_of(
        tiny_run / "model.keras",
        {"verb": "predict", "folder": str(study)},
        order_of(study, out),
        order_of(study, tmp_path / "same"),
        order_of(study, tmp_path / "b", revision=2, predecessor=("cd" * 32, [[]])),
        order_of(study, tmp_path / "c", key="ef" * 32, refusal=("too slow", "time_limit")),
    )
    assert [one["role"] for one in made] == ["report", "overlay"]
    assert [validation_errors(out / one["file"]) for one in made] == [[], []]
    report = hd.sr.Comprehensive3DSR.from_dataset(dcmread(out / made[0]["file"]))
    group = report.content.get_image_measurement_groups()[0]
    values = {m.name.value: m[0].MeasuredValueSequence[0] for m in group.get_measurements()}
    for name, content in (("probability", "probabilities"), ("threshold", "thresholds")):
        assert values[name].FloatingPointValue == prediction[content]["square"]
    source = dcmread(study / "000000.dcm")
    for one in made:
        dataset = dcmread(out / one["file"])
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.PatientID == source.PatientID
    assert [one["sop"] for one in made] == [
        result_uid(KEY, "report 1"),
        result_uid(KEY, "overlay 1"),
    ]
    assert same == made
    for one in made:
        assert (out / one["file"]).read_bytes() == (tmp_path / "same" / one["file"]).read_bytes()
    # a revision says that it is one, and of what
    assert [one["sop"] for one in again] == [one["sop"] for one in made]
    second = dcmread(tmp_path / "b" / again[0]["file"])
    (earlier,) = second.PredecessorDocumentsSequence
    (reference,) = earlier.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == result_uid("cd" * 32, "report 1")
    assert [one["role"] for one in refused] == ["report"]
    text = str(dcmread(tmp_path / "c" / refused[0]["file"]))
    assert "time_limit" in text
    assert "square" not in text


def two(prediction: Prediction, predictor: Any, part: Part) -> Objects:
    """A maker of two objects."""
    return Objects(
        [radiograph(0), radiograph(1)], [{"role": "overlay", "code": "truncated"}], {"entry": [1]}
    )


def test_a_full_disk_leaves_no_half_of_the_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [file_bytes] * 3

    def full(dataset: Dataset) -> bytes:
        if not files:
            raise OSError(errno.ENOSPC, "full")
        return files.pop()(dataset)

    monkeypatch.setattr("medres.serve.objects.file_bytes", full)
    sys.modules.setdefault(__name__, sys.modules[two.__module__])
    (tmp_path / "study").mkdir()
    out = tmp_path / "objects"
    order: Any = order_of(tmp_path / "study", out / "first", refusal=("too slow", "time_limit"))
    out.mkdir()
    (out / "first.new").mkdir()  # of a process that was killed
    made = make_all(SimpleNamespace(), f"{__name__}:two", order, fhir=True)
    assert json.loads((out / "first" / FHIR).read_text()) == {"entry": [1]}
    assert [(one["file"], one.get("code")) for one in made] == [
        ("0000.dcm", None),
        ("0001.dcm", None),
        ("", "truncated"),
    ]
    with pytest.raises(OSError, match="full"):
        make_all(SimpleNamespace(), f"{__name__}:two", order | {"out": str(out / "second")})
    assert [path.name for path in out.iterdir()] == ["first"]


def test_parts_of_a_study_have_keys_of_their_own_and_know_what_they_replace() -> None:
    keys = [part_key(KEY, number) for number in range(3)]
    assert (keys[0], len({*keys})) == (KEY, 3)
    earlier = EarlierResult("cd" * 32, [["1.1"], ["1.2", "1.3"]])
    assert predecessor_key(earlier, ["1.3"]) == part_key("cd" * 32, 1)
    assert predecessor_key(earlier, ["1.4"]) == ""
    assert predecessor_key(earlier, []) == "cd" * 32
    assert predecessor_key(None, ["1.1"]) == ""


def predictor_like(image: Dataset) -> Any:
    """What `make_objects` needs of the predictor of such images."""
    kind = "ct" if image.Modality == "CT" else "radiograph"
    card = SimpleNamespace(
        windows=[(40.0, 400.0)],
        preprocess=SimpleNamespace(kind=kind, form="image", sha256="cd" * 32),
        task="segmentation",
        training={},
    )
    return SimpleNamespace(
        card=card,
        artefact=SimpleNamespace(card=card, sha256="ab" * 32, signer=None),
        decoder=Decoder(isolate=False),
    )


def made_of(prediction: Prediction, datasets: list[Dataset], folder: Path) -> list[Dataset]:
    files = []
    for number, dataset in enumerate(datasets):
        files.append(folder / f"{number}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    part = Part(files, KEY, revision=1, predecessor="", created=1.8e9)
    objects = make_objects(prediction, predictor_like(datasets[0]), part)
    made = objects.datasets
    assert objects.refused == []
    assert (objects.fhir is not None) == bool(made)
    for number, one in enumerate(made):
        one.save_as(folder / f"made{number}.dcm", enforce_file_format=True)
        assert validation_errors(folder / f"made{number}.dcm") == []
    return made


def test_masks_become_a_report_with_volumes_an_overlay_and_a_segmentation(tmp_path: Path) -> None:
    slices = [ct_slice(number) for number in range(3)]
    labels = np.zeros((3, 9, 13), np.uint8)
    labels[1, 2:5, 3:7] = 1
    uids = tuple(str(one.SOPInstanceUID) for one in slices)
    mask = StudyMask(
        labels, ("background", "lung"), ((0, 0, 0), (0, 158, 115)), np.eye(4), (2.5, 0.7, 0.8),
        tuple((uid, 0) for uid in uids),
    )  # fmt: skip
    prediction = Prediction({}, {}, masks=(mask,), sop_instance_uids=uids)
    report, overlay, segmentation = made_of(prediction, slices, tmp_path)
    (group,) = hd.sr.Comprehensive3DSR.from_dataset(report).content.get_image_measurement_groups()
    (volume,) = group.get_measurements()
    assert (volume.name.value, volume.unit.value) == ("118565006", "ml")
    assert float(volume.value) == pytest.approx(12 * 2.5 * 0.7 * 0.8 / 1000)
    assert overlay.SourceImageSequence[0].ReferencedSOPInstanceUID == uids[1]
    seg = hd.seg.Segmentation.from_dataset(segmentation)
    pixels = seg.get_pixels_by_source_instance(list(uids), combine_segments=True)
    np.testing.assert_array_equal(pixels, labels)


def test_boxes_become_regions_and_the_image_with_the_surest_one_is_shown(tmp_path: Path) -> None:
    images = [radiograph(number) for number in range(2)]
    uids = tuple(str(one.SOPInstanceUID) for one in images)
    boxes = [Box("nodule", 0.4, 1, 2, 9, 8, uids[0]), Box("nodule", 0.9, 3, 3, 9, 9, uids[1])]
    prediction = Prediction({}, {}, sop_instance_uids=uids, boxes=boxes)
    report, overlay = made_of(prediction, images, tmp_path)
    groups = hd.sr.Comprehensive3DSR.from_dataset(report).content
    assert len(groups.get_planar_roi_measurement_groups()) == 2
    assert overlay.SourceImageSequence[0].ReferencedSOPInstanceUID == uids[1]


def test_the_fhir_bundle_is_that_of_the_command_line(tmp_path: Path) -> None:
    image = radiograph()
    image.save_as(tmp_path / "0.dcm", enforce_file_format=True)
    uid = str(image.SOPInstanceUID)
    prediction = Prediction(
        {"nodule": 0.7}, {"nodule": True}, sop_instance_uids=(uid,), slices=(((uid, 0),),),
        model_sha256="ab" * 32, thresholds={"nodule": 0.5},
    )  # fmt: skip
    predictor: Any = predictor_like(image)
    written = write_objects(
        prediction, [tmp_path / "0.dcm"], predictor.card, tmp_path / "out", predictor.decoder
    )
    (name,) = [file for file in written.files if "fhir" in file]
    line = json.loads((tmp_path / "out" / name).read_text())
    key = json.loads(next((tmp_path / "out").glob("*_result.json")).read_text())["result_key"]
    part = Part([tmp_path / "0.dcm"], key, revision=1, predecessor="", created=1.8e9)
    served = make_objects(prediction, predictor, part).fhir
    for bundle in (line, served):
        for entry in [bundle, *(entry["resource"] for entry in bundle["entry"])]:
            for varying in ("timestamp", "issued", "note", "conclusion"):  # the time, and UNSIGNED
                entry.pop(varying, None)
    assert served == line


def test_a_study_without_images_has_no_object(tmp_path: Path) -> None:
    text = radiograph()
    del text.Rows
    refused = Prediction({}, {}, refused="no image", code="no_image")
    assert made_of(refused, [text], tmp_path) == []


def test_a_result_of_the_python_api_has_the_same_identity(
    tiny_run: Path, study: Path, tmp_path: Path
) -> None:
    """results_of, with the contents that the spool holds, gives the key of the job."""
    with medres.load(tiny_run / "model.keras", isolate=False) as predictor:
        prediction = predictor.predict(study)
        model = medres.results.model_identity(predictor.card, prediction.model_sha256)
        datasets = [dcmread(path) for path in sorted(study.iterdir())]
        from medres.serve.instances import read_instance

        held = [read_instance(path) for path in sorted(study.iterdir())]
        key = medres.results.result_key(
            model.sha256, model.preprocessing_sha256, [(one.sop, one.sha256) for one in held]
        )
    assert results_of(prediction, datasets, model).key == key

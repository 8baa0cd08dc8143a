from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers import raises_code
from PIL import Image

from data_pipelines.dicom.eligibility import eligible_kind
from data_pipelines.dicom.header import read_header
from data_pipelines.errors import DicomError, InputError, LabelError
from data_pipelines.pixels.image import read_image
from data_pipelines.sources import dicom_wrapper
from data_pipelines.sources.dicom_wrapper import wrap

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30)).astype(np.uint8)


def picture(path: Path, pixels: np.ndarray = GREY, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    picture(folder / "a" / "one.png")
    picture(
        folder / "a" / "two.JPG", np.tile(np.arange(30, dtype=np.uint8), (20, 1)), format="JPEG"
    )
    picture(folder / "deep.png", RNG.integers(0, 4096, (20, 30)).astype(np.uint16))
    (folder / "notes.txt").write_text("x")
    return folder


def test_a_wrapped_png_keeps_its_pixels_and_claims_nothing_more(
    source: Path, tmp_path: Path
) -> None:
    summary = wrap(source, tmp_path / "out", body_part="CHEST", burned_in="NO")
    assert summary["given"] == 4
    assert (summary["written"], summary["skipped"], summary["reasons"]) == (
        3,
        1,
        {"not_a_picture": 1},
    )
    path = tmp_path / "out" / "a" / "one.dcm"
    dataset = pydicom.dcmread(path)
    assert (dataset.pixel_array == GREY).all()
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert (dataset.Modality, dataset.BodyPartExamined, dataset.BurnedInAnnotation) == (
        "CR",
        "CHEST",
        "NO",
    )
    assert dataset.LossyImageCompression == "00"
    assert dataset.PhotometricInterpretation == "MONOCHROME2"
    absent = (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "Laterality",
        "LossyImageCompressionMethod",
        "PatientAge",
    )
    assert not [name for name in absent if name in dataset]
    assert not [
        dataset[name].value
        for name in ("PatientName", "StudyDate", "PatientSex")
        if dataset[name].value
    ]
    assert np.abs(read_image(path).pixels - GREY / 255).max() < 1e-6


def test_a_wrapped_jpeg_keeps_its_history(source: Path, tmp_path: Path) -> None:
    wrap(source, tmp_path / "out")
    dataset = pydicom.dcmread(tmp_path / "out" / "a" / "two.dcm")
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"
    size = (source / "a" / "two.JPG").stat().st_size
    assert float(dataset.LossyImageCompressionRatio) == pytest.approx(600 / size, rel=1e-3)
    assert "BurnedInAnnotation" not in dataset


def test_sixteen_bits_stay_and_no_window_is_invented(source: Path, tmp_path: Path) -> None:
    wrap(source, tmp_path / "out")
    dataset = pydicom.dcmread(tmp_path / "out" / "deep.dcm")
    assert dataset.BitsStored == 16
    assert "WindowCenter" not in dataset
    assert (dataset.pixel_array == np.asarray(Image.open(source / "deep.png"))).all()


def test_uids_follow_from_content_and_path(source: Path, tmp_path: Path) -> None:
    picture(source / "same_content.png", GREY)
    for name in ("out", "again"):
        wrap(source, tmp_path / name)
    first, again = (
        {p.relative_to(o): p.read_bytes() for p in o.rglob("*.dcm")}
        for o in (tmp_path / "out", tmp_path / "again")
    )
    assert first == again
    uids = {str(pydicom.dcmread(p).SOPInstanceUID) for p in (tmp_path / "out").rglob("*.dcm")}
    assert len(uids) == 4


def test_secondary_captures_must_deny_burned_in_text(source: Path, tmp_path: Path) -> None:
    assert "burned_in" in str(wrap(source, tmp_path / "unsaid", modality="SC")["notes"])
    with pytest.raises(DicomError) as caught:
        eligible_kind(read_header(tmp_path / "unsaid" / "deep.dcm"))
    assert caught.value.code == "burned_in"
    wrap(source, tmp_path / "said", modality="SC", burned_in="NO")
    assert eligible_kind(read_header(tmp_path / "said" / "deep.dcm")) == "radiograph"


def test_labels_travel_with_new_paths(source: Path, tmp_path: Path) -> None:
    labels = source / "labels.csv"
    labels.write_text(
        "path,patient,age,sex,view,pneumonia,split\n"
        "a/one.png,P 1,12.7,female,pa,1,train\n"
        "a\\two.JPG,P 1,1.5,,,0,train\n"
        "gone.png,P 2,,,,0,test\n"
    )
    summary = wrap(source, tmp_path / "out", labels=labels)
    assert summary["given"] == 4
    assert (summary["patients"], summary["label_rows_without_picture"]) == (2, 1)
    assert str(summary["notes"]).count("1 images have no patient") == 1
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["a/one.dcm", "a/two.dcm", "gone.png"]
    assert [row["pneumonia"] for row in rows] == ["1", "0", "0"]
    one, two, deep = (
        pydicom.dcmread(tmp_path / "out" / p) for p in ("a/one.dcm", "a/two.dcm", "deep.dcm")
    )
    assert (one.PatientID, one.PatientAge, one.PatientSex, one.ViewPosition) == (
        "P 1",
        "012Y",
        "F",
        "PA",
    )
    assert (two.PatientID, two.PatientAge, two.PatientSex) == ("P 1", "018M", "")
    assert deep.PatientID.startswith("picture-")


def test_names_that_would_meet_stay_apart(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "x.png")
    picture(tmp_path / "in" / "x.jpg")
    picture(tmp_path / "in" / "y.png")
    wrap(tmp_path / "in", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "x.jpg.dcm",
        "x.png.dcm",
        "y.dcm",
    ]


@pytest.mark.parametrize(
    ("table", "code", "mention"),
    [
        ("patient_id,x\np,1\n", "no_path_column", "path"),
        ("path,x\na/one.png,1\na/./one.png,1\n", "duplicate_key", "row 3"),
        (
            "path,patient\na/one.png," + "CANARY" * 11 + "\n",
            "invalid_patient_id",
            "column patient, row 2",
        ),
        ("path,patient\na/one.png,CAN\\ARY\n", "invalid_patient_id", "column patient, row 2"),
        ("path,age\na/one.png,CANARY\n", None, "column age, row 2"),
    ],
)
def test_bad_labels(
    source: Path, tmp_path: Path, table: str, code: str | None, mention: str
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(table)
    with pytest.raises(LabelError) as caught:
        wrap(source, tmp_path / "out", labels=labels)
    assert code in (None, caught.value.code)
    assert mention in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_arguments(source: Path, tmp_path: Path) -> None:
    with raises_code(InputError, "wrap_modality", "CR"):
        wrap(source, tmp_path / "out", modality="CT")
    with raises_code(InputError, "body_part"):
        wrap(source, tmp_path / "out", body_part="chest")
    with raises_code(InputError, "output_exists"):
        wrap(source, source)
    (tmp_path / "empty").mkdir()
    with raises_code(InputError, "no_pictures"):
        wrap(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_on_ctrl_c(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        dicom_wrapper.wrap(source, tmp_path / "out", progress=interrupt)
    assert sorted(tmp_path.iterdir()) == before


def test_color_is_skipped_or_becomes_luminance_as_asked(tmp_path: Path) -> None:
    red = np.stack([GREY, GREY // 4, GREY // 4], axis=-1)
    picture(tmp_path / "s" / "gray.png")
    picture(tmp_path / "s" / "red.png", red)
    assert wrap(tmp_path / "s", tmp_path / "a")["reasons"] == {"colour": 1}
    summary = wrap(tmp_path / "s", tmp_path / "b", color="luminance")
    assert (summary["written"], summary["skipped"]) == (2, 0)
    wrapped = pydicom.dcmread(tmp_path / "b" / "red.dcm")
    assert wrapped.PhotometricInterpretation == "MONOCHROME2"
    assert "BT.601" in wrapped.DerivationDescription

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image as Pillow
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import DicomError, InputError, NotDicom
from data_pipelines.ingestion.file_inspection import inspect_file, inspect_path
from data_pipelines.ingestion.index import IDENTIFIERS, index_sources
from data_pipelines.runtime import storage

PIXELS = np.random.default_rng(0).integers(0, 4096, (16, 12)).astype(np.uint16)


def make(
    modality: str = "CR",
    *,
    pixels: np.ndarray = PIXELS,
    syntax: str = ExplicitVRLittleEndian,
    name: str = "a",
) -> Dataset:
    uids = {
        "study": derived_uid("study"),
        "series": derived_uid("series", modality),
        "sop": derived_uid(name),
    }
    dataset = new_dataset(modality, syntax, patient_id="ID 7", patient="N", **uids)
    dataset.PatientAge, dataset.PatientSex = "093Y", "F"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Maker", "Model"
    dataset.ViewPosition, dataset.BodyPartExamined = "PA", "CHEST"
    dataset.IssuerOfPatientID = "Issuer"
    if modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.PixelSpacing = [0.5, 0.25]
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = (
            [1, 0, 0, 0, 1, 0],
            [1, 2, 3],
        )
    set_pixels(dataset, pixels, bits=12)
    return dataset


def inspect(dataset: Dataset, tmp_path: Path, **options: bool) -> list[dict]:
    save(dataset, tmp_path / "x.dcm")
    return inspect_file(
        str(tmp_path / "x.dcm"), for_processing=options.get("for_processing", False)
    )


def code(dataset: Dataset, tmp_path: Path, **options: bool) -> str:
    with pytest.raises(DicomError) as caught:
        inspect(dataset, tmp_path, **options)
    return caught.value.code


def test_sop_class_and_spacing_at_the_detector_are_kept_apart(tmp_path: Path) -> None:
    dataset = make()
    dataset.ImagerPixelSpacing = [0.25, 0.125]
    (row,) = inspect(dataset, tmp_path)
    assert (row["detector_row_spacing"], row["detector_col_spacing"]) == (0.25, 0.125)
    assert np.isnan([row["row_spacing"], row["col_spacing"]]).all()
    assert row["sop_class"] == ComputedRadiographyImageStorage
    dataset.SOPClassUID = "1.2.3.4"
    (row,) = inspect(dataset, tmp_path)
    assert row["sop_class"] == "private"


def test_a_radiograph_becomes_a_row(tmp_path: Path) -> None:
    (row,) = inspect(make(), tmp_path)
    assert {
        k: row[k]
        for k in ("kind", "modality", "view", "body_part", "sex", "age", "manufacturer", "model")
    } == {
        "kind": "radiograph",
        "modality": "CR",
        "view": "PA",
        "body_part": "CHEST",
        "sex": "F",
        "age": 90.0,
        "manufacturer": "Maker",
        "model": "Model",
    }
    assert (row["rows"], row["cols"], row["frame"], row["status"], row["repairs"]) == (
        16,
        12,
        0,
        "ok",
        "",
    )
    assert np.isnan(row["row_spacing"])
    assert [row[k] for k in ("patient_id", "issuer", "study_uid")] == [
        "ID 7",
        "Issuer",
        derived_uid("study"),
    ]
    assert row["transfer_syntax"] == ExplicitVRLittleEndian


def test_a_slice_becomes_a_row(tmp_path: Path) -> None:
    (row,) = inspect(make("CT"), tmp_path)
    assert (row["kind"], row["row_spacing"], row["col_spacing"]) == ("ct", 0.5, 0.25)
    assert row["plane"].position == (1, 2, 3)


def test_pixels_have_one_hash_in_every_syntax_and_polarity(tmp_path: Path) -> None:
    other = make(syntax=ImplicitVRLittleEndian)
    inverse = make(pixels=4095 - PIXELS)
    inverse.PhotometricInterpretation = "MONOCHROME1"
    different = make(pixels=PIXELS + (PIXELS[0, 0] == PIXELS).astype(np.uint16))
    hashes = [inspect(d, tmp_path)[0]["pixel_sha256"] for d in (make(), other, inverse, different)]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]


def test_every_frame_is_a_row(tmp_path: Path) -> None:
    dataset = make("CT")
    frames = np.stack([PIXELS, PIXELS[::-1], PIXELS[:, ::-1]])
    dataset.NumberOfFrames, dataset.PixelData = 3, frames.tobytes()
    rows = inspect(dataset, tmp_path)
    assert [row["frame"] for row in rows] == [0, 1, 2]
    assert len({row["pixel_sha256"] for row in rows}) == 3
    assert rows[0]["pixel_sha256"] == inspect(make("CT"), tmp_path)[0]["pixel_sha256"]


def test_what_is_no_picture_to_learn_from_has_a_reason(tmp_path: Path) -> None:
    assert code(make(pixels=np.full_like(PIXELS, 7)), tmp_path) == "constant_pixels"
    unscaled = make("CT")
    del unscaled.RescaleSlope, unscaled.RescaleIntercept
    assert code(unscaled, tmp_path) == "not_hu"
    localizer = make("CT")
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert code(localizer, tmp_path) == "localizer"
    raw = make("DX")
    raw.PresentationIntentType = "FOR PROCESSING"
    assert code(raw, tmp_path) == "for_processing"
    assert inspect(raw, tmp_path, for_processing=True)[0]["kind"] == "radiograph"


def test_no_dicom(tmp_path: Path) -> None:
    for content in (b"", b"text", bytes(4000)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(NotDicom):
            inspect_file(str(tmp_path / "x"))


def test_a_mixed_folder_gives_every_file_a_row_or_a_reason(tmp_path: Path) -> None:
    root = tmp_path / "in"
    save(make(name="a"), root / "b" / "good.dcm")
    save(make("CT", name="b"), root / "folder.dcm" / "slice")
    whole = (root / "b" / "good.dcm").read_bytes()
    (root / "cut.dcm").write_bytes(whole[:-20])
    (root / "header_cut.dcm").write_bytes(whole[:300])
    (root / "empty.dcm").touch()
    (root / "labels.csv").write_text("path\n")
    (root / "notes.txt").write_text("hello")
    os.mkfifo(root / "pipe.dcm")
    (root / "link.dcm").symlink_to(root / "b" / "good.dcm")
    done: list[tuple[int, int]] = []
    index = index_sources(
        [root], exclude=[root / "labels.csv"], workers=1, progress=lambda *n: done.append(n)
    )
    assert index.rows["path"].tolist() == ["b/good.dcm", "folder.dcm/slice"]
    assert set(index.rows["source"]) == {str(root.resolve())}
    assert {*IDENTIFIERS, "plane"} <= set(index.rows)
    reasons = {r.path: (r.reason, r.skipped) for r in index.rejected}
    assert reasons == {
        "cut.dcm": ("truncated_pixels", False),
        "header_cut.dcm": ("no_image", False),
        "empty.dcm": ("not_dicom", True),
        "notes.txt": ("not_dicom", True),
        "link.dcm": ("symbolic_link", True),
        "pipe.dcm": ("special_file", True),
    }
    assert done[-1] == (6, 6)


def test_sources_lie_apart(tmp_path: Path) -> None:
    save(make(), tmp_path / "in" / "deep" / "a.dcm")
    for sources in (
        ["in", "in"],
        ["in", "in/deep"],
        ["in/deep/a.dcm", "in"],
        ["in/deep/a.dcm", "in/deep/a.dcm"],
    ):
        with raises_code(InputError, "sources"):
            index_sources([tmp_path / source for source in sources])
    with raises_code(InputError, "no_source"):
        index_sources([tmp_path / "absent"])


def test_a_decode_worker_loads_neither_tensorflow_nor_pandas() -> None:
    rooms = (
        "data_pipelines.ingestion.file_inspection, data_pipelines.cache.worker, "
        "medres.inference.batch"
    )
    heavy = {"tensorflow", "keras", "torch", "pandas", "sklearn"}
    script = f"import sys, {rooms}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["x.dcm", "x.png", "x.npz"])
def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pixels = np.arange(900, dtype=np.uint8).reshape(30, 30)
    path = tmp_path / name
    if name == "x.dcm":
        save(make(), path)
    elif name == "x.png":
        Pillow.fromarray(pixels).save(path)
    else:
        np.savez(path, train_images=pixels[None])
    reads: list[int] = []

    class Counted(storage._TimedFile):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            reads.append(len(data))
            return data

        def readinto(self, buffer) -> int | None:
            count = super().readinto(buffer)
            reads.append(count or 0)
            return count

    monkeypatch.setattr(storage, "_TimedFile", Counted)
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr("builtins.open", None)
    assert len(inspect_path(str(path), for_processing=False, units="display")) == 1
    assert sum(reads) == path.stat().st_size

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image as Pillow

from data_pipelines.cache.store import ensure_cache
from data_pipelines.cache.tf_dataset import datasets
from data_pipelines.cache.worker import FileRef, WorkItem, prepare_files
from data_pipelines.errors import CacheError, DicomError, LabelError, ManifestError, SplitError
from data_pipelines.ingestion.file_inspection import inspect_path
from data_pipelines.ingestion.index import index_sources
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.preprocessing.samples import SampleSlices
from data_pipelines.preprocessing.spec import spec_from
from data_pipelines.runtime.limits import limited
from data_pipelines.sources.dicom_wrapper import wrap
from data_pipelines.sources.image_source import (
    file_format_of,
    npz_images,
    raster_image,
    read_row,
)

RNG = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("in_process")


def grey(count: int, side: int = 28, dtype: str = "uint8") -> np.ndarray:
    info = np.iinfo(dtype)
    return RNG.integers(max(info.min, -1024), min(info.max, 3000) + 1, (count, side, side)).astype(
        dtype
    )


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels).save(path, **options)
    return path


def medmnist(
    path: Path,
    *,
    counts: tuple[int, int, int] = (12, 4, 6),
    dtype: str = "uint8",
    **changed: object,
) -> Path:
    arrays: dict = {}
    for name, count in zip(("train", "val", "test"), counts, strict=True):
        arrays |= {
            f"{name}_images": grey(count, dtype=dtype),
            f"{name}_labels": (np.arange(count) % 2)[:, None],
        }
    np.savez(path, **{k: v for k, v in {**arrays, **changed}.items() if v is not None})
    return path


def reason(path: Path, units: str = "display") -> str:
    try:
        ((_, rejection),) = inspect_path(str(path), for_processing=False, units=units)
    except DicomError as error:
        return error.code
    return rejection.error.code


def test_forms_are_told_by_content(tmp_path: Path) -> None:
    assert file_format_of(save(tmp_path / "a.jpg", grey(1)[0], format="PNG")) == "png"
    jpeg = save(tmp_path / "b.dcm", grey(1)[0], format="JPEG")
    assert (file_format_of(jpeg), file_format_of(jpeg.read_bytes())) == ("jpeg", "jpeg")
    assert file_format_of(medmnist(tmp_path / "c.npz")) == "npz"
    assert file_format_of((tmp_path / "c.npz").rename(tmp_path / "c.zip")) == "dicom"
    assert file_format_of(tmp_path / "absent") == "dicom"


def test_eight_bits_are_divided_by_255_and_sixteen_stretched() -> None:
    eight, sixteen = grey(1)[0], grey(1, dtype="uint16")[0]
    for pixels, expected in (
        (eight, eight / 255),
        (sixteen, (sixteen - sixteen.min()) / np.ptp(sixteen).astype(float)),
    ):
        data = io.BytesIO()
        Pillow.fromarray(pixels).save(data, format="PNG")
        image = raster_image(data.getvalue(), "display")
        np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
        assert (image.units, image.kind, image.spacing_mm) == ("display", "radiograph", None)


def test_hu_come_from_signed_arrays_alone(tmp_path: Path) -> None:
    signed = medmnist(tmp_path / "s.npz", dtype="int16")
    manifest = ingest(signed, units="HU", workers=1)
    assert set(manifest.table["kind"]) == {"ct"}
    row = manifest.table[manifest.table["path"] == "s.npz#val/2"].iloc[0]
    image = read_row(
        row["source"], row["path"], 0, file_format="npz", kind="ct", sha256=row["file_sha256"]
    )
    with np.load(signed) as arrays:
        assert (image.pixels == arrays["val_images"][2]).all()
    for path, units in ((medmnist(tmp_path / "u.npz"), "HU"), (signed, "display")):
        codes = {
            rejection.error.code
            for _, rejection in inspect_path(str(path), for_processing=False, units=units)
        }
        assert codes == {"not_hu" if units == "HU" else "not_display"}
    assert reason(save(tmp_path / "p.png", grey(1)[0]), "HU") == "not_hu"


def test_medmnist_form_keeps_its_split_and_labels_end_to_end(tmp_path: Path) -> None:
    source = medmnist(tmp_path / "toy.npz")
    work = tmp_path / "work"
    manifest = ingest(source, out=work, units="display", findings=["nodule"], workers=1)
    assert manifest.summary["given"] == manifest.summary["ok"] == 22
    assert (manifest.summary["task"], manifest.summary["findings"]) == ("binary", ["nodule"])
    assert {k: v["images"] for k, v in manifest.summary["splits"].items()} == {
        "train": 12,
        "tune": 4,
        "test": 6,
    }
    assert "22 images with no patient ID" in " ".join(manifest.summary["warnings"])
    assert manifest.table["patient"].nunique() == 22
    with np.load(source) as arrays:
        pixels = {
            f"toy.npz#{s}/{n}": x
            for s in ("train", "val", "test")
            for n, x in enumerate(arrays[f"{s}_images"])
        }
        labels = {
            f"toy.npz#{s}/{n}": y
            for s in ("train", "val", "test")
            for n, y in enumerate(arrays[f"{s}_labels"])
        }
    assert all(manifest.table["label:nodule"] == [labels[p][0] for p in manifest.table["path"]])
    cache = ensure_cache(work, "xray-28", workers=1)
    paths = manifest.table.set_index("image")["path"]
    for split, batches in zip(("tune", "test"), datasets(work, "xray-28", 3, 0)[1:], strict=True):
        rows = cache.images["image"][cache.images["split"] == split]
        got = np.concatenate([inputs["image"].numpy() for inputs, _, _ in batches])[..., 0]
        np.testing.assert_allclose(
            got, [pixels[paths[image]] / 255 for image in rows], atol=1 / 65535
        )


def test_npz_of_several_classes_and_of_several_findings(tmp_path: Path) -> None:
    classes = {
        f"{s}_labels": np.arange(n) % 11 for s, n in (("train", 12), ("val", 4), ("test", 6))
    }
    table = ingest(medmnist(tmp_path / "c.npz", **classes), units="display", workers=1)
    assert table.summary["classes"] == [f"{n:02d}" for n in range(11)]
    many = {
        f"{s}_labels": RNG.integers(-1, 2, (n, 3))
        for s, n in (("train", 12), ("val", 4), ("test", 6))
    }
    source = medmnist(tmp_path / "m.npz", **many)
    manifest = ingest(source, units="display", workers=1)
    assert (manifest.summary["task"], manifest.summary["findings"]) == (
        "multilabel",
        ["label0", "label1", "label2"],
    )
    rows = manifest.table.set_index("path")
    assert (
        rows.loc["m.npz#train/5", [f"label:label{n}" for n in range(3)]].tolist()
        == many["train_labels"][5].tolist()
    )
    with pytest.raises(LabelError) as caught:
        ingest(source, units="display", findings=["a", "b"], workers=1)
    assert "3 columns" in str(caught.value)


def test_one_blank_image_of_an_array_costs_one_image(tmp_path: Path) -> None:
    images = grey(12)
    images[3] = 7
    manifest = ingest(medmnist(tmp_path / "b.npz", train_images=images), units="display", workers=1)
    assert (manifest.summary["ok"], manifest.summary["reasons"]) == (21, {"constant_pixels": 1})
    assert manifest.quarantine["path"].tolist() == ["b.npz#train/3"]


def test_a_large_array_may_take_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def answers(function, items, *, timeout_s=None, **_: object):
        limits.extend(timeout_s(item) for item in items)
        return iter([(item, function(item)) for item in items])

    monkeypatch.setattr("data_pipelines.ingestion.index.parts.map_isolated", answers)
    source = tmp_path / "in"
    large = RNG.integers(0, 256, (3000, 28, 28)).astype(np.uint8)
    for name, more in (
        ("a", {"train_images": large, "train_labels": np.arange(3000) % 2}),
        ("b", {}),
    ):
        (source / name).mkdir(parents=True)
        medmnist(source / name / "x.npz", **more)
    save(source / "c.png", grey(1)[0])
    index = index_sources([source], units="display")
    size = (source / "a" / "x.npz").stat().st_size
    assert limits == [10 * size / 2**20, 10, 10]
    assert index.rows["path"].iloc[[0, -1]].tolist() == ["a/x.npz#train/0", "c.png"]


def test_copies_across_the_splits_of_an_array_are_refused_or_dropped(tmp_path: Path) -> None:
    train, val, test = grey(12), grey(4), grey(6)
    train[3], val[1], train[4] = test[2], test[3], val[2]
    source = medmnist(
        tmp_path / "l.npz",
        train_images=train,
        val_images=val,
        test_images=test,
        train_labels=np.tile([0, 1], 6),
        val_labels=[0, 1, 0, 1],
        test_labels=[0, 1, 1, 1, 0, 1],
    )
    with pytest.raises(SplitError) as caught:
        ingest(source, out=tmp_path / "work", units="display", workers=1)
    assert "3 " in str(caught.value)
    assert "--leaks drop" in str(caught.value)
    assert len((tmp_path / "work.leaks.csv").read_text().splitlines()) == 7
    manifest = ingest(source, units="display", on_leak="drop", workers=1)
    assert manifest.quarantine.set_index("path")["reason"].to_dict() == {
        "l.npz#train/3": "split_leak", "l.npz#val/1": "split_leak", "l.npz#train/4": "split_leak",
    }  # fmt: skip
    assert {k: v["images"] for k, v in manifest.summary["splits"].items()} == {
        "train": 10,
        "tune": 3,
        "test": 6,
    }


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"train_images": np.zeros((12, 8, 8, 3), "uint8")}, "array_shape"),
        ({"train_images": np.zeros((12, 8, 8), "float32")}, "array_type"),
        ({"train_images": np.array([{"a": 1}] * 12)}, "unreadable"),
        ({"train_labels": np.zeros(3, "uint8")}, "unreadable"),
        ({"train_labels": np.zeros(12)}, "unreadable"),
        ({"test_labels": np.zeros((6, 2), int)}, "unreadable"),
        ({"train_images": None, "val_images": None, "test_images": None}, "unreadable"),
        ({"train_images": np.zeros((70, 1000, 1000), "uint8")}, "limit_exceeded"),
    ],
)
def test_bad_arrays_have_a_reason(tmp_path: Path, changed: dict, code: str) -> None:
    path = medmnist(
        tmp_path / "x.npz", **{k: v for k, v in changed.items() if k != "train_images" or v is None}
    )
    if changed.get("train_images") is not None:
        arrays = dict(np.load(path))
        np.savez_compressed(path, **{**arrays, **changed})
    with limited(inflated=64 << 20):
        assert reason(path) == code


def test_damaged_and_colourful_files_have_a_reason(tmp_path: Path) -> None:
    whole = medmnist(tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / "x.npz") == "unreadable"
    colour = RNG.integers(0, 256, (9, 9, 3)).astype(np.uint8)
    assert reason(save(tmp_path / "c.png", colour)) == "colour"
    png = save(tmp_path / "d.png", grey(1)[0]).read_bytes()
    (tmp_path / "d.png").write_bytes(png[:-40])
    assert reason(tmp_path / "d.png") == "unreadable"
    assert reason(save(tmp_path / "e.png", np.full((9, 9), 5, np.uint8))) == "constant_pixels"
    with limited(file=100):
        assert reason(save(tmp_path / "f.png", grey(1)[0])) == "limit_exceeded"


def test_without_declared_units_pictures_stay_outside(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", grey(1)[0])
    with pytest.raises(ManifestError) as caught:
        ingest(tmp_path / "in", workers=1)
    assert "1 " in str(caught.value)
    assert "--units" in str(caught.value)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for label in ("cat", "dog"):
            for n in range(count):
                save(
                    tmp_path / "in" / split / label / f"{n}.{'png' if n % 2 else 'jpg'}", grey(1)[0]
                )
    return tmp_path / "in"


def test_class_folders(folders: Path) -> None:
    classes = ingest(folders, units="display", class_folders=True, workers=1)
    assert (classes.summary["task"], classes.summary["classes"]) == ("multiclass", ["cat", "dog"])
    assert {k: v["classes"]["dog"] for k, v in classes.summary["splits"].items()} == {
        "train": 6,
        "tune": 2,
        "test": 3,
    }
    binary = ingest(folders, units="display", class_folders=True, findings=["dog"], workers=1)
    assert all(binary.table["label:dog"] == binary.table["path"].str.contains("dog"))
    with pytest.raises(LabelError) as caught:
        ingest(folders, units="display", class_folders=True, findings=["bird"], workers=1)
    assert "cat, dog" in str(caught.value)
    with pytest.raises(LabelError) as caught:
        ingest(
            [folders / "val" / "cat", folders / "val" / "dog"],
            units="display",
            class_folders=True,
            workers=1,
        )
    assert "4 images" in str(caught.value)


def test_a_picture_and_its_wrapped_twin_are_the_same_picture(tmp_path: Path) -> None:
    for n in range(3):
        save(tmp_path / "in" / f"{n}.png", grey(1)[0])
    wrap(tmp_path / "in", tmp_path / "dicom")
    manifest = ingest([tmp_path / "in", tmp_path / "dicom"], units="display", workers=1)
    assert manifest.summary["reasons"] == {"duplicate_pixels": 3}
    assert set(manifest.table["form"]) == {"png"}


def test_a_table_names_patients_of_pictures_by_patient_or_patient_id(tmp_path: Path) -> None:
    lines = ["path,x,patient_id,split"]
    for n in range(9):
        save(tmp_path / "in" / f"{n}.png", grey(1)[0])
        lines.append(f"{n}.png,{n % 2},P{n // 3},{('train', 'valid', 'test')[n // 3]}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    manifest = ingest(tmp_path / "in", labels, units="display", workers=1)
    assert manifest.summary["patients"] == 3
    assert not any("patient" in text for text in manifest.summary["warnings"])
    assert [manifest.summary["splits"][s]["images"] for s in ("train", "tune", "test")] == [3, 3, 3]
    labels.write_text("\n".join(lines).replace("P2", "P0") + "\n")
    with pytest.raises(SplitError) as caught:
        ingest(tmp_path / "in", labels, units="display", workers=1)
    assert str(caught.value).startswith("1 ")


def test_a_changed_file_is_never_prepared(tmp_path: Path) -> None:
    path = medmnist(tmp_path / "x.npz")
    row = ingest(path, units="display", workers=1).table.iloc[0]
    medmnist(path)
    npz_images(path, hashlib.sha256(path.read_bytes()).hexdigest())
    file = FileRef(row["source"], row["path"], 0, "npz", "radiograph", row["file_sha256"])
    with raises_code(CacheError, "source_changed"):
        prepare_files(WorkItem((file,), (SampleSlices((0,)),), spec_from("xray-28")))


def test_no_cell_or_name_travels_in_an_error(tmp_path: Path) -> None:
    data = save(tmp_path / "CANARY.png", grey(1)[0]).read_bytes()
    with pytest.raises(DicomError) as caught:
        raster_image(data[:30] + b"CANARY", "display")
    assert "CANARY" not in str(caught.value)


@pytest.mark.long
def test_real_medmnist_file(medres_data: Path, tmp_path: Path) -> None:
    source = medres_data / "cxr-pneumonia-28" / "pneumoniamnist.npz"
    with pytest.raises(SplitError) as caught:
        ingest(source, out=tmp_path / "work", units="display", workers=2)
    assert "8 " in str(caught.value)
    manifest = ingest(source, out=tmp_path / "work", units="display", on_leak="drop", workers=2)
    assert {k: v["images"] for k, v in manifest.summary["splits"].items()} == {
        "train": 4682,
        "tune": 524,
        "test": 621,
    }
    assert Manifest.load(tmp_path / "work").table["label:label"].isin([0, 1]).all()

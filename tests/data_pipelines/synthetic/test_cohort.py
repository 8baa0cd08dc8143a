from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers import raises_code
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2_contingency, ks_2samp

from data_pipelines.errors import DicomError, InputError
from data_pipelines.ingestion.near_duplicates import near_duplicates
from data_pipelines.ingestion.perceptual_hash import perceptual_hash
from data_pipelines.pixels.image import read_image
from data_pipelines.synthetic import cohort as phantom
from data_pipelines.synthetic.anatomy import (
    Anatomy,
    Nodule,
    ct_slice,
    draw_anatomy,
    radiograph,
    radiograph_labels,
)
from data_pipelines.synthetic.cohort import make_cohort

ANATOMY = Anatomy(girth=0.9, lung=0.3, heart=0.25, ribs=0.1, lean=0.0, caliber=0.7)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("phantom") / "cohort", patients=18, seed=3)


@pytest.fixture(scope="module")
def headers(cohort: Path) -> dict[str, pydicom.Dataset]:
    files = sorted(cohort.rglob("*.dcm"))
    return {
        f.relative_to(cohort).as_posix(): pydicom.dcmread(f, stop_before_pixels=True) for f in files
    }


@pytest.fixture(scope="module")
def labels(cohort: Path) -> dict[str, dict[str, str]]:
    with (cohort / "labels.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_every_file_says_that_it_is_synthetic(headers: dict[str, pydicom.Dataset]) -> None:
    for dataset in headers.values():
        assert str(dataset.PatientName).startswith("PHANTOM^")
        assert dataset.PatientIdentityRemoved == "YES"
        assert "synthetic" in dataset.SeriesDescription
        assert "Not a patient" in dataset.ImageComments
        assert dataset.Manufacturer in phantom.MAKERS


def test_the_cohort_holds_what_real_folders_hold(
    headers: dict[str, pydicom.Dataset], cohort: Path
) -> None:
    whole = [d for path, d in headers.items() if "cut_short" not in path]
    assert len({d.PatientID for d in whole}) == 18
    assert {d.Modality for d in whole} == {"CR", "DX", "CT"}
    assert {d.PhotometricInterpretation for d in whole} == {"MONOCHROME1", "MONOCHROME2"}
    assert {d.Manufacturer for d in whole} == set(phantom.MAKERS)
    assert len({d.file_meta.TransferSyntaxUID for d in whole}) >= 7
    assert {"WindowCenter" in d for d in whole} == {True, False}
    assert sum("LOCALIZER" in d.ImageType for d in whole) == 1
    assert "VOILUTSequence" in next(d for d in whole if d.Modality == "DX")
    assert {"PixelPaddingValue" in d for d in whole if d.Modality == "CT"} == {True, False}
    assert (cohort / "PHANTOM-0001/copy.dcm").read_bytes() in [
        f.read_bytes() for f in (cohort / "PHANTOM-0001").iterdir() if f.name.startswith("visit")
    ]
    counts = Counter(d.SOPInstanceUID for d in whole)
    assert sorted(counts.values())[-2:] == [1, 2]  # the copy alone


def test_the_truncated_file_is_detected(cohort: Path) -> None:
    with pytest.raises(DicomError) as caught:
        read_image(cohort / "PHANTOM-0001/cut_short.dcm")
    assert caught.value.code == "truncated_pixels"


def test_labels_cover_all_images_but_the_localizer(
    headers: dict[str, pydicom.Dataset], labels: dict
) -> None:
    assert set(headers) - set(labels) == {"PHANTOM-0006/localizer.dcm"}
    assert set(labels) <= set(headers)
    assert {row["nodule"] for row in labels.values()} == {"0", "1"}
    for path, row in labels.items():
        assert headers[path].PatientAge == f"{int(row['age']):03d}Y"
        assert headers[path].PatientSex == row["sex"]


def test_radiographs_show_dense_as_bright_whatever_their_coding(
    cohort: Path, headers: dict
) -> None:
    for path, dataset in headers.items():
        if dataset.Modality == "CT" or "cut_short" in path:
            continue
        pixels = read_image(cohort / path).pixels
        rows, cols = pixels.shape
        air, spine = (
            pixels[: rows // 8, :3].mean(),
            pixels[-rows // 6 :, cols // 2 - 4 : cols // 2 + 4].mean(),
        )
        height = slice(int(rows * 0.40), int(rows * 0.46))
        lungs = [
            pixels[height, int(cols * left) : int(cols * (left + 0.05))].mean()
            for left in (0.26, 0.69)
        ]
        lung = min(lungs)  # the other one may hold the nodule
        assert air < 0.2 < lung + 0.05, path
        assert lung + 0.2 < spine, path


def test_ct_is_in_hounsfield_units_and_out_of_order_on_disk(cohort: Path, headers: dict) -> None:
    slices = {path: d for path, d in headers.items() if path.startswith("PHANTOM-0006/ct_")}
    heights = [d.ImagePositionPatient[2] for _, d in sorted(slices.items())]
    instances = [
        d.InstanceNumber
        for _, d in sorted(slices.items(), key=lambda item: item[1].ImagePositionPatient[2])
    ]
    assert sorted(heights) != heights
    assert instances == sorted(instances, reverse=True)
    for path, dataset in headers.items():
        if dataset.Modality == "CT" and "localizer" not in path:
            image = read_image(cohort / path)
            assert image.units == "HU"
            assert np.median(image.pixels[56:72, 56:72]) == pytest.approx(45, abs=15)
            assert image.pixels[0, 0] == (
                -1024 if "PixelPaddingValue" in dataset else pytest.approx(-1000, abs=110)
            )


def test_the_seed_makes_the_bytes(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> dict[str, bytes]:
        out = make_cohort(str(tmp_path / name), 6, seed)
        return {
            f.relative_to(out).as_posix(): f.read_bytes() for f in out.rglob("*") if f.is_file()
        }

    first, second, other = content("a", 1), content("b", 1), content("c", 2)
    assert first == second
    assert first["labels.csv"] != other["labels.csv"]


@pytest.mark.parametrize(("only", "modalities"), [("ct", {"CT"}), ("radiograph", {"CR", "DX"})])
def test_a_cohort_of_one_kind(tmp_path: Path, only: str, modalities: set[str]) -> None:
    out = make_cohort(tmp_path / only, patients=6, only=only)
    rows = list(csv.DictReader((out / "labels.csv").read_text().splitlines()))
    assert len({row["path"].split("/")[0] for row in rows}) == 6
    in_headers = {
        pydicom.dcmread(out / row["path"], stop_before_pixels=True).Modality for row in rows
    }
    assert in_headers == modalities


def test_nothing_is_left_when_the_disk_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(dataset: object, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(phantom, "save", full)
    with pytest.raises(OSError, match="No space left"):
        make_cohort(tmp_path / "out", patients=6)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(tmp_path: Path) -> None:
    (tmp_path / "used").touch()
    with raises_code(InputError, "output_exists"):
        make_cohort(tmp_path)
    with raises_code(InputError, "too_few_patients", "patients=5"):
        make_cohort(tmp_path / "new", patients=5)


def test_the_finding_depends_on_nothing_else() -> None:
    patients = [phantom._draw_patient(number, 0) for number in range(1, 1501)]
    sick = np.array([p.nodule is not None for p in patients])
    for other in (
        [p.maker for p in patients],
        [p.sex == "F" for p in patients],
        [p.number % 2 for p in patients],
    ):
        table = [[np.sum((sick == a) & (np.array(other) == b)) for b in (0, 1)] for a in (0, 1)]
        assert chi2_contingency(table).pvalue > 0.01
    ages = np.array([p.age for p in patients])
    assert ks_2samp(ages[sick], ages[~sick]).pvalue > 0.01


def test_a_nodule_adds_a_ball_of_its_contrast_at_its_place() -> None:
    nodule = Nodule(side=1, u=0.2, v=-0.3, radius=0.1, contrast=0.8)
    with_it, without = (
        radiograph(ANATOMY, np.random.default_rng(1), 120, 100, n) for n in (nodule, None)
    )
    extra = with_it - without
    row, col = np.unravel_index(np.argmax(extra), extra.shape)
    rng = np.random.default_rng(1)
    dx, dy = rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)
    assert extra.max() == pytest.approx(0.35 * 0.8, abs=0.01)
    assert col == pytest.approx(49.5 + 50 * (0.43 + 0.2 * 0.3 + dx), abs=1)
    assert row == pytest.approx(59.5 + 60 * (-0.08 - 0.3 * 0.6 + dy), abs=1)
    assert extra[0, 0] == 0


def test_patients_do_not_resemble_each_other() -> None:
    """With equal ribs, clavicles, diaphragm and heart there were 85 such pairs."""
    hashes = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hashes.append(perceptual_hash(4000 * radiograph(draw_anatomy(rng), rng, 96, 96)))
    assert near_duplicates(hashes, np.arange(60), show=0, limit=0.25).pairs <= 5
    assert near_duplicates(hashes, np.arange(60), show=0).pairs == 0


def test_a_lung_ends_at_its_diaphragm_in_the_image_and_in_its_labels() -> None:
    high = replace(ANATOMY, diaphragm=0.2)
    labels, low = (radiograph_labels(anatomy, Centered(0), 160, 144) for anatomy in (high, ANATOMY))
    row, column = 80 + int(0.3 * 80), 72 - int(0.43 * 72)
    assert (labels[row, column], low[row, column]) == (0, 1)
    assert labels[80, column] == low[80, column] == 1
    image, other = (radiograph(anatomy, Centered(0), 160, 144) for anatomy in (high, ANATOMY))
    around = slice(row - 3, row + 4), slice(column - 3, column + 4)
    assert image[around].mean() > other[around].mean() + 0.2


def test_vessels_belong_to_the_patient_and_lie_in_the_lungs() -> None:
    """The mean of images with other noise shows the same tree; another patient has another."""
    other = replace(ANATOMY, caliber=0.71)

    def tree(anatomy: Anatomy, seeds: range) -> np.ndarray:
        """What is finer than the organs, in a lung, without the shift of each image."""
        images = [radiograph(anatomy, Centered(seed), 160, 144) for seed in seeds]
        mean = np.mean(images, axis=0)
        return (mean - gaussian_filter(mean, 4))[50:110, 92:120].ravel()

    first, again, third = (
        tree(ANATOMY, range(20)),
        tree(ANATOMY, range(20, 40)),
        tree(other, range(20)),
    )
    assert np.corrcoef(first, again)[0, 1] > 0.9
    assert np.corrcoef(first, third)[0, 1] < 0.85  # the same ribs


def test_noise_is_stronger_where_less_dose_arrives() -> None:
    images = [radiograph(ANATOMY, Centered(seed), 160, 144) for seed in range(40)]
    deviation = np.std(images, axis=0)
    assert deviation[100:130, 70:74].mean() > 1.3 * deviation[:20, :4].mean()  # spine, air
    slices = [ct_slice(ANATOMY, np.random.default_rng(seed), 128, 0.0) for seed in range(40)]
    deviation = np.std(slices, axis=0)
    assert deviation[60:68, 60:68].mean() > 1.3 * deviation[:8].mean()
    assert 20 < deviation[60:68, 60:68].mean() < 30  # HU


def test_bones_are_the_brightest_of_a_slice_and_ribs_of_a_radiograph_repeat() -> None:
    image = radiograph(ANATOMY, Centered(0), 160, 144)
    side = image[50:146, 12:18].mean(axis=1)  # beside the lung
    power = np.abs(np.fft.rfft(side - gaussian_filter(side, 12)))
    assert np.argmax(power) == 6  # in 96 rows: the ribs are 16 apart
    hu = ct_slice(ANATOMY, np.random.default_rng(0), 128, 0.0)
    assert hu[88:92, 60:68].mean() > 250  # vertebra
    assert abs(hu[93, 64] - 30) < 150  # its canal
    assert (hu > 250).sum() > 100


class Centered(np.random.Generator):
    """Random numbers of a seed, with a patient who stands in the middle of each image."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))

    def uniform(self, low: float = 0.0, high: float = 1.0, size: None = None) -> float:
        return (low + high) / 2


def test_a_ct_nodule_is_seen_near_its_height_alone() -> None:
    nodule = Nodule(side=-1, u=0.0, v=0.4, radius=0.1, contrast=1.0)
    differences = [
        np.abs(
            ct_slice(ANATOMY, np.random.default_rng(1), 64, z, nodule)
            - ct_slice(ANATOMY, np.random.default_rng(1), 64, z)
        ).max()
        for z in (0.0, 0.4, 0.8)
    ]
    assert differences[0] == 0 == differences[2]
    assert differences[1] > 700


def test_masks_lie_beside_an_unchanged_cohort(tmp_path: Path) -> None:
    from PIL import Image

    from data_pipelines.pixels.image import read_image

    plain = make_cohort(tmp_path / "plain", patients=6, seed=3)
    cohort = make_cohort(tmp_path / "masks", patients=6, seed=3, task="segmentation")
    files = sorted(path.relative_to(plain) for path in plain.rglob("*") if path.is_file())
    kept = [path.relative_to(cohort) for path in cohort.rglob("*") if path.is_file()]
    assert sorted(path for path in kept if path.parts[0] != "masks") == files
    assert all((plain / path).read_bytes() == (cohort / path).read_bytes() for path in files)
    darker = 0
    masks = sorted(cohort.glob("masks/*/visit*.png"))
    for path in masks:
        image = read_image(cohort / path.relative_to(cohort / "masks").with_suffix(".dcm")).pixels
        labels = np.array(Image.open(path))
        assert labels.shape == image.shape
        darker += image[labels == 1].mean() < image[labels == 0].mean()
    assert len(masks) == 30
    assert darker == 30  # lungs are darker than the rest
    with raises_code(InputError, "unknown_task"):
        make_cohort(tmp_path / "other", patients=6, task="regression")


def test_boxes_of_nodules_are_the_hulls_of_their_masks(tmp_path: Path) -> None:
    masks, folder = (
        make_cohort(tmp_path / task, patients=6, seed=3, only="radiograph", task=task)
        for task in ("segmentation", "detection")
    )
    for path in sorted(masks.rglob("*.dcm")):
        assert path.read_bytes() == (folder / path.relative_to(masks)).read_bytes()
    with (folder / "boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36  # six images of each patient
    found = 0
    for row in rows:
        labels = np.asarray(Image.open((masks / "masks" / row["path"]).with_suffix(".png")))
        if row["class"] == "nodule":
            left, top, right, bottom = (int(row[k]) for k in ("x_min", "y_min", "x_max", "y_max"))
            inside = np.zeros(labels.shape, bool)
            inside[top:bottom, left:right] = True
            assert not (labels[~inside] == 2).any()
            for edge in (labels[top], labels[bottom - 1], labels[:, left], labels[:, right - 1]):
                assert (edge == 2).any()
            found += 1
        else:
            assert set(row.values()) == {row["path"], ""}
            assert not (labels == 2).any()
    assert found > 5

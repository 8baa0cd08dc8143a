"""MR volumes from DICOM and NIfTI files: each volume in its own standard deviations."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import raises_code, work_in_process

from data_pipelines import ingest
from data_pipelines.cache import ensure_cache
from data_pipelines.cache.tf_dataset import eval_batches, join_targets
from data_pipelines.dicom.writer import new_dataset, set_pixels
from data_pipelines.errors import Ineligible, ManifestError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.pixels.standardization import Moments, standard_of
from data_pipelines.preprocessing import prepared_study, spec_from
from data_pipelines.synthetic.golden_files import golden_studies

SIDE = 16


def volume_of(seed: int, gain: float = 1.0) -> np.ndarray:
    """Values 0 (around) and up to some hundreds, int16 (slices, rows, columns)."""
    rng = np.random.default_rng(seed)
    volume = gain * rng.gamma(4.0, 40.0, (SIDE, SIDE, SIDE))
    volume[:, :3] = 0
    return volume.astype(np.int16)


def zscores(volume: np.ndarray) -> np.ndarray:
    """By definition: mean and standard deviation of the voxels that are not 0; integers."""
    inside = volume[volume != 0].astype(np.float64)
    scores = np.clip((volume - inside.mean()) / inside.std(), -32, 32)
    return np.rint(1000 * scores).astype(np.int16)


def as_dicom(volume: np.ndarray, folder: Path, patient: str = "P1") -> list[Path]:
    folder.mkdir(parents=True)
    files = []
    for n, pixels in enumerate(volume):
        dataset = new_dataset(
            "MR",
            "1.2.840.10008.1.2.1",
            patient_id=patient,
            patient="",
            study=f"1.2.3.{patient[1:]}",
            series=f"1.2.3.{patient[1:]}.1",
            sop=f"1.2.3.{patient[1:]}.1.{n + 1}",
        )
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, n]
        dataset.PixelSpacing = [1, 1]
        set_pixels(dataset, pixels, bits=16)
        files.append(folder / f"{n}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def as_nifti(volume: np.ndarray, path: Path) -> None:
    """The same grid: columns to the left, rows to the back (LPS), written as RAS."""
    array = volume.transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


def test_both_formats_give_the_same_integers(tmp_path: Path) -> None:
    volume, spec = volume_of(0), spec_from(f"mrvol-{SIDE}")
    files = as_dicom(volume, tmp_path / "dicom")
    as_nifti(volume, tmp_path / "volume.nii.gz")
    expected = zscores(volume)[np.newaxis]
    assert (prepared_study(files[::-1], spec).pixels == expected).all()
    assert (prepared_study([tmp_path / "volume.nii.gz"], spec).pixels == expected).all()
    brighter = as_dicom(volume * 3, tmp_path / "brighter")
    assert np.abs(prepared_study(brighter, spec).pixels - expected).max() <= 1
    slices = prepared_study(files, spec_from(f"mr-{SIDE}")).pixels
    assert (slices == expected[0]).all()  # of the volume, not of each slice


def test_ingest_and_cache_give_what_prediction_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    for n in range(6):
        as_dicom(volume_of(n, gain=1 + n), tmp_path / "in" / f"p{n}", f"P{n + 1}")
    rows = "\n".join(f"P{n + 1},{n % 2}" for n in range(6))
    (tmp_path / "labels.csv").write_text(f"patient_id,lesion\n{rows}\n")
    work = tmp_path / "work"
    manifest = ingest(tmp_path / "in", tmp_path / "labels.csv", work, kind="mr")
    table = manifest.table
    assert set(table["kind"]) == {"mr"}
    assert set(table["verdict"]) == {"REGULAR"}
    assert manifest.summary["kind"] == "mr"
    for path, rows_of_volume in table.groupby(table["path"].str.split("/").str[0]):
        volume = volume_of(int(str(path)[1:]), gain=1 + int(str(path)[1:]))
        inside = volume[volume != 0].astype(np.float64)
        assert np.allclose(rows_of_volume["volume_mean"], inside.mean())
        assert np.allclose(rows_of_volume["volume_deviation"], inside.std())
    spec = spec_from(f"mrvol-{SIDE}")
    cache = ensure_cache(work, spec)
    assert {"volume_mean", "volume_deviation"} <= {*cache.images}
    _, targets = join_targets(Manifest.load(work), cache)
    paths = table.set_index("image")["path"]
    for split in ("train", "tune", "test"):
        rows = cache.images[cache.images["split"] == split]
        batches = eval_batches(cache, targets, 1, split)
        for image, (inputs, _, _) in zip(rows["image"], batches, strict=True):
            folder = tmp_path / "in" / paths[image].split("/")[0]
            prepared = prepared_study(sorted(folder.iterdir()), spec).pixels
            values = inputs["image"].numpy()[..., 0]
            assert np.abs(values * 1000 - prepared).max() < 1e-2


def test_mr_is_read_only_where_it_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    as_dicom(volume_of(0), tmp_path / "in")
    with raises_code(ManifestError, "no_image_left", "modality"):
        ingest(tmp_path / "in", no_split=True)
    (ct,) = golden_studies(spec_from("ct-32").image_kind, 32, 32, series=False)[:1]
    (tmp_path / "in" / "ct.dcm").write_bytes(ct.files[0])
    manifest = ingest(tmp_path / "in", kind="mr", no_split=True)
    assert len(manifest.table) == SIDE
    assert manifest.summary["reasons"] == {"other_kind": 1}


def test_a_model_refuses_the_other_kind(tmp_path: Path) -> None:
    mr = as_dicom(volume_of(0), tmp_path / "mr")
    (ct,) = golden_studies(spec_from("ct-32").image_kind, 32, 32, series=False)[:1]
    with raises_code(Ineligible, "no_image", "mr"):
        prepared_study(ct.files, spec_from("mr-32"))
    with raises_code(Ineligible, "no_image"):
        prepared_study(mr, spec_from("ct-32"))


def test_statistics_of_a_volume() -> None:
    halves = [np.array([0.0, 0, 5, 7]), np.array([0.0, 9, 3, 0])]
    moments = [Moments(v.size, np.count_nonzero(v), v.sum(), v @ v) for v in halves]
    mean, deviation = standard_of(moments)
    assert (mean, deviation) == pytest.approx((6.0, np.std([5, 7, 9, 3])))
    assert standard_of(moments[::-1]) == standard_of(moments)
    # a mask: all voxels that are not 0 have one value, so zeros count as well
    mask = np.array([0.0, 1, 1, 0])
    assert standard_of([Moments(4, 2, mask.sum(), mask @ mask)]) == pytest.approx((0.5, 0.5))
    with raises_code(Ineligible, "constant_pixels"):
        standard_of([Moments(4, 4, 8.0, 16.0)])


def test_extreme_voxels_are_clipped(tmp_path: Path) -> None:
    volume = np.full((SIDE, SIDE, SIDE), 100, np.int16)
    volume[::2] += 1
    volume[3, 3, 3] = 32000
    files = as_dicom(volume, tmp_path / "one")
    prepared = prepared_study(files, spec_from(f"mrvol-{SIDE}")).pixels
    assert prepared.max() == 32000
    assert prepared.dtype == np.int16

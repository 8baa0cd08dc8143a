"""Gaps of CT series as ingest tells them: in the manifest, in ingest.json and in warnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.cache.plan import plan_samples
from data_pipelines.cache.store import eligible_rows
from data_pipelines.dicom.writer import save
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.preprocessing.spec import spec_from

pytestmark = pytest.mark.usefixtures("in_process")

WHOLE = [2.5 * n for n in range(12)]
#: series -> heights of its slices, mm
HEIGHTS = {
    "whole": WHOLE,
    "small_gap": [z for z in WHOLE if z not in (10.0, 12.5)],  # 2 of 12 slices
    "wide_gap": [*WHOLE[:6], *(z + 40 for z in WHOLE[6:])],  # 16 slices, 42.5 mm
    "holes": [2.5 * n for n in range(16) if n % 3 != 2],  # five gaps of one slice
}


def write(grey, folder: Path) -> None:
    rng = np.random.default_rng(1)
    for number, (name, heights) in enumerate(HEIGHTS.items()):
        for n, z in enumerate(heights):
            dataset = grey(
                rng.integers(0, 2000, (12, 12)).astype(np.uint16),
                PatientID=f"P{number}",
                StudyInstanceUID=f"1.2.9.{number}.1",
                SeriesInstanceUID=f"1.2.9.{number}.2",
                RescaleSlope="1",
                RescaleIntercept="-1024",
                PixelSpacing=["0.7", "0.7"],
                ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
                ImagePositionPatient=["0", "0", str(z)],
            )
            save(dataset, folder / name / f"{n:02}.dcm")


def test_gaps_are_in_the_manifest_the_summary_and_the_warnings(grey, tmp_path: Path) -> None:
    write(grey, tmp_path / "dicom")
    manifest = ingest(tmp_path / "dicom", None, tmp_path / "work", workers=1)
    table = manifest.table.assign(folder=manifest.table["path"].str.split("/").str[0])
    columns = ["interpolated_share", "gap_mm", "gap_slices", "volume_exclusion"]
    of_series = table.groupby("folder")[columns].agg(lambda values: values.unique().tolist())
    assert of_series.loc["whole"].tolist() == [[0.0], [0.0], [0], [""]]
    assert of_series.loc["small_gap"].tolist() == [[2 / 12], [7.5], [2], [""]]
    assert of_series.loc["wide_gap"].tolist() == [[16 / 28], [42.5], [16], ["gap_too_large"]]
    assert of_series.loc["holes"].tolist() == [[5 / 16], [5.0], [1], ["too_interpolated"]]
    assert manifest.summary["volumes"] == {
        "interpolated": 3,
        "max_interpolated_share": 0.5714,
        "max_gap_mm": 42.5,
        "max_gap_slices": 16,
        "excluded": {"gap_too_large": 1, "too_interpolated": 1},
    }
    series = table.groupby("folder")["series"].first()
    first, second = (text for text in manifest.summary["warnings"] if "interpolated" in text)
    assert all(part in first for part in ("3 volumes", "57%", "42.5 mm (16 slices)"))
    assert series["small_gap"] in first
    assert series["whole"] not in first
    assert "gap_too_large 1, too_interpolated 1" in second
    assert {series["wide_gap"], series["holes"]} == {s for s in series if s in second}


def test_ingest_and_cache_exclude_the_same_series(grey, tmp_path: Path) -> None:
    write(grey, tmp_path / "dicom")
    table = ingest(tmp_path / "dicom", workers=1).table
    spec = spec_from("ctvol-16")
    rows = eligible_rows(table, spec)
    plan = plan_samples(rows, spec, workers=1)
    shares = rows["interpolated_share"].iloc[[sample.middle for sample in plan.samples]].tolist()
    assert shares == [sample.interpolated for sample in plan.samples]
    excluded = table.groupby("series")["volume_exclusion"].first().str.upper()
    assert plan.left_out == excluded[excluded != ""].value_counts().to_dict()


def test_radiographs_have_no_such_columns(grey, tmp_path: Path) -> None:
    for n in range(3):
        pixels = np.random.default_rng(n).integers(0, 4096, (12, 12)).astype(np.uint16)
        save(grey(pixels, Modality="CR", PatientID=f"P{n}"), tmp_path / f"{n}.dcm")
    manifest = ingest(tmp_path, workers=1)
    assert "interpolated_share" not in manifest.table
    assert manifest.summary["volumes"] == {}

"""Exclusions by label and split in ingest.json, and splits that do not depend on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from canaries import radiograph
from helpers import medres, work_in_process
from PIL import Image

from data_pipelines.dicom.writer import save
from data_pipelines.ingestion.pipeline import ingest


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    work_in_process(monkeypatch)


def png_cohort(folder: Path, colored: set[int], count: int = 80) -> Path:
    """Images 0 to count-1, two per patient; the first half is sick. Those in `colored` are red."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    rows = ["path,patient,bleed"]
    for n in range(count):
        gray = np.repeat(rng.integers(30, 200, (24, 20, 1), dtype=np.uint8), 3, axis=2)
        if n in colored:
            gray[..., 0] = 255
        Image.fromarray(gray).save(folder / f"{n:03d}.png")
        rows.append(f"{n:03d}.png,p{n // 2},{int(n < count // 2)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_exclusions_are_counted_by_label_and_split(tmp_path: Path) -> None:
    source = png_cohort(tmp_path / "s", colored=set(range(0, 30, 2)) | {41})
    work = tmp_path / "work"
    ingest(source, source / "labels.csv", work, units="display", workers=1)
    summary = json.loads((work / "ingest.json").read_text())
    table = summary["exclusions_by_label"]
    total = {
        value: [
            sum(row[name] for row in table if row["value"] == value)
            for name in ("patients", "patients_excluded", "images", "images_excluded")
        ]
        for value in ("1", "0")
    }
    assert total == {"1": [20, 15, 40, 15], "0": [20, 1, 40, 1]}
    assert {row["split"] for row in table} == {"train", "tune", "test"}
    assert {row["finding"] for row in table} == {"bleed"}
    counts = [sum(row["codes"].values()) == row["images_excluded"] for row in table]
    assert all(counts)
    (test,) = summary["exclusion_tests"]
    assert (test["share_positive"], test["share_negative"]) == (0.75, 0.05)
    assert test["associated"]
    assert sum("associated with bleed" in text for text in summary["warnings"]) == 1
    assert summary["splits_assigned"] == "before_exclusion"


def test_ingest_prints_the_table(tmp_path: Path) -> None:
    source = png_cohort(tmp_path / "s", colored={0, 1, 2, 60})
    options = ("--units", "display", "--labels", source / "labels.csv", "--out", tmp_path / "work")
    lines = medres("ingest", source, *options).stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("excluded by label"))
    assert lines[start + 1].startswith("bleed = 1")
    assert lines[start + 1].endswith("7.5%   colour 3")
    assert lines[start + 2].endswith("2.5%   colour 1")


def test_the_split_of_a_patient_does_not_depend_on_exclusions(tmp_path: Path) -> None:
    splits = []
    for name, colored in (("a", set()), ("b", {0, 1, 5, 20, 21, 50, 51, 77})):
        source = png_cohort(tmp_path / name, colored)
        manifest = ingest(source, source / "labels.csv", units="display", workers=1)
        splits.append(manifest.table.set_index("path")["split"].to_dict())
    assert len(splits[0]) == 80
    assert len(splits[1]) == 72
    assert splits[1] == {path: splits[0][path] for path in splits[1]}


def test_splits_are_assigned_among_what_is_left_where_a_label_would_be_missing(
    tmp_path: Path,
) -> None:
    source = png_cohort(tmp_path / "s", colored=set(range(34)))  # three sick patients are left
    manifest = ingest(source, source / "labels.csv", units="display", workers=1)
    assert manifest.summary["splits_assigned"] == "after_exclusion"
    for counts in manifest.summary["splits"].values():
        assert counts["classes"]["bleed"]["1"] == 2


def test_a_quarantined_dicom_file_is_counted_by_the_identity_in_its_header(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    rows = ["patient_id,bleed"]
    for n in range(12):
        dataset = radiograph(f"P{n}", n)
        if n == 7:
            dataset.BurnedInAnnotation = "YES"
        save(dataset, source / f"{n}.dcm")
        rows.append(f"P{n},{n % 2}")
    (source / "labels.csv").write_text("\n".join(rows) + "\n")
    manifest = ingest(source, source / "labels.csv", workers=1)
    excluded = [row for row in manifest.summary["exclusions_by_label"] if row["images_excluded"]]
    assert [(row["value"], row["codes"]) for row in excluded] == [("1", {"burned_in": 1})]
    assert excluded[0]["split"] in ("train", "tune", "test")


def test_class_folders_count_what_they_lose(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for name in ("sick", "well"):
        png_cohort(source / name, {3, 4}, 10)
        (source / name / "labels.csv").unlink()
    for path in (source / "well").glob("*.png"):  # other pixels than those of the sick
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    table = ingest(source, units="display", class_folders=True, workers=1).summary[
        "exclusions_by_label"
    ]
    lost = {
        value: sum(row["images_excluded"] for row in table if row["value"] == value)
        for value in ("sick", "well")
    }
    assert lost == {"sick": 2, "well": 2}


def test_no_label_no_table(tmp_path: Path) -> None:
    source = png_cohort(tmp_path / "s", {3}, count=12)
    (source / "labels.csv").unlink()
    summary = ingest(source, units="display", workers=1).summary
    assert (summary["exclusions_by_label"], summary["exclusion_tests"]) == ([], [])

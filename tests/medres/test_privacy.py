"""No canary in anything that leaves the memory of the process: pages, tables, logs, errors, caches,
models and reports.
"""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from canaries import CANARIES, encodings, with_canaries
from helpers import fails, medres, work_in_process

from data_pipelines.dicom.writer import save, set_pixels
from data_pipelines.ingestion.manifest import Manifest


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve valid radiographs, copies, near-duplicates and spelling variants, with a canary in
    every tag and cell, but in no path.
    """
    folder = tmp_path_factory.mktemp("privacy") / "in"
    lines = ["sop_instance_uid,x,patient,comment,meta:arm"]
    for number in range(12):
        dataset = with_canaries(number)
        pixels = np.kron(
            np.random.default_rng(number).integers(0, 4096, (8, 8)), np.ones((5, 5), int)
        )
        set_pixels(dataset, pixels.astype(np.uint16), bits=12)
        save(dataset, folder / f"{number}.dcm")
        lines.append(f"{dataset.SOPInstanceUID},{number % 2},CANARY-{number},CANARY,{number % 3}")
        if number < 3:
            for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
                setattr(dataset, name, f"{dataset[name].value}.5")
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            if number < 2:  # a near-duplicate, under another spelling
                set_pixels(
                    dataset,
                    np.minimum(pixels + 9 * (pixels > 2000), 4095).astype(np.uint16),
                    bits=12,
                )
            save(dataset, folder / f"again{number}.dcm")
            lines.append(f"{dataset.SOPInstanceUID},{number % 2},CANARY 0{number},,1")
    cut = (folder / "0.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(cut[:-99])
    (folder / "head.dcm").write_bytes(cut[: len(cut) // 3])
    (folder.parent / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def contents(path: Path) -> bytes:
    """The name and bytes of a file, and the decompressed content of an archive."""
    data = path.read_bytes()
    content = path.name.encode() + data
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content += b"".join(archive.read(name) + name.encode() for name in archive.namelist())
    for inflate in (gzip.decompress, zlib.decompress):
        try:
            content += inflate(data)
        except (OSError, EOFError, zlib.error):
            continue
    return content


def canaries_in(everything: bytes) -> list[bytes]:
    """The bytes around each canary found."""
    positions = (everything.find(encoding) for canary in CANARIES for encoding in encodings(canary))
    return [everything[max(0, at - 80) : at + 80] for at in positions if at >= 0]


def test_no_canary_in_audit_page_or_output(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    caplog,
) -> None:
    work_in_process(monkeypatch)
    labels = source.parent / "labels.csv"
    done = medres("ingest", source, "--labels", labels, "--folds", "2", "--out", tmp_path / "work")
    assert done.exit_code == 0, done.stderr
    assert set(Manifest.load(tmp_path / "work").audit["what"]) == {
        "patient_spelling",
        "identical_pixels",
        "near_duplicate",
    }
    page = medres("inspect", tmp_path / "work")
    again = medres(
        "ingest",
        source,
        "--labels",
        labels,
        "--splits-from",
        tmp_path / "work",
        "--out",
        tmp_path / "two",
    )
    assert (page.exit_code, again.exit_code) == (0, 0)
    refused = medres(
        "ingest",
        source,
        "--labels",
        labels,
        "--external-site",
        "meta:arm=CANARY",
        "--out",
        tmp_path / "x",
    )
    printed = (
        fails(refused)
        + done.output
        + page.output
        + again.output
        + "".join(capfd.readouterr())
        + caplog.text
    )
    written = b"".join(contents(p) for p in tmp_path.rglob("*") if p.is_file())
    tables = Manifest.load(tmp_path / "work").table.to_csv() + json.dumps(
        Manifest.load(tmp_path / "two").summary
    )
    assert canaries_in(written + printed.encode() + tables.encode()) == []


def test_no_canary_in_the_list_of_leaks(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    rows = (source.parent / "labels.csv").read_text().splitlines()
    split = [f"{row},{'test' if '.5,' in row else 'train'}" for row in rows[1:]]
    (tmp_path / "labels.csv").write_text("\n".join([f"{rows[0]},split", *split]) + "\n")
    message = fails(
        medres("ingest", source, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "work")
    )
    assert canaries_in(message.encode() + (tmp_path / "work.leaks.csv").read_bytes()) == []


@pytest.mark.long
def test_no_canary_in_cache_model_report_or_prediction(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    work, run, report = tmp_path / "work", tmp_path / "run", tmp_path / "report"
    printed = b""
    for command in (
        (
            "ingest",
            source,
            "--labels",
            source.parent / "labels.csv",
            "--fractions",
            "0.4,0.3,0.3",
            "--out",
            work,
        ),
        (
            "train",
            work,
            "--model",
            "resnet10",
            "--preset",
            "xray-32",
            "--width",
            8,
            "--epochs",
            1,
            "--batch-size",
            4,
            "--out",
            run,
        ),
        ("evaluate", run / "model.keras", work, "--split", "train", "--out", report),
        ("predict", run / "model.keras", source, "--json"),
    ):
        done = medres(*command)
        assert done.exit_code == 0, done.stderr
        printed += done.output.encode()
    printed += "".join(capfd.readouterr()).encode()
    written = b"".join(contents(p) for p in tmp_path.rglob("*") if p.is_file())
    assert canaries_in(written + printed) == []

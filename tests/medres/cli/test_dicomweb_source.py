"""Training data from a DICOMweb server."""

from __future__ import annotations

import json
from pathlib import Path

from fake_pacs import DicomWebPacs
from helpers import fails, medres


def test_ingest_downloads_what_a_server_has(tiny_work: Path, tmp_path: Path) -> None:
    files = sorted((tiny_work.parent / "images").iterdir())[:6]
    with DicomWebPacs() as pacs:
        pacs.add(*(file.read_bytes() for file in files))
        source = pacs.url.replace("http", "dicomweb")
        done = medres("ingest", source, "--out", tmp_path / "work", "--no-split", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["given"] == len(files)
        assert len(list((tmp_path / "work-dicom").iterdir())) == len(files)
        again = medres(
            "ingest", source, "--out", tmp_path / "w2", "--no-split", "--download",
            tmp_path / "work-dicom",
        )  # fmt: skip
        assert f"{len(files)} were there" in again.stderr
    gone = fails(medres("ingest", source, "--out", tmp_path / "w3", "--no-split"))
    assert "does not answer" in gone

"""One folder of everything that should not be there: each file ends as ok, repaired, quarantined or
skipped, by name.
"""

from __future__ import annotations

import csv
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.runtime.limits import limited

HTML = "<script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://x","y")'


def radiograph_dataset(name: str, number: int, **elements: object) -> Dataset:
    uids = {what: derived_uid(what, name) for what in ("study", "series", "sop")}
    dataset = new_dataset("CR", ExplicitVRLittleEndian, patient_id=f"P{number}", patient="", **uids)
    set_pixels(
        dataset,
        np.random.default_rng(number).integers(0, 4096, (20, 20)).astype(np.uint16),
        bits=12,
    )
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def write(path: Path, number: int, **elements: object) -> bytes:
    save(radiograph_dataset(path.name, number, **elements), path)
    return path.read_bytes()


def bomb(whole: bytes) -> bytes:
    """A deflated data set of 100 MiB of zeros behind a sound meta header."""
    deflated = whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    start = 144 + struct.unpack("<L", deflated[140:144])[0]
    group = struct.unpack("<L", deflated[140:144])[0] + 2
    meta = deflated[:140] + struct.pack("<L", group) + deflated[144 : start + 2]
    at = meta.index(b"1.2.840.10008.1.2.1.99")
    meta = meta[: at - 2] + struct.pack("<H", 22) + meta[at:]
    squeezer, block = zlib.compressobj(9, wbits=-15), bytes(1 << 20)
    return meta + b"".join(squeezer.compress(block) for _ in range(100)) + squeezer.flush()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad") / "in"
    for n in range(6):
        write(
            root / f"good{n}.dcm",
            n,
            Manufacturer=HTML if n % 2 else FORMULA,
            ManufacturerModelName=f"{HTML}{FORMULA}",
        )
    whole = write(root / "sound.dcm", 10)
    (root / "junk.dcm").write_bytes(os.urandom(5000))
    (root / "empty.dcm").write_bytes(b"")
    (root / "mark.dcm").write_bytes(whole[:132])
    (root / "half.dcm").write_bytes(whole[: len(whole) - 300])
    (root / "bomb.dcm").write_bytes(bomb(whole))
    twice = whole.index(b"\x28\x00\x10\x00US")
    (root / "twice.dcm").write_bytes(
        whole[:twice] + b"\x28\x00\x10\x00US\x02\x00\x0a\x00" + whole[twice:]
    )
    write(root / "huge.dcm", 11, Rows=65535, Columns=65535)
    write(root / "infinite.dcm", 12, RescaleSlope="1e308", RescaleIntercept=0)
    deep = whole.index(b"\x28\x00\x02\x00US")
    item = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    (root / "deep.dcm").write_bytes(whole[:deep] + item * 80 + end * 80 + whole[deep:])
    write(root / "spoken.dcm", 13, PatientName=f"{HTML}^{FORMULA}", StudyDescription=HTML)
    (root / f"{FORMULA.replace('/', '_')}.dcm").write_bytes(whole[:200])
    (root / "<img src=x onerror=alert(1)>.dcm").write_bytes(whole[:200])
    (root / "@SUM(A1).dcm").write_bytes(whole[:200])
    (root / "folder.dcm").mkdir()
    write(root / "folder.dcm" / "inside.dcm", 14)
    os.mkfifo(root / "pipe.dcm")
    (root / "device.dcm").symlink_to("/dev/zero")
    (root / "again.dcm").symlink_to(root / "sound.dcm")
    (root / "loop").symlink_to(root)
    return root


EXPECTED = {
    "junk.dcm": "not_dicom",
    "empty.dcm": "not_dicom",
    "mark.dcm": "no_image",
    "half.dcm": "truncated_pixels",
    "bomb.dcm": "limit_exceeded",
    "twice.dcm": "duplicate_element",
    "huge.dcm": "limit_exceeded",
    "infinite.dcm": "bad_modality_transform",
    "deep.dcm": "limit_exceeded",
    "pipe.dcm": "special_file",
    "device.dcm": "symbolic_link",
    "again.dcm": "symbolic_link",
    "loop": "symbolic_link",
}


@pytest.fixture(scope="module")
def work(folder: Path) -> Path:
    with limited(inflated=64 << 20, seconds=60):  # the machine may be busy
        ingest(folder, out=folder.with_name("work"), workers=2)
    return folder.with_name("work")


def test_every_file_has_its_end_and_no_output_runs_anything(work: Path) -> None:
    manifest = Manifest.load(work)
    reasons = manifest.quarantine.set_index("path")["reason"].to_dict()
    assert {path: reasons.get(path) for path in EXPECTED} == EXPECTED
    accepted = {f"good{n}.dcm" for n in range(6)} | {
        "sound.dcm",
        "spoken.dcm",
        "folder.dcm/inside.dcm",
    }
    assert set(manifest.table["path"]) == accepted
    summary = json.loads((work / "ingest.json").read_text())
    assert summary["given"] == len(accepted) + len(EXPECTED) + 3
    assert summary["given"] == sum(summary[k] for k in ("ok", "repaired", "quarantined", "skipped"))
    for name in ("quarantine.csv", "audit.csv"):
        with (work / name).open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    with (work / "quarantine.csv").open(newline="") as file:
        assert {"'@SUM(A1).dcm"} <= {row["path"] for row in csv.DictReader(file)}
    displayed = Manifest.load(work)._repr_html_() + (work / "ingest.json").read_text()
    assert HTML not in displayed


def test_the_page_of_that_folder_holds_no_live_markup(work: Path, tmp_path: Path) -> None:
    from medres.inspection.dataset_report import inspect

    text = inspect(work, tmp_path / "page.html", workers=2).read_text()
    assert "<script" not in text
    assert "onerror" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text  # the manufacturer, as text
    assert "http" not in text.replace("http-equiv", "").replace("http://x", "").replace(
        "http://www.w3.org/2000/svg", ""
    )

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from canaries import radiograph
from helpers import raises_code

from data_pipelines.cache.store import ensure_cache
from data_pipelines.dicom.writer import save
from data_pipelines.errors import LimitExceeded, ManifestError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.runtime import archives
from data_pipelines.runtime.limits import limited

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    for n in range(6):
        save(radiograph(f"P{n}", n), tmp_path / "plain" / f"{n}.dcm")
    return {f"s/{n}.dcm": (tmp_path / "plain" / f"{n}.dcm").read_bytes() for n in range(6)}


def write(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_members_are_the_files_that_are_given(
    tmp_path: Path, files: dict[str, bytes], name: str
) -> None:
    write(tmp_path / "in" / name, {**files, "read.me": b"text"})
    labels = tmp_path / "labels.csv"
    labels.write_text("path,f\n" + "".join(f"{name}!/{p},{p[2]!s}\n" for p in files))
    labels.write_text("path,f\n" + "".join(f"{name}!/s/{n}.dcm,{n % 2}\n" for n in range(6)))
    manifest = ingest(tmp_path / "in", labels, tmp_path / "work", workers=1)
    assert (manifest.summary["given"], manifest.summary["ok"]) == (7, 6)
    assert manifest.summary["reasons"] == {"not_dicom": 1}
    assert manifest.table["path"].tolist() == [f"{name}!/s/{n}.dcm" for n in range(6)]
    assert manifest.table["label:f"].tolist() == [0, 1, 0, 1, 0, 1]
    plain = ingest(tmp_path / "plain", workers=1).table
    for column in ("pixel_sha256", "file_sha256"):
        assert manifest.table[column].tolist() == plain[column].tolist()
    cache = ensure_cache(tmp_path / "work", "xray-16", workers=1)
    assert len(cache.images) == 6
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == [name]


def test_what_is_not_read_has_a_reason(tmp_path: Path, files: dict[str, bytes]) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x.dcm", files["s/0.dcm"])
    write(tmp_path / "in" / "a.zip", {**files, "b.zip": inner.getvalue(), "../up.dcm": b"x"})
    data = bytearray((tmp_path / "in" / "a.zip").read_bytes())
    entry = data.rindex(b"s/5.dcm") - 46  # its entry in the central directory
    data[entry + 8] |= 1  # encrypted
    (tmp_path / "in" / "a.zip").write_bytes(data)
    (tmp_path / "in" / "broken.zip").write_bytes(b"PK\x03\x04 cut")
    manifest: Manifest = ingest(tmp_path / "in", workers=1)
    reasons = manifest.quarantine.set_index("path")["reason"].to_dict()
    assert reasons == {
        "a.zip!/../up.dcm": "archive_member",
        "a.zip!/b.zip": "archive_nested",
        "a.zip!/s/5.dcm": "archive_encrypted",
        "broken.zip": "archive_unreadable",
    }
    assert manifest.summary["given"] == 9
    with limited(file=100), raises_code(ManifestError, "no_image_left", "limit_exceeded"):
        ingest(tmp_path / "in", workers=1)


def test_a_bomb_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.zip", {str(n): bytes(1 << 20) for n in range(8)})
    monkeypatch.setattr(archives, "MAX_RATIO", 100)
    with pytest.raises(LimitExceeded):
        archives.members_of(str(tmp_path / "in" / "a.zip"))
    monkeypatch.setattr(archives, "MAX_MEMBERS", 7)
    with raises_code(ManifestError, "no_image_left", "limit_exceeded"):
        ingest(tmp_path / "in", workers=1)


def test_what_is_not_dicom_is_counted_by_kind(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "in").mkdir()
    for n in range(4):
        (tmp_path / "in" / f"{n}.dcm").symlink_to(tmp_path / "plain" / f"{n}.dcm")
    for name in ("a.rar", "b.nii.gz", "c.png", "d.txt", "e"):
        (tmp_path / "in" / name).write_text("no DICOM")
    with raises_code(
        ManifestError, "no_dicom", "4 symbolic links", "1 archive", "--follow-links", "--units"
    ):
        ingest(tmp_path / "in", workers=1)
    manifest = ingest(tmp_path / "in", follow_links=True, workers=1)
    assert manifest.summary["ok"] == 4
    assert manifest.summary["skipped_by_kind"] == {
        "archive": 1,
        "NIfTI or other volume file": 1,
        "PNG, JPEG or .npz file": 1,
        "text or document": 1,
        "other file": 1,
    }


def test_an_archive_without_a_file_is_not_lost(tmp_path: Path, files: dict[str, bytes]) -> None:
    write(tmp_path / "in" / "a.zip", files)
    write(tmp_path / "in" / "b.zip", {})
    summary = ingest(tmp_path / "in", workers=1).summary
    assert (summary["given"], summary["ok"], summary["skipped"]) == (7, 6, 1)
    assert summary["reasons"] == {"archive_empty": 1}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_files_of_one_name_in_an_archive_are_all_told(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    write(tmp_path / "in" / "a.zip", files)
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "a") as archive:
        archive.writestr("s/0.dcm", files["s/1.dcm"])
    manifest = ingest(tmp_path / "in", workers=1, no_split=True)
    assert (manifest.summary["given"], manifest.summary["ok"]) == (7, 5)
    assert manifest.summary["reasons"] == {"archive_member": 2}
    assert manifest.quarantine["path"].tolist() == ["a.zip!/s/0.dcm#1", "a.zip!/s/0.dcm#2"]

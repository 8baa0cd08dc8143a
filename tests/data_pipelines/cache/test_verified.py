"""A file that was hashed once is known by its size, times and inode."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_pipelines.cache import verified
from data_pipelines.cache.verified import NAME, VerifiedFiles
from data_pipelines.runtime.atomic_files import file_sha256


@pytest.fixture
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are hashed from now on."""
    files: list[Path] = []
    monkeypatch.setattr(
        verified, "file_sha256", lambda path: files.append(path) or file_sha256(path)
    )
    return files


def open_once(path: Path, digest: str) -> bool:
    files = VerifiedFiles(path.parent)
    is_right = files.has_digest(path, digest)
    files.save()
    return is_right


def test_an_unchanged_file_is_hashed_once(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "TOO_NEW_S", -1.0)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"pixels")
    digest = file_sha256(path)
    assert [open_once(path, digest), open_once(path, digest)] == [True, True]
    assert len(hashed) == 1
    assert not open_once(path, "another digest")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"pixelz")
    os.utime(path, ns=times)  # the time of status change cannot be set back
    assert not open_once(path, digest)
    (tmp_path / NAME).write_text("{")
    path.write_bytes(b"pixels")
    assert open_once(path, digest)


def test_a_file_that_was_just_written_is_hashed_again(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"pixels")
    digest = file_sha256(path)
    assert [open_once(path, digest), open_once(path, digest)] == [True, True]
    assert len(hashed) == 2
    assert not (tmp_path / NAME).exists()

from __future__ import annotations

import csv
import errno
import io
import os
import stat
from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import InputError
from data_pipelines.runtime.atomic_files import (
    csv_bytes,
    require_new,
    staged_folder,
    write_atomic,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_write_atomic_replaces_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.json"]


def test_write_atomic_keeps_the_old_file_when_the_disk_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError) as caught:  # noqa: PT011  its errno is asserted
        write_atomic(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_write_atomic_gives_the_mode_under_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "open", b"")
        write_atomic(tmp_path / "secret", b"", mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_staged_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with staged_folder(out, what="x") as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert names(out.parent) == ["out"]
    assert (out / "a").read_text() == "1"


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_staged_folder_leaves_nothing_on_failure(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "out", what="x") as folder:
            (folder / "a").write_text("1")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == []


def test_staged_folder_takes_an_empty_folder_and_refuses_one_in_use(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with staged_folder(out, what="x") as folder:
        (folder / "a").write_text("1")
    with raises_code(InputError, "output_exists", str(out)), staged_folder(out, what="x"):
        pytest.fail("entered")
    assert (out / "a").read_text() == "1"


def test_require_new_refuses_a_file_and_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with raises_code(InputError, "output_exists"):
            require_new(tmp_path / name, what="x")


def test_csv_bytes_survives_a_reader() -> None:
    rows = [{"a": 'say "x", y', "b": "line\nbreak"}, {"a": "é", "b": ""}]
    assert (
        list(csv.DictReader(io.StringIO(csv_bytes(rows, ["a", "b"]).decode(), newline=""))) == rows
    )
    assert csv_bytes([], ["a", "b"]) == b"a,b\n"

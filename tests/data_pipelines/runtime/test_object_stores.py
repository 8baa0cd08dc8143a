"""Objects by URL: as they are listed and read, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code, work_in_process
from PIL import Image

from data_pipelines.cache.store import ensure_cache
from data_pipelines.errors import InputError
from data_pipelines.ingestion import ingest
from data_pipelines.runtime import object_stores
from data_pipelines.runtime.limits import limited
from data_pipelines.runtime.object_stores import (
    is_url,
    joined,
    list_url,
    local_path,
    require_local,
    state_of,
)
from data_pipelines.runtime.storage import open_file, read_file, read_source

fsspec = pytest.importorskip("fsspec", reason="fsspec (extra stores) is not installed")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in the memory of this process, which a test may use: nothing is read elsewhere."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    for name, data in {"b/x/2.bin": b"two", "b/x/1.bin": b"one" * 5000, "b/y": b"y"}.items():
        system.pipe(name, data)
    original = object_stores._file_system

    def file_system(path: str):
        return system if path.startswith("test://") else original(path)

    monkeypatch.setattr(object_stores, "_file_system", file_system)
    monkeypatch.setattr(system, "info", _without_scheme(system.info))
    for name in ("open", "isfile", "_strip_protocol"):
        monkeypatch.setattr(system, name, _without_scheme(getattr(system, name)))
    return "test://b"


def _without_scheme(function):
    return lambda path, *a, **k: function(path.replace("test://", "/"), *a, **k)


def test_what_is_a_url() -> None:
    assert is_url("s3://b/x")
    assert is_url("gs://b")
    assert not is_url("/a/b")
    assert not is_url("C:/a")
    assert not is_url(Path("a"))
    assert local_path("file:///a b/c") == "/a b/c"
    assert joined("s3://b/x", "y/1.dcm") == "s3://b/x/y/1.dcm"


def test_objects_are_listed_in_order(bucket: str) -> None:
    assert list_url(f"{bucket}/") == (bucket, ("x/1.bin", "x/2.bin", "y"))
    assert list_url(f"{bucket}/x") == (f"{bucket}/x", ("1.bin", "2.bin"))
    assert list_url(f"{bucket}/x/1.bin") == (f"{bucket}/x", ("1.bin",))
    with raises_code(InputError, "no_source"):
        list_url(f"{bucket}/absent")


def test_objects_are_read_as_files_are(bucket: str) -> None:
    assert read_file(f"{bucket}/x/1.bin") == b"one" * 5000
    with open_file(f"{bucket}/x/1.bin") as file:
        assert file.read(4) == b"oneo"
        file.seek(-3, 2)
        assert file.read() == b"one"
    assert state_of(f"{bucket}/x/1.bin")[0] == 15_000
    assert state_of(f"{bucket}/absent") is None
    with raises_code(Exception, "unreadable"):
        read_source(f"{bucket}/absent")
    with limited(file=10), raises_code(Exception, "limit_exceeded"):
        read_source(f"{bucket}/x/1.bin")


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with raises_code(InputError, "store_in_memory"):
        list_url("memory://b")
    with raises_code(InputError, "no_store_package", "nothing"):
        list_url("nothing://b")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with raises_code(InputError, "no_store_package", "medres[stores]"):
        list_url("s3://b")
    for url in ("s3://b/work", Path("s3://b/work")):
        with raises_code(InputError, "needs_local_folder"):
            require_local(url, "the work folder")
    with raises_code(InputError, "needs_local_folder"):
        ingest(tmp_path, out="gs://b/work")
    with raises_code(InputError, "needs_local_folder"):
        ensure_cache("s3://b/work", "xray-32")


def test_a_store_and_a_folder_give_the_same_rows(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    monkeypatch.setenv("MEDRES_KEY", "ab" * 32)
    system, rng = fsspec.filesystem("memory"), np.random.default_rng(0)
    for n in range(6):
        image = Image.fromarray(rng.integers(0, 256, (12, 12)).astype(np.uint8))
        image.save(tmp_path / f"{n}.png")
        system.pipe(f"c/{n}.png", (tmp_path / f"{n}.png").read_bytes())
    system.pipe("c/a.zip", b"PK")
    (tmp_path / "notes.txt").write_text("x")
    system.pipe("c/notes.txt", b"x")
    options = {"units": "display", "no_split": True, "progress": lambda done, total: None}
    here = ingest(tmp_path, **options)
    there = ingest("test://c", out=tmp_path / "work", **options)
    assert set(there.table["source"]) == {"test://c"}
    differing = ["source", "image", "study", "series", "patient"]
    assert here.table.drop(columns=differing).equals(there.table.drop(columns=differing))
    assert there.quarantine["reason"].tolist() == ["archive_in_store", "not_dicom"]
    assert ensure_cache(tmp_path / "work", "xray-32").shards["test"]

"""Parts of the index: what a killed ingest keeps, and what makes a part void."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import work_in_process
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import Unreadable
from data_pipelines.ingestion import ingest
from data_pipelines.ingestion.file_inspection import Inspection
from data_pipelines.ingestion.index import FileIndex, index_sources
from data_pipelines.ingestion.index import files as files_module
from data_pipelines.ingestion.index import parts as parts_module
from data_pipelines.runtime.limits import limited

FILES = ("manifest.parquet", "quarantine.csv", "ingest.json")

KILLED = """
import os, signal, sys
from data_pipelines.ingestion import ingest
def progress(done, total):
    if done >= total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
source, out = sys.argv[1:]
ingest(source, None, out, units="display", workers=1, progress=progress)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """100 files: slices, pictures, an array, and two files that are no image."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(92):
        picture = rng.integers(0, 256, (12, 12)).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{n:02}.png")
    for n in range(5):
        save_slice(folder / f"slice{n}.dcm", n, rng)
    arrays = {"train_images": rng.integers(0, 256, (5, 28, 28)).astype(np.uint8)}
    np.savez(folder / "x.npz", **arrays, train_labels=np.array([[0], [1], [0], [1], [0]]))
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes([1] * 9))
    (folder / "notes.txt").write_text("no image")
    return folder


def save_slice(path: Path, n: int, rng: np.random.Generator) -> None:
    uids = {"study": derived_uid("s"), "series": derived_uid("r"), "sop": derived_uid("i", str(n))}
    dataset = new_dataset("CT", ExplicitVRLittleEndian, patient_id="P 1", patient="N", **uids)
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-0.0, 0, n]
    set_pixels(dataset, rng.integers(0, 4096, (16, 12)).astype(np.uint16), bits=12)
    save(dataset, path)


def counted(patch: pytest.MonkeyPatch) -> list[str]:
    """The files that are given to the workers from now on."""
    files: list[str] = []
    original: Callable[..., Iterator] = parts_module.map_isolated

    def counting(function: Callable, items: list[str], **options: object) -> Iterator:
        files.extend(items)
        return original(function, items, **options)

    patch.setattr(parts_module, "map_isolated", counting)
    return files


def kill_at_half(source: Path, out: Path) -> None:
    """Ingest in another process, which kills itself when half of the files are read."""
    done = subprocess.run([sys.executable, "-c", KILLED, source, out], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()


def same_index(a: FileIndex, b: FileIndex) -> bool:
    columns = [(x.columns, y.columns) for x, y in zip(a.rejected, b.rejected, strict=True)]
    assert all(repr(x) == repr(y) for x, y in columns)
    return a.rejected == b.rejected and repr(a.rows.to_dict()) == repr(b.rows.to_dict())


def test_a_killed_ingest_reads_the_other_half_and_gives_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDRES_KEY", "ab" * 32)
    kill_at_half(source, tmp_path / "work")
    parts = tmp_path / ".work.parts"
    assert {stat.S_IMODE(path.stat().st_mode) for path in parts.iterdir()} == {0o600}
    assert stat.S_IMODE(parts.stat().st_mode) == 0o700
    work_in_process(monkeypatch)
    files = counted(monkeypatch)
    ingest(source, None, tmp_path / "work", units="display")
    assert 0.4 * 100 < len(files) <= 0.55 * 100
    assert not parts.exists()
    ingest(source, None, tmp_path / "whole", units="display")
    for name in FILES:
        assert (tmp_path / "work" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_parts_give_the_index_that_is_kept_in_memory(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    files = counted(monkeypatch)
    in_memory = index_sources([source], units="display")
    assert len(files) == 100
    first = index_sources([source], units="display", parts=tmp_path / "p")
    again = index_sources([source], units="display", parts=tmp_path / "p")
    assert len(files) == 200
    assert same_index(first, in_memory)
    assert same_index(again, in_memory)


def test_what_makes_a_part_void(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another option, limit or file; damage; and a file that could not be read."""
    work_in_process(monkeypatch)
    files = counted(monkeypatch)
    parts = tmp_path / "p"

    def read(**options: object) -> int:
        files.clear()
        index_sources([source], **{"units": "display", "parts": parts, **options})
        return len(files)

    assert (read(), read()) == (100, 0)
    assert read(color="luminance") == 100
    with limited(seconds=60):
        assert read(color="luminance") == 100
    assert (read(), len(list(parts.iterdir()))) == (100, 50)
    os.utime(source / "00.png", ns=(1, 1))
    assert read() == 2
    part = sorted(parts.iterdir())[0]
    part.write_bytes(part.read_bytes()[:-1])
    assert read() == 2


def test_a_file_that_could_not_be_read_is_read_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    whole = index_sources([source], units="display")
    inspect = files_module.inspect_path

    def offline(path: str, **options: object) -> Inspection:
        if path.endswith("01.png"):
            raise Unreadable("The storage does not answer.")
        return inspect(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files_module, "inspect_path", offline)
        index = index_sources([source], units="display", parts=tmp_path / "p")
    assert [file.path for file in index.rejected if file.reason == "unreadable"][:1] == ["01.png"]
    files = counted(monkeypatch)
    assert same_index(index_sources([source], units="display", parts=tmp_path / "p"), whole)
    assert [Path(path).name for path in files] == ["01.png"]


def test_parts_inside_a_source_are_no_files_of_it(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    first = index_sources([source], units="display", parts=source / ".p")
    assert same_index(index_sources([source], units="display", parts=source / ".p"), first)

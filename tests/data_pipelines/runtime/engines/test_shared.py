"""What the machines of a cluster must share: what each error says of a machine that differs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import EngineError
from data_pipelines.ingestion.index.parts import check_part, cut_into_parts
from data_pipelines.runtime.engines.shared import (
    code_version,
    require_files,
    require_marker,
    shared_marker,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for n in range(3):
        (tmp_path / f"{n}.dcm").write_bytes(bytes([n] * 50))
    return tmp_path


def part_of(source: Path):
    files = [(str(source), f"{n}.dcm") for n in range(3)]
    return cut_into_parts(files, {}, named=True)[0]


def test_a_source_that_a_machine_does_not_see(source: Path) -> None:
    part = part_of(source)
    check_part(part, None)
    (source / "0.dcm").unlink()  # as on a machine without the mount
    with raises_code(EngineError, "source_not_shared", str(source)) as caught:
        check_part(part, None)
    assert "0.dcm" not in str(caught.value)
    with raises_code(EngineError, "source_not_shared"):
        require_files([str(source / "1.dcm"), str(source / "0.dcm")])


def test_another_folder_at_the_same_path(source: Path) -> None:
    part = part_of(source)
    os.utime(source / "0.dcm", (1, 1))
    with raises_code(EngineError, "source_differs"):
        check_part(part, None)


def test_the_number_of_an_inode_may_differ_between_machines(source: Path) -> None:
    part, file = part_of(source), source / "0.dcm"
    status, data = file.stat(), file.read_bytes()
    (source / "copy").write_bytes(data)
    os.utime(source / "copy", ns=(status.st_atime_ns, status.st_mtime_ns))
    (source / "copy").replace(file)
    assert file.stat().st_ino != status.st_ino
    check_part(part, None)


def test_a_work_folder_that_a_machine_does_not_see(tmp_path: Path, source: Path) -> None:
    with shared_marker(tmp_path / "work") as marker:
        require_marker(marker)
        check_part(part_of(source), marker)
        elsewhere = marker.replace("work", "mount")
        with raises_code(EngineError, "work_not_shared"):
            check_part(part_of(source), elsewhere)
    assert list((tmp_path / "work").iterdir()) == []


def test_the_clock_of_a_machine_is_not_asked(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_of(source)
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, lambda: 10**9 * 3600)  # two machines, years apart
    assert part_of(source) == part
    check_part(part, None)


def test_the_version_depends_on_the_code() -> None:
    assert code_version("data_pipelines") == code_version("data_pipelines")
    assert len({code_version(name) for name in ("data_pipelines", "medres", "json")}) == 3

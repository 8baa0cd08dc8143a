from __future__ import annotations

from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import LimitExceeded, Unreadable
from data_pipelines.runtime import storage
from data_pipelines.runtime.limits import limited


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (9 << 20) + 5])
def test_a_file_is_read_whole_in_chunks_that_count_as_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    path = tmp_path / "file"
    path.write_bytes(data)
    events: list[bool] = []
    clock = storage.StorageClock([0.0, 0.0], events.append)
    monkeypatch.setattr(storage, "_clock", clock)
    assert storage.read_file(path) == data
    assert events == [True, False] * (len(events) // 2)
    assert len(events) // 2 >= 2 + size // (4 << 20)
    assert clock.reading_since == 0
    assert clock.waited > 0
    with storage.open_file(path) as file:
        assert file.read(3) + file.read() == data
        file.seek(0)
        assert file.read(1 << 16) == data[: 1 << 16]


def test_too_large_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with limited(file=99), raises_code(LimitExceeded, LimitExceeded("").code):
        storage.read_file(path)
    with raises_code(Unreadable, Unreadable("").code):
        storage.read_source(tmp_path / "none")

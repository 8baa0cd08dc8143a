from __future__ import annotations

import threading
from pathlib import Path

import pytest

from data_pipelines.ingestion.test_access_log import COLUMNS, NAME, log_test_access, read_openings


def test_the_log_grows_by_a_line_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["/x/medres/evaluate/__main__.py", "/home/CANARY.keras", "--out=CANARY", "--json"],
    )
    assert read_openings(tmp_path) == []
    first = log_test_access(tmp_path, model_sha256="a" * 64, manifest_sha256="m")
    assert (first["times"], first["models"]) == (1, 1)
    before = (tmp_path / NAME).read_bytes()
    second = log_test_access(tmp_path, model_sha256="b" * 64, manifest_sha256="m")
    assert (second["times"], second["models"], second["first"]) == (2, 2, first["first"])
    assert (tmp_path / NAME).read_bytes().startswith(before)
    lines = read_openings(tmp_path)
    assert [tuple(line) for line in lines] == [COLUMNS] * 2
    assert {line["command"] for line in lines} == {"evaluate --out --json"}


def test_lines_of_many_writers_do_not_mix(tmp_path: Path) -> None:
    log_test_access(tmp_path, model_sha256="0", manifest_sha256="m")

    def write(number: int) -> None:
        for _ in range(10):
            log_test_access(tmp_path, model_sha256=str(number) * 64, manifest_sha256="m")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(1, 5)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(read_openings(tmp_path)) == 41
    assert {len(line["model_sha256"]) for line in read_openings(tmp_path)} == {1, 64}


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    assert (
        "cannot be written"
        in log_test_access(tmp_path, model_sha256="a", manifest_sha256="m")["not_logged"]
    )

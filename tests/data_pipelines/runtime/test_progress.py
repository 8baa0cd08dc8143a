"""Where progress goes: to standard error, and in a notebook below its cell."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_pipelines.cache.store import ensure_cache, verify_caches
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.runtime.progress import Bars, in_notebook
from data_pipelines.synthetic.cohort import make_cohort


def shell(monkeypatch: pytest.MonkeyPatch, running: object) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: running))


def test_an_imported_kernel_is_no_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    for running in (None, SimpleNamespace()):  # no shell; a terminal's shell
        shell(monkeypatch, running)
        assert not in_notebook()
        Bars().line("one [finished] thing")
        assert capsys.readouterr() == ("", "one [finished] thing\n")


def test_in_a_notebook_lines_stand_below_the_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shell(monkeypatch, SimpleNamespace(kernel=object()))
    assert in_notebook()
    Bars().line("done")
    assert capsys.readouterr() == ("done\n", "")


def test_long_tasks_say_in_a_log_how_long_they_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "data_pipelines.runtime.progress.time", SimpleNamespace(monotonic=lambda: now[0])
    )
    with Bars().task("cache") as update:
        for part in (200, 1000):  # two parts: headers, then samples
            for done in range(1, part + 1):
                now[0] += 0.5
                update(done, part)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "cache: 20 of 200 (10 %), about 2 min left"
    assert lines[1] == "cache: 80 of 200 (40 %), about 60 s left"
    assert lines[-1] == "cache: 1,000 of 1,000 done"
    assert any(line.startswith("cache: 1") and "of 1,000" in line for line in lines)
    assert 5 < len(lines) < 30


def test_short_tasks_are_silent_in_a_log(capsys: pytest.CaptureFixture) -> None:
    with Bars().task("cache") as update:
        update(1, 2)
        update(2, 2)
    assert capsys.readouterr() == ("", "")


def test_a_resumed_task_counts_its_own_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "data_pipelines.runtime.progress.time", SimpleNamespace(monotonic=lambda: now[0])
    )
    with Bars().task("cache") as update:
        for done in range(9001, 9012):
            update(done, 10_000)
            now[0] += 1
    assert "about 15 min left" in capsys.readouterr().err


def test_long_steps_are_visible_unless_a_callback_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("data_pipelines.runtime.progress.FIRST_LINE_S", 0.0)
    source = make_cohort(tmp_path / "dicom", patients=8, seed=5, only="radiograph")
    labels = source / "labels.csv"
    work = tmp_path / "work"
    ingest(source, labels, work, workers=1)
    assert "ingest: 52 of 52 done" in capsys.readouterr().err
    ensure_cache(work, "xray-32", workers=1)
    assert "cache xray-32: " in capsys.readouterr().err
    verify_caches(work)
    assert "check xray-32" in capsys.readouterr().err
    counts: list[tuple[int, int]] = []
    ingest(source, labels, tmp_path / "second", workers=1, progress=lambda *c: counts.append(c))
    ensure_cache(tmp_path / "second", "xray-32", progress=lambda *c: counts.append(c))
    assert counts
    assert capsys.readouterr() == ("", "")

"""`make results`: what it runs fits in an hour, and it names all other published tables."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PUBLISHED = (ROOT / "benchmarks" / "RESULTS.md", ROOT / "docs" / "results.md")


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["results"] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


def test_what_runs_by_default_fits_in_an_hour(results: ModuleType) -> None:
    by_default = [job for job in results.JOBS if not job.long]
    assert len(by_default) >= 8
    assert sum(job.minutes for job in by_default) <= 60
    assert len({job.name for job in results.JOBS}) == len(results.JOBS)


def test_every_published_table_has_a_job(results: ModuleType) -> None:
    jobs = " ".join(job.arguments for job in results.JOBS)
    text = "".join(path.read_text() for path in PUBLISHED)
    scripts = set(re.findall(r"^(?:## `)?python benchmarks/(\w+\.py)", text, re.MULTILINE))
    tests = set(re.findall(r"^## `pytest -m long (tests/[\w/.]+)", text, re.MULTILINE))
    assert len(scripts) > 20
    assert tests
    assert [name for name in scripts | tests if f"/{name}" not in jobs] == []


def test_scripts_exist_and_know_their_options(results: ModuleType) -> None:
    for job in results.JOBS:
        if job.arguments.startswith("-m pytest"):
            path = re.search(r"\{here\}/\.\./(\S+)", job.arguments)[1]
            assert (ROOT / path).exists(), job.name
        elif job.arguments.startswith("{here}/"):
            script = ROOT / "benchmarks" / job.arguments.split()[0].removeprefix("{here}/")
            options = re.findall(r"--[a-z-]+", job.arguments)
            options += ["--torch-python"] if "{torch}" in job.arguments else []
            code = script.read_text()
            assert [option for option in options if option not in code] == [], job.name


def test_a_run_without_all_names_the_rest(
    results: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started: list[str] = []
    monkeypatch.setattr(results, "run", lambda job, *_: started.append(job.name) or True)
    monkeypatch.setattr(sys, "argv", ["results.py", "data", str(tmp_path / "out")])
    results.main()
    assert started == [job.name for job in results.JOBS if not job.long]
    printed = capsys.readouterr().out
    assert [job.name for job in results.JOBS if job.long and job.name not in printed] == []
    started.clear()
    monkeypatch.setattr(sys, "argv", ["results.py", "data", str(tmp_path / "out"), "--all"])
    results.main()
    by_hand = [job.name for job in results.JOBS if job.needs]
    assert started == [job.name for job in results.JOBS if job.name not in by_hand]
    assert all(name in capsys.readouterr().out for name in by_hand[:1])

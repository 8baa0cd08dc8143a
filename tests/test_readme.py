"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from conftest import make_tiny_cohort

    labels = make_tiny_cohort(tmp_path)
    (tmp_path / "images").rename(tmp_path / "dicom")
    for path in sorted((tmp_path / "dicom").glob("TINY001-*")):
        (tmp_path / "dicom" / "patient-001").mkdir(exist_ok=True)
        path.rename(tmp_path / "dicom" / "patient-001" / path.name)
    assert labels == tmp_path / "labels.csv"
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    assert len(code[1].splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(code[1], "README.md", "exec"), {})
    assert "refused=None" in capsys.readouterr().out
    for name in ("report.html", "report.json", "tables"):
        assert (tmp_path / "report" / name).exists()


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), (
                f"{page.name}: {target}"
            )


def test_its_commands_exist() -> None:
    from typer.main import get_command

    from medres.cli.app import app

    verbs = set(get_command(app).commands)
    named = set(re.findall(r"^medres (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named <= verbs
    assert named

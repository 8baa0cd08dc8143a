"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_example_runs_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """In an empty folder: the example makes its data itself."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks[0].splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile("".join(blocks), "README.md", "exec"), {})
    assert "refused=None" in capsys.readouterr().out
    for name in ("model.keras", "report/report.html", "report/report.json", "report/tables"):
        assert (tmp_path / name).exists()


def test_its_commands_exist() -> None:
    from typer.main import get_command

    from medres.cli.app import app

    verbs = set(get_command(app).commands)
    named = set(re.findall(r"^medres (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named <= verbs
    assert named

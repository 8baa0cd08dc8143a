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
    assert len([line for line in blocks[0].splitlines() if line]) <= 10
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


def test_what_it_does_not_let_happen_is_tested() -> None:
    """Each row names a test, by the end of its path."""
    text = (ROOT / "README.md").read_text().partition("## What medres does not let happen")[2]
    rows = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        named = re.search(r"\| `([\w/]+\.py)::(test_\w+)` \|$", row)
        assert named, row
        files = [
            path for path in (ROOT / "tests").rglob("*.py") if str(path).endswith(f"/{named[1]}")
        ]
        assert len(files) == 1, row
        assert f"def {named[2]}(" in files[0].read_text(), row


def test_every_picture_says_what_it_shows() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for words, target in re.findall(r"!\[(.*?)\]\((.+?)\)", page.read_text()):
            assert words, target
            assert (page.parent / target).stat().st_size < 300_000

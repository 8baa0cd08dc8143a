"""The map of the house shows rooms and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_on_the_page_exists(page: str) -> None:
    named = re.findall(
        r"`((?:medres|data_pipelines|tests|docs|benchmarks)/[\w./-]*)`", (ROOT / page).read_text()
    )
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_room_is_on_the_map() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rooms = [
        folder
        for package in ("medres", "data_pipelines")
        for folder in sorted((ROOT / package).iterdir())
        if (folder / "__init__.py").exists()
    ]
    assert [r.name for r in rooms if f"`{r.relative_to(ROOT).as_posix()}/`" not in page] == []

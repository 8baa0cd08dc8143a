"""The threats in SECURITY.md name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_threat_names_a_test_that_exists() -> None:
    section = (ROOT / "SECURITY.md").read_text().partition("## `medres serve`")[2]
    rows = [row for row in section.splitlines() if row.startswith("| ") and "threat" not in row]
    assert len(rows) > 15
    for row in rows:
        file, name = re.search(r"`([\w/]+\.py)::(\w+)` \|$", row).groups()
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(), row

"""Reporting guidelines item by item: which items this report answers, and which the authors must
answer.

STARD 2015, STARD-AI, TRIPOD+AI and CLAIM 2024, one CSV each in `guidelines/`: item, requirement
(paraphrased), the key of the design file that answers it, the section of the report that does.
An item that neither the data nor the design file answers stays open.
"""

from __future__ import annotations

import csv
from importlib import resources
from typing import Any

from medres.evaluate.reporting.checklist_answers import ANSWERS

GUIDELINES = {
    "stard-2015": ("STARD 2015", "Bossuyt et al., BMJ 2015;351:h5527"),
    "stard-ai-2025": ("STARD-AI", "Sounderajah et al., Nature Medicine 2025;31:3283"),
    "tripod-ai-2024": ("TRIPOD+AI", "Collins et al., BMJ 2024;385:e078378"),
    "claim-2024": (
        "CLAIM 2024",
        "Tejani et al., Radiology: Artificial Intelligence 2024;6:e240300",
    ),
}


def crosswalks(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """[{"guideline", "source", "rows": [{"item", "about", "answer", "design"}]}]; the answer of an
    open item is None.
    """
    return [
        {"guideline": name, "source": source, "rows": [_row(item, numbers) for item in items(key)]}
        for key, (name, source) in GUIDELINES.items()
    ]


def items(key: str) -> list[dict[str, str]]:
    """The items of a guideline: item, about, design, section; the last two may be empty."""
    text = (resources.files("medres.evaluate.reporting") / "guidelines" / f"{key}.csv").read_text(
        encoding="utf-8"
    )
    return list(csv.DictReader(text.splitlines()))


def _row(item: dict[str, str], numbers: dict[str, Any]) -> dict[str, str | None]:
    stated = numbers["design"].get(item["design"]) if item["design"] else None
    parts = [
        None if stated in (None, "", []) else _text(stated),
        ANSWERS[item["section"]](numbers) if item["section"] else None,
    ]
    answer = " ".join(part for part in parts if part) or None
    return {
        "item": item["item"],
        "about": item["about"],
        "answer": answer,
        "design": item["design"] or None,
    }


def _text(value: Any) -> str:
    """A value of the design file as a sentence: lists are joined, and a full stop is added."""
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if text.endswith((".", "!", "?")) else text + "."

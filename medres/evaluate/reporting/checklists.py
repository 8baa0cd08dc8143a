"""Reporting guidelines item by item: which items this report answers, and which the authors must
answer.

STARD 2015, STARD-AI, TRIPOD+AI and CLAIM 2024, one CSV each in `guidelines/`: item, requirement
(paraphrased), the key of the design file that answers it, the section of the report that does.
An item that neither the data nor the design file answers stays open.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib import resources
from typing import Any

from medres.evaluate.reporting.checklist_answers import ANSWERS
from medres.evaluate.schema import Checklist, ChecklistItem, Report

GUIDELINES = {
    "stard-2015": ("STARD 2015", "Bossuyt et al., BMJ 2015;351:h5527"),
    "stard-ai-2025": ("STARD-AI", "Sounderajah et al., Nature Medicine 2025;31:3283"),
    "tripod-ai-2024": ("TRIPOD+AI", "Collins et al., BMJ 2024;385:e078378"),
    "claim-2024": (
        "CLAIM 2024",
        "Tejani et al., Radiology: Artificial Intelligence 2024;6:e240300",
    ),
}


def crosswalks(report: Report) -> list[Checklist]:
    """Every guideline with its items; the answer of an open item is None."""
    return [
        Checklist(name, source, [_item(item, report) for item in items(key)])
        for key, (name, source) in GUIDELINES.items()
    ]


def items(key: str) -> list[dict[str, str]]:
    """The items of a guideline: item, about, design, section; the last two may be empty."""
    text = (resources.files("medres.evaluate.reporting") / "guidelines" / f"{key}.csv").read_text(
        encoding="utf-8"
    )
    return list(csv.DictReader(text.splitlines()))


def _item(item: dict[str, str], report: Report) -> ChecklistItem:
    parts = [
        stated_answer(item, report.design.answers),
        ANSWERS[item["section"]](report) if item["section"] else None,
    ]
    answer = " ".join(part for part in parts if part) or None
    return ChecklistItem(item["item"], item["about"], answer, item["design"] or None)


def stated_answer(item: Mapping[str, str], answers: Mapping[str, Any]) -> str | None:
    """What the design file says about an item, as a sentence."""
    stated = answers.get(item["design"]) if item["design"] else None
    return None if stated in (None, "", []) else _sentence(stated)


def _sentence(value: object) -> str:
    """A value of the design file as a sentence: lists are joined, and a full stop is added."""
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if text.endswith((".", "!", "?")) else text + "."

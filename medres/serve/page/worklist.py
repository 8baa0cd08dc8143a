"""The rows of the worklist: studies that are being received, and jobs, the newest first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from medres.serve.database import READY
from medres.serve.page.words import RECEIVING, STATES, clock
from medres.serve.spool import Spool

PER_PAGE = 50


class Row(NamedTuple):
    """job: its id, '' while images arrive. answer: in a few words, '' before there is one. tone:
    positive, negative, refused or none.
    """

    job: str
    when: str
    images: int
    what: str
    revision: int
    state: str
    state_text: str
    answer: str
    tone: str


class Worklist(NamedTuple):
    """One page of the list. number: of this page, from 1 on."""

    rows: list[Row]
    number: int
    n_pages: int
    n_waiting: int


def worklist(spool: Spool, number: int) -> Worklist:
    """Page `number`; the last one where there are not so many."""
    database = spool.database
    total = database.value("SELECT count(*) FROM job")
    n_pages = max(1, -(-total // PER_PAGE))
    number = min(max(1, number), n_pages)
    rows = [] if number > 1 else _receiving(spool)
    jobs = database.rows(
        "SELECT id, study, revision, state, result, created, instances FROM job"
        " ORDER BY created DESC, id LIMIT ? OFFSET ?",
        PER_PAGE,
        (number - 1) * PER_PAGE,
    )
    for job in jobs:
        answer, tone = ("", "none") if job["state"] == READY else short_answer(job["result"])
        rows.append(
            Row(
                job["id"],
                clock(job["created"]),
                len(json.loads(job["instances"])),
                kind_of(spool, job["study"]),
                job["revision"],
                job["state"],
                STATES[job["state"]],
                answer,
                tone,
            )
        )
    return Worklist(rows, number, n_pages, spool.n_waiting())


def _receiving(spool: Spool) -> list[Row]:
    studies = spool.database.rows(
        "SELECT uid, touched, (SELECT count(*) FROM instance WHERE study = uid) AS n FROM study"
        " WHERE is_open ORDER BY touched DESC LIMIT ?",
        PER_PAGE,
    )
    return [
        Row("", clock(one["touched"]), one["n"], kind_of(spool, one["uid"]), 0, RECEIVING,
            STATES[RECEIVING], "", "none")
        for one in studies
    ]  # fmt: skip


def kind_of(spool: Spool, study: str) -> str:
    """Such as "CR CHEST PA"; of the first image."""
    row = spool.database.row(
        "SELECT modality, body_part, view FROM instance WHERE study = ? ORDER BY received LIMIT 1",
        study,
    )
    return " ".join(filter(None, tuple(row))) if row else ""


def short_answer(result: str | None) -> tuple[str, str]:
    """The answer of a job in a few words, and its tone."""
    predictions = json.loads(result)["predictions"] if result else []
    parts = [_one_answer(prediction) for prediction in predictions]
    if not parts:
        return "", "none"
    tones = [tone for _, tone in parts]
    tone = next((one for one in ("positive", "negative", "none") if one in tones), "refused")
    texts = list(dict.fromkeys(text for text, _ in parts))
    more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
    return "; ".join(texts[:2]) + more, tone


def _one_answer(prediction: Mapping[str, Any]) -> tuple[str, str]:
    if prediction["refused"] is not None:
        return f"refused ({prediction['code']})", "refused"
    if "boxes" in prediction:
        labels = [box["label"] for box in prediction["boxes"] if box["is_positive"]]
        counts = ", ".join(f"{count} {label}" for label, count in Counter(labels).items())
        return (f"boxes: {counts}", "positive") if counts else ("no boxes", "negative")
    decisions = prediction.get("decisions") or {}
    if "class" in decisions and not isinstance(decisions["class"], bool):
        return str(decisions["class"]), "none"
    positive = [name for name, is_positive in decisions.items() if is_positive]
    if positive:
        return f"positive: {', '.join(positive)}", "positive"
    if decisions:
        return "negative", "negative"
    return ("masks" if prediction.get("masks") else "answered"), "none"

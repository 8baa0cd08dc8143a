"""The log of accesses to the test split: WORK/test_openings.csv gets one line each time a model is
scored on it, and is never shortened.

A test split on which many models were tried is no longer a test: the reader of a report should see
how often it was used.
"""

from __future__ import annotations

import csv
import datetime
import io
import os
import sys
from pathlib import Path
from typing import Any

NAME = "test_openings.csv"
COLUMNS = ("date", "command", "model_sha256", "manifest_sha256")


def log_test_access(work: Path | str, *, model_sha256: str, manifest_sha256: str) -> dict[str, Any]:
    """Add one line, and return what report.json says: times (how often the test split was used,
    this time included), models (how many different ones) and first (the first date).

    When the folder cannot be written, nothing is counted and the key not_logged says why.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
    try:
        _append(Path(work) / NAME, [now, _command(), model_sha256, manifest_sha256])
        lines = read_openings(work)
    except OSError as error:
        return {"not_logged": f"{NAME} cannot be written ({type(error).__name__})"}
    return {
        "times": len(lines),
        "models": len({line["model_sha256"] for line in lines}),
        "first": min(line["date"] for line in lines),
    }


def read_openings(work: Path | str) -> list[dict[str, str]]:
    """Return the lines of the log as dicts of COLUMNS, oldest first; [] if there is no log."""
    path = Path(work) / NAME
    if not path.is_file():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def _append(path: Path, cells: list[str]) -> None:
    """Append with a single write, so that the lines of two processes do not mix (O_APPEND)."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if os.fstat(handle).st_size == 0:
            writer.writerow(COLUMNS)
        writer.writerow(cells)
        os.write(handle, text.getvalue().encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _command() -> str:
    """The program and its options without their values, which may contain names of people."""
    program = Path(sys.argv[0] or "python")
    name = program.parent.name if program.name == "__main__.py" else program.name
    options = [word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--")]
    return " ".join([name, *options])

"""A report on disk. Everything is written beside the target and then renamed, so nobody ever sees
a half-written report.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.runtime.csv_cells import escape_formula
from medres.errors import EvaluationError
from medres.evaluate.reporting.csv_tables import Cell, Row


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raises EvaluationError unless the folder is new, empty, or (with overwrite) an earlier
    report. Codes: not_a_folder, not_empty, not_a_report.
    """
    if folder.is_file():
        raise EvaluationError(
            f"the output {folder.name!r} is a file: give the name of a folder", code="not_a_folder"
        )
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise EvaluationError(
            f"the output folder {folder.name!r} exists and is not empty: choose another one, or "
            "add --overwrite to replace an earlier report",
            code="not_empty",
        )
    if not is_report(folder):
        raise EvaluationError(
            f"the output folder {folder.name!r} holds files that do not belong to a report: "
            "choose another folder",
            code="not_a_report",
        )


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report of medres and nothing else."""
    if {entry.name for entry in folder.iterdir()} - {
        "report.html",
        "report.json",
        "model_card.md",
        "tables",
    }:
        return False
    try:
        schema = json.loads((folder / "report.json").read_text(encoding="utf-8")).get("schema", "")
    except (OSError, ValueError, AttributeError):
        return False
    return str(schema).startswith("medres.report/")


def save_report(
    texts: Mapping[str, str],
    tables: Mapping[str, list[Row]],
    folder: Path,
    *,
    overwrite: bool,
) -> Path:
    """Write the texts (by file name) and tables/, and rename the folder into place. After a
    failure nothing is left behind, and an earlier report is still complete.
    """
    folder = folder.resolve()
    check_target(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new = staging / "new"
        (new / "tables").mkdir(parents=True)
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        for name, rows in tables.items():
            write_table(new / "tables" / f"{name}.csv", rows)
        if folder.exists():
            folder.replace(staging / "old")
        new.replace(folder)
    finally:
        if not folder.exists() and (staging / "old").exists():
            (staging / "old").replace(folder)
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def write_table(path: Path, rows: list[Row]) -> None:
    """Write CSV in UTF-8. A text that a spreadsheet would run as a formula gets a leading
    apostrophe.
    """
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_cell(name) for name in names])
        writer.writerows([_cell(row.get(name)) for name in names] for row in rows)


def _cell(value: Cell) -> Cell:
    if isinstance(value, str):
        return escape_formula(value)
    return "" if value is None else value

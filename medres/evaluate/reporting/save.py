"""A report on disk: everything is written beside the target and renamed, so nothing half-written is
ever seen.
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
    report.
    """
    if folder.is_file():
        raise EvaluationError(f"the output {folder.name!r} is a file: name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise EvaluationError(
            f"the output folder {folder.name!r} exists and is not empty: choose another, or add "
            f"--overwrite to replace "
            "an earlier report"
        )
    if not is_report(folder):
        raise EvaluationError(
            f"the output folder {folder.name!r} holds something other than a report: choose another"
        )


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report of ours and nothing else."""
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
    """Write the texts (by file name) and tables/, and rename the folder into place. A failure
    leaves no trace and an earlier report whole.
    """
    folder = folder.resolve()
    check_target(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh = beside / "new"
        (fresh / "tables").mkdir(parents=True)
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        for name, table in tables.items():
            write_table(fresh / "tables" / f"{name}.csv", table)
        if folder.exists():
            folder.replace(beside / "old")
        fresh.replace(folder)
    finally:
        if not folder.exists() and (beside / "old").exists():
            (beside / "old").replace(folder)
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def write_table(path: Path, rows: list[Row]) -> None:
    """CSV in UTF-8; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_cell(name) for name in names])
        writer.writerows([_cell(row.get(name)) for name in names] for row in rows)


def _cell(value: Cell) -> Cell:
    if isinstance(value, str):
        return escape_formula(value)
    return "" if value is None else value

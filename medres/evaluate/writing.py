"""A report on disk: everything is written beside the target and renamed, so nothing half-written is ever seen."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medres.errors import EvaluationError

ESTIMATE_KEYS = (
    "estimate",
    "ci_low",
    "ci_high",
    "level",
    "method",
    "n",
    "numerator",
    "denominator",
    "n_clusters",
    "why",
)


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raises EvaluationError unless the folder is new, empty, or (with overwrite) an earlier report."""
    if folder.is_file():
        raise EvaluationError(f"the output {folder.name!r} is a file: name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise EvaluationError(
            f"the output folder {folder.name!r} exists and is not empty: choose another, or add --overwrite to replace "
            "an earlier report"
        )
    if not is_report(folder):
        raise EvaluationError(f"the output folder {folder.name!r} holds something other than a report: choose another")


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report of ours and nothing else."""
    if {entry.name for entry in folder.iterdir()} - {"report.html", "report.json", "model_card.md", "tables"}:
        return False
    try:
        schema = json.loads((folder / "report.json").read_text(encoding="utf-8")).get("schema", "")
    except (OSError, ValueError, AttributeError):
        return False
    return str(schema).startswith("medres.report/")


def save_report(
    texts: Mapping[str, str], rows: Mapping[str, list[dict[str, Any]]], folder: Path, *, overwrite: bool
) -> Path:
    """Write the texts (by file name) and tables/, and rename the folder into place. A failure leaves no trace and an
    earlier report whole."""
    folder = folder.resolve()
    check_target(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh = beside / "new"
        (fresh / "tables").mkdir(parents=True)
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        for name, table in rows.items():
            write_table(fresh / "tables" / f"{name}.csv", table)
        if folder.exists():
            folder.replace(beside / "old")
        fresh.replace(folder)
    finally:
        if not folder.exists() and (beside / "old").exists():
            (beside / "old").replace(folder)
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def tables(numbers: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each CSV table: figures, operating_points, curves, subgroups, comparisons, confusion."""
    out: dict[str, list[dict[str, Any]]] = {"figures": [], "operating_points": [], "curves": [], "subgroups": []}
    for name, finding in numbers["findings"].items():
        flat = {k: v for k, v in finding.items() if k != "calibration"} | finding["calibration"]
        out["figures"] += [
            {"finding": name, "figure": key} | _estimate(value) for key, value in flat.items() if _is_estimate(value)
        ]
        for point in finding["operating_points"]:
            out["operating_points"] += _point_rows(name, point)
        out["curves"] += _curve_rows(name, finding)
        for row in finding["subgroups"]:
            plain = {k: v for k, v in row.items() if not isinstance(v, dict | list)}
            out["subgroups"].append({"finding": name} | plain | _estimate(row.get("auc", {}), "auc_"))
    if numbers["comparisons"]:
        out["comparisons"] = [
            {k: v for k, v in row.items() if not isinstance(v, dict)}
            | _estimate(row["auc_difference"], "auc_difference_")
            for row in numbers["comparisons"]
        ]
    if "multiclass" in numbers:
        many = numbers["multiclass"]
        out["confusion"] = [
            {"truth": truth} | dict(zip(many["classes"], row, strict=True))
            for truth, row in zip(many["classes"], many["confusion"], strict=True)
        ]
    return {name: rows for name, rows in out.items() if rows}


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """CSV in UTF-8; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([safe_cell(name) for name in names])
        writer.writerows([safe_cell(row.get(name)) for name in names] for row in rows)


def safe_cell(value: Any) -> Any:
    if (isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@", "\t", "\r"))) or value == "\t":
        return "'" + str(value)
    return "" if value is None else value


def _is_estimate(value: Any) -> bool:
    return isinstance(value, dict) and "ci_low" in value


def _estimate(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return {prefix + key: value.get(key) for key in ESTIMATE_KEYS}


def _point_rows(name: str, point: dict[str, Any]) -> Iterable[dict[str, Any]]:
    head = {"finding": name} | {k: point[k] for k in ("name", "threshold", "origin", "tp", "fp", "fn", "tn")}
    return [head | {"figure": key} | _estimate(value) for key, value in point.items() if _is_estimate(value)]


def _curve_rows(name: str, finding: dict[str, Any]) -> Iterable[dict[str, Any]]:
    counts = finding.get("curves", {}).get("counts")
    if counts is None:
        return []
    return [
        {"finding": name, "threshold": t, "tp": tp, "fp": fp}
        for t, tp, fp in zip(counts["threshold"], counts["tp"], counts["fp"], strict=True)
    ]

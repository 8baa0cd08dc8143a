"""What an ingest writes that learned about its files but cannot make a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.errors import InputError
from data_pipelines.ingestion.manifest import QUARANTINE_COLUMNS, SCHEMA, escaped_csv
from data_pipelines.runtime.atomic_files import staged_folder, write_atomic

#: reasons of a refusal that --no-split avoids
RECORDED = frozenset({"too_few_patients", "one_class"})
_FILES = ("ingest.json", "quarantine.csv")


def write_refusal(
    work: Path, error: InputError, summary: Mapping[str, Any], quarantine: pd.DataFrame
) -> InputError:
    """Write quarantine.csv, and ingest.json with the key `refused` (code and message), into the new
    folder `work`; return the error with a sentence that says so, and for RECORDED what to do.
    """
    refused = {"code": error.code, "message": str(error)}
    content = {"schema": SCHEMA, **summary, "refused": refused}
    with staged_folder(work, what="the list of files") as folder:
        write_atomic(folder / "quarantine.csv", escaped_csv(quarantine, QUARANTINE_COLUMNS))
        write_atomic(
            folder / "ingest.json", json.dumps(content, indent=1, allow_nan=False).encode()
        )
    advice = " To only look at the images, or to predict them, use --no-split."
    return type(error)(
        f"{error} What became of each file is in {work / 'ingest.json'} and "
        f"{work / 'quarantine.csv'}; there is no manifest."
        + (advice if error.code in RECORDED else ""),
        code=error.code,
    )


def clear_refusal(work: Path) -> None:
    """Remove what write_refusal left in `work`, and nothing else."""
    if not work.is_dir() or {path.name for path in work.iterdir()} != set(_FILES):
        return
    try:
        is_refusal = "refused" in json.loads((work / "ingest.json").read_bytes())
    except (OSError, ValueError):
        return
    if is_refusal:
        for name in _FILES:
            (work / name).unlink()

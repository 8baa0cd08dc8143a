"""The manifest: a table with one row per accepted image, and a summary of all files.

On disk it is a WORK folder: manifest.parquet, ingest.json, quarantine.csv, audit.csv and, if no key
was given, pseudonym.key.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.errors import ManifestError
from data_pipelines.runtime.atomic_files import csv_bytes, write_atomic
from data_pipelines.runtime.csv_cells import escape_formula
from data_pipelines.splits.stratified import SPLITS

SCHEMA = "medres.manifest/1"

COLUMNS: dict[str, str] = {
    **dict.fromkeys(("image", "series", "study", "patient", "source", "path"), "str"),
    "frame": "int32",
    **dict.fromkeys(
        ("form", "status", "repairs", "kind", "modality", "photometric", "transfer_syntax"), "str"
    ),
    **dict.fromkeys(
        ("manufacturer", "model", "body_part", "view", "laterality", "site", "sex"), "str"
    ),
    "age": "float64",
    **dict.fromkeys(("rows", "cols"), "int32"),
    **dict.fromkeys(("row_spacing", "col_spacing"), "float64"),
    "order": "int32",
    **dict.fromkeys(("verdict", "file_sha256", "pixel_sha256", "split"), "str"),
}
#: columns that a manifest of an older version lacks. sop_class: a UID of the standard, "private" or
#: ''. detector_*: ImagerPixelSpacing
LATER_COLUMNS: dict[str, str] = {
    "sop_class": "str",
    **dict.fromkeys(("detector_row_spacing", "detector_col_spacing"), "float64"),
}
AUDIT_COLUMNS = ("what", "number", "path", "split", "kept", "patient", "distance", "source")
QUARANTINE_COLUMNS = ("path", "reason", "message", "source")


@dataclass(frozen=True, eq=False)
class Manifest:
    """An ingested cohort.

    table: one row per accepted image, with COLUMNS, LATER_COLUMNS, label:<finding> (float32: 1, 0,
        -1 or NaN) or class, meta:*, and fold if requested.
    summary: the content of ingest.json. quarantine: QUARANTINE_COLUMNS, one row per rejected file.
    audit: AUDIT_COLUMNS, see leakage_audit. work: the folder, None if the manifest is in memory.
    """

    table: pd.DataFrame
    summary: dict[str, Any]
    quarantine: pd.DataFrame
    work: Path | None = None
    audit: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(AUDIT_COLUMNS)))

    @classmethod
    def load(cls, work: Path | str) -> Manifest:
        """Open a WORK folder.

        Raises ManifestError: no_manifest when a file is missing, manifest_unreadable,
        manifest_changed when the table is not the one that ingest.json describes, manifest_schema.
        """
        work = Path(work)
        for name in ("manifest.parquet", "ingest.json", "quarantine.csv", "audit.csv"):
            if not (work / name).is_file():
                raise ManifestError(
                    f"{work} has no {name}: make the folder with medres ingest SOURCE --out {work}",
                    code="no_manifest",
                )
        data = (work / "manifest.parquet").read_bytes()
        try:
            summary = json.loads((work / "ingest.json").read_bytes())
            unchanged = (
                summary["schema"] == SCHEMA
                and summary["manifest_sha256"] == hashlib.sha256(data).hexdigest()
            )
            table = pd.read_parquet(io.BytesIO(data)) if unchanged else None
            quarantine, audit = (
                pd.read_csv(work / f"{name}.csv", dtype=str, keep_default_na=False)
                for name in ("quarantine", "audit")
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{work} cannot be read ({type(error).__name__}): {_fix(work)}",
                code="manifest_unreadable",
            ) from None
        if table is None:
            raise ManifestError(
                f"{work}: manifest.parquet is not the one that ingest.json describes: {_fix(work)}",
                code="manifest_changed",
            )
        return cls(check_table(table, where=str(work)), summary, quarantine, work, audit)

    def save(self, folder: Path) -> None:
        """Write manifest.parquet, quarantine.csv, audit.csv and, last, ingest.json into an existing
        folder.
        """
        data = self.table.to_parquet(index=False)
        write_atomic(folder / "manifest.parquet", data)
        write_atomic(folder / "quarantine.csv", escaped_csv(self.quarantine, QUARANTINE_COLUMNS))
        write_atomic(folder / "audit.csv", escaped_csv(self.audit, AUDIT_COLUMNS))
        summary = {
            "schema": SCHEMA,
            **self.summary,
            "manifest_sha256": hashlib.sha256(data).hexdigest(),
        }
        write_atomic(
            folder / "ingest.json", json.dumps(summary, indent=1, allow_nan=False).encode()
        )

    def _repr_html_(self) -> str:
        cells = [("split", "patients", "studies", "images", "per class")]
        for name, counts in self.summary["splits"].items():
            classes = ", ".join(f"{k}: {_counts(v)}" for k, v in counts["classes"].items())
            cells.append((name, counts["patients"], counts["studies"], counts["images"], classes))
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>"
            for row in cells
        )
        files = {k: self.summary[k] for k in ("given", "ok", "repaired", "quarantined", "skipped")}
        text = ", ".join(f"{name} {count}" for name, count in files.items())
        return f"<p>Manifest: {len(self.table)} images. Files: {text}.</p><table>{rows}</table>"


def check_table(table: pd.DataFrame, *, where: str) -> pd.DataFrame:
    """Return `table` if it follows the schema. Raises ManifestError (code manifest_schema), which
    names the column.
    """
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise _schema_error(where, f"the manifest lacks the columns {', '.join(missing)}")
    later = {name: dtype for name, dtype in LATER_COLUMNS.items() if name in table}
    for name, dtype in (COLUMNS | later).items():
        is_text = pd.api.types.is_string_dtype(table[name].dtype) and not table[name].isna().any()
        if not (is_text if dtype == "str" else table[name].dtype == dtype):
            raise _schema_error(where, f"column {name} of the manifest is not {dtype}")
    if table["image"].duplicated().any():
        raise _schema_error(where, "column image of the manifest has a value twice")
    if not table["split"].isin(SPLITS).all():
        splits = ", ".join(SPLITS)
        raise _schema_error(where, f"column split of the manifest has values other than {splits}")
    return table


def _schema_error(where: str, problem: str) -> ManifestError:
    return ManifestError(f"{where}: {problem}: {_fix(where)}", code="manifest_schema")


def _fix(where: object) -> str:
    return f"run medres ingest again, into a new folder ({where} is left as it is)."


def escaped_csv(table: pd.DataFrame, columns: Sequence[str]) -> bytes:
    """A CSV without formulas; a missing value is an empty cell."""
    records = table.astype(object).where(table.notna(), "").to_dict("records")
    return csv_bytes(
        ({str(k): escape_formula(str(v)) for k, v in row.items()} for row in records), columns
    )


def _counts(value: object) -> str:
    return "/".join(str(v) for v in value.values()) if isinstance(value, dict) else str(value)

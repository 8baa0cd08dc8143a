"""Reading a CSV that a person wrote: strict about its shape, and no cell appears in a message."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from data_pipelines.errors import LabelError

MAX_BYTES = 512 << 20


def read_csv(path: Path) -> pd.DataFrame:
    """Return the CSV at `path` as a table of stripped strings, '' where a cell is empty.

    The index is the row number that a spreadsheet shows: 2 for the first row after the header.
    Empty lines are left out. Raises LabelError (codes unreadable_table, table_too_large, not_utf8,
    malformed_csv, no_header, semicolons, bad_header, no_rows, ragged_row) when the file cannot be
    read, has no rows, separates its columns with semicolons, has a column without a name or two
    columns of the same name, or a row of another length than the header.
    """
    path = Path(path)
    text = _decoded(path)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        raise LabelError(
            f"{path} is not a well-formed CSV: look for a quote that is never closed.",
            code="malformed_csv",
        ) from None
    columns = _header(path, lines)
    rows = {
        number: line
        for number, line in enumerate(lines[1:], start=2)
        if any(cell.strip() for cell in line)
    }
    if not rows:
        raise LabelError(f"{path} has a header and no rows.", code="no_rows")
    for number, line in rows.items():
        if len(line) != len(columns):
            raise LabelError(
                f"{path}, row {number}: {len(line)} cells under {len(columns)} columns. Put cells "
                f"that contain a comma into quotes.",
                code="ragged_row",
            )
    cells = [[cell.strip() for cell in line] for line in rows.values()]
    return pd.DataFrame(cells, columns=columns, index=list(rows), dtype=object)


def _decoded(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LabelError(
                f"{path} is larger than {MAX_BYTES >> 20} MiB, the limit for a labels table.",
                code="table_too_large",
            )
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(
            f"{path} cannot be read ({type(error).__name__}). Check the path and its permissions.",
            code="unreadable_table",
        ) from None
    except UnicodeDecodeError:
        raise LabelError(
            f"{path} is not UTF-8 text. Save it as 'CSV UTF-8'.", code="not_utf8"
        ) from None


def _header(path: Path, lines: list[list[str]]) -> list[str]:
    columns = [name.strip() for name in lines[0]] if lines else []
    if not any(columns):
        raise LabelError(
            f"{path} has no header: its first row must contain the names of the columns.",
            code="no_header",
        )
    if len(columns) == 1 and ";" in columns[0]:
        raise LabelError(
            f"{path} separates its columns with semicolons. Save it with commas.",
            code="semicolons",
        )
    if "" in columns or len(set(columns)) < len(columns):
        raise LabelError(
            f"{path}: a column has no name, or two columns have the same name. Give each column "
            f"its own name.",
            code="bad_header",
        )
    return columns

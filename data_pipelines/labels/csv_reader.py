"""Reading a CSV that a person wrote: strict about its shape, and no cell appears in a message."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.cells import is_plain_index, is_unnamed

MAX_BYTES = 512 << 20


def read_csv(path: Path) -> pd.DataFrame:
    """Return the CSV at `path` as a table of stripped strings, '' where a cell is empty.

    The index is the row number that a spreadsheet shows: 2 for the first row after the header.
    Empty lines are left out, and so are columns without a name that are empty (a trailing comma) or
    count the rows (the index that pandas writes); `attrs["notes"]` of the table names them. Raises
    LabelError (codes unreadable_table, table_too_large, not_utf8,
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
        number: [cell.strip() for cell in line]
        for number, line in enumerate(lines[1:], start=2)
        if any(cell.strip() for cell in line)
    }
    if not rows:
        raise LabelError(f"{path} has a header and no rows.", code="no_rows")
    cells = {number: _fitted(line, columns) for number, line in rows.items()}
    for number, line in cells.items():
        if len(line) != len(columns):
            raise LabelError(
                f"{path}, row {number}: {len(line)} cells under {len(columns)} columns. Put cells "
                f"that contain a comma into quotes.",
                code="ragged_row",
            )
    return _without_unnamed(path, columns, cells)


def _fitted(line: list[str], columns: list[str]) -> list[str]:
    """The row without empty cells at its end that have no column (a trailing comma), and with one
    for each column at the end that has no name.
    """
    while len(line) > len(columns) and not line[-1]:
        line = line[:-1]
    while len(line) < len(columns) and not columns[len(line)]:
        line = [*line, ""]
    return line


def _without_unnamed(path: Path, columns: list[str], cells: dict[int, list[str]]) -> pd.DataFrame:
    """The table without the unnamed columns that are empty or count the rows; `attrs["notes"]`
    says which these are.
    """
    kept, notes = [], []
    for n, name in enumerate(columns):
        values = [line[n] for line in cells.values()]
        is_empty, is_index = not any(values), is_plain_index(values, first=n == 0)
        if is_unnamed(name) and (is_empty or is_index):
            what = "is empty" if is_empty else "counts the rows"
            notes.append(f"column {n + 1} of {len(columns)} has no name and {what}: left out")
        elif not name:
            raise LabelError(
                f"{path}: column {n + 1} of {len(columns)} has no name, and it is neither empty "
                f"nor an index. Give it a name.",
                code="bad_header",
            )
        else:
            kept.append(n)
    rows = [[line[n] for n in kept] for line in cells.values()]
    table = pd.DataFrame(rows, columns=[columns[n] for n in kept], index=list(cells), dtype=object)
    table.attrs["notes"] = tuple(notes)
    return table


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
    named = [name for name in columns if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        positions = ", ".join(str(n) for n, name in enumerate(columns, 1) if name == twice[0])
        raise LabelError(
            f"{path}: columns {positions} have the same name {twice[0]}. Give each column its own "
            f"name.",
            code="bad_header",
        )
    return columns

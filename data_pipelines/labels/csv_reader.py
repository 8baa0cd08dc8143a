"""Reading a CSV that a person made: strict about its shape, silent about its cells."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from data_pipelines.errors import LabelError

MAX_BYTES = 512 << 20


def read_csv(path: Path) -> pd.DataFrame:
    """Return the CSV at `path` as a table of stripped strings, '' where empty.

    The index is the row number that a spreadsheet shows: 2 for the first row after the header.
    Wholly empty lines are left out. Raises LabelError where the file cannot be read, is not UTF-8,
    has no rows, a column without a name or twice, a row of another length than the header, or
    semicolons in the place of commas.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LabelError(
                f"{path} is larger than {MAX_BYTES >> 20} MiB: too large for a labels table."
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(
            f"{path} cannot be read ({type(error).__name__}). Check the path and its rights."
        ) from None
    except UnicodeDecodeError:
        raise LabelError(f"{path} is not UTF-8 text. Save it as 'CSV UTF-8'.") from None
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        raise LabelError(
            f"{path} is not a well-formed CSV: look for a quote that is never closed."
        ) from None
    return _table(path, lines)


def _table(path: Path, lines: list[list[str]]) -> pd.DataFrame:
    columns = [name.strip() for name in lines[0]] if lines else []
    if not any(columns):
        raise LabelError(f"{path} has no header: its first row must name the columns.")
    if len(columns) == 1 and ";" in columns[0]:
        raise LabelError(f"{path} separates its columns with semicolons. Save it with commas.")
    if "" in columns or len(set(columns)) < len(columns):
        raise LabelError(
            f"{path}: each column needs a name of its own. One is empty or occurs twice."
        )
    rows = {
        number: line
        for number, line in enumerate(lines[1:], start=2)
        if any(cell.strip() for cell in line)
    }
    if not rows:
        raise LabelError(f"{path} has a header and no rows.")
    ragged = next((number for number, line in rows.items() if len(line) != len(columns)), None)
    if ragged is not None:
        raise LabelError(
            f"{path}, row {ragged}: {len(rows[ragged])} cells under {len(columns)} columns. Quote "
            f"cells that hold commas."
        )
    cells = [[cell.strip() for cell in line] for line in rows.values()]
    return pd.DataFrame(cells, columns=columns, index=list(rows), dtype=object)

"""Reading a table from disk, the digest that identifies it, and the refusal of some of its rows."""

from __future__ import annotations

import csv
import ctypes
import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from medres.errors import EvaluationError

CHUNK = 100_000  # rows; cells are Python objects until a chunk is read
PARQUET = (".parquet", ".pq")


def read_table(path: Path, what: str) -> pd.DataFrame:
    """A CSV with all cells as text, or a Parquet file with its own types. Raises EvaluationError.

    what: the name of the table in messages, such as "scores" or "tune".
    """
    if not path.is_file():
        raise EvaluationError(
            f"the {what} table {path.name!r} does not exist or is not a file", code="no_file"
        )
    try:
        if path.suffix.lower() in PARQUET:
            return pd.read_parquet(path)
        return _read_csv(path, what)
    except EvaluationError:
        raise
    except (ValueError, OSError, csv.Error) as error:
        raise EvaluationError(
            f"the {what} table {path.name!r} cannot be read as "
            f"{'Parquet' if path.suffix.lower() in PARQUET else 'UTF-8 CSV'} "
            f"({type(error).__name__}): save it again as comma-separated UTF-8 or as Parquet",
            code="unreadable_table",
        ) from None


def _read_csv(path: Path, what: str) -> pd.DataFrame:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    if not header:
        raise EvaluationError(
            f"the {what} table {path.name!r} is empty: it needs a header with label and score "
            "columns",
            code="empty_table",
        )
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise EvaluationError(
            f"the {what} table {path.name!r} separates its columns with "
            f"{'semicolons' if ';' in header[0] else 'tabs'}: save it with commas",
            code="semicolons",
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise EvaluationError(
            f"the {what} table has the column {repeated[0]!r} more than once: keep one of them",
            code="duplicate_column",
        )
    parts = pd.read_csv(
        path, encoding="utf-8-sig", dtype="str", keep_default_na=False, chunksize=CHUNK
    )
    with parts:
        return pd.concat(parts, ignore_index=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_rows(affected: object, problem: str, code: str, *, table: str) -> None:
    """Raise EvaluationError if any row is affected; the message counts them and names the first,
    from 1. affected: (rows,) bool. problem: continues "2 rows of the readers table".
    """
    rows = np.asarray(affected)
    if rows.any():
        count = int(rows.sum())
        raise EvaluationError(
            f"{count} row{'s' if count > 1 else ''} of the {table} table (first: row "
            f"{int(np.argmax(rows)) + 1}) {problem}",
            code=code,
        )


def frame_digest(frame: pd.DataFrame) -> str:
    """SHA-256 over the names and values of the columns."""
    digest = hashlib.sha256()
    for name, column in frame.items():
        plain = column if column.dtype.kind in "fiub" else column.astype("str")
        digest.update(
            str(name).encode() + pd.util.hash_pandas_object(plain, index=False).to_numpy().tobytes()
        )
    return digest.hexdigest()


def release_memory() -> None:
    """Give back what Arrow, which holds the texts of pandas, and the C library (glibc) keep for
    themselves after large arrays are gone.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

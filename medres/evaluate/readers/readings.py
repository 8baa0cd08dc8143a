"""The columns `time_s` and `block` of the readers table: one value for each reading."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.readers.ratings import FloatArray, IntArray, Readings
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import refuse_rows

Place = tuple[IntArray, ...]  # modality, reader and case of each row


def readings_of(table: pd.DataFrame, at: Place, shape: tuple[int, ...]) -> Readings | None:
    """Seconds and blocks; None if the table has neither column. Empty cells are unknown; the rows
    of one reading (its marks) may state a value once or several times alike.

    Raises EvaluationError. Codes: bad_time, time_differs, block_differs.
    """
    if not {"time_s", "block"} & set(table.columns):
        return None
    time = np.full(shape, np.nan)
    if "time_s" in table.columns:
        column = table["time_s"]
        seconds = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
        empty = (column.isna() | (column.astype(str).str.strip() == "")).to_numpy()
        refuse_rows(
            ~empty & ~(np.isfinite(seconds) & (seconds > 0)),
            "have a time_s that is no number of seconds above 0 (leave it empty if unknown)",
            "bad_time",
            table="readers",
        )
        time = _one_each(seconds, at, shape, "time_s", "time_differs")
    block, blocks = np.full(shape, -1), ()
    if "block" in table.columns:
        names = id_texts(table["block"])
        blocks = tuple(sorted(set(names) - {""}))
        codes = pd.Index(blocks).get_indexer(pd.Index(names)).astype(float)
        codes[codes < 0] = np.nan
        found = _one_each(codes, at, shape, "block", "block_differs")
        block = np.where(np.isnan(found), -1, found).astype(np.int64)
    return Readings(time, block, blocks)


def _one_each(
    values: FloatArray, at: Place, shape: tuple[int, ...], name: str, code: str
) -> FloatArray:
    known = ~np.isnan(values)
    places = tuple(a[known] for a in at)
    found = np.full(shape, np.nan)
    found[places] = values[known]
    differs = found[places] != values[known]
    if differs.any():
        raise EvaluationError(
            f"{int(differs.sum())} rows of the readers table state another {name} than an earlier "
            "row of the same reading: a reading has one",
            code=code,
        )
    return found

"""masks.csv: which mask belongs to which image, where the names of the files do not say it.

Columns: `path` (of the image, relative to SOURCE), `sop_instance_uid` or `series_instance_uid`;
`mask` (relative to the folder of the table; empty: assessed, nothing there); and where needed
`class` (of everything in the mask), `x_offset` and `y_offset` (column and row of the first pixel of
a crop, from 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_pipelines.errors import InputError
from data_pipelines.labels.csv_reader import read_csv
from data_pipelines.labels.table import normalise_key

TABLE_NAME = "masks.csv"
MaskKey = Literal["path", "sop_instance_uid", "series_instance_uid"]
_KEYS: tuple[MaskKey, ...] = ("path", "sop_instance_uid", "series_instance_uid")
_OPTIONAL = ("class", "x_offset", "y_offset")


@dataclass(frozen=True)
class MaskRow:
    """One row. number: as a spreadsheet numbers it. value: of the key, in normal form. mask: ''
    where nothing was found. offset: (row, column), None where the row has none.
    """

    number: int
    key: MaskKey
    value: str
    mask: str
    class_name: str
    offset: tuple[int, int] | None


def read_masks_table(path: Path) -> list[MaskRow]:
    """The rows of a masks.csv. Raises LabelError where it is no CSV, and InputError (masks_table)
    where a column is missing or unknown, a cell is empty, or an offset is not a whole number.
    """
    table = read_csv(path)
    keys = [key for key in _KEYS if key in table]
    if len(keys) != 1 or "mask" not in table:
        raise InputError(
            f"{path} needs a column mask and exactly one of {', '.join(_KEYS)}; its columns are "
            f"{', '.join(map(str, table))}.",
            code="masks_table",
        )
    unknown = [str(name) for name in table if name not in (*_KEYS, "mask", *_OPTIONAL)]
    if unknown:
        raise InputError(
            f"{path} has the unknown column {unknown[0]!r}; optional ones are "
            f"{', '.join(_OPTIONAL)}.",
            code="masks_table",
        )
    return [
        _row(path, int(str(number)), keys[0], cells)
        for number, cells in table.to_dict("index").items()
    ]


def _row(path: Path, number: int, key: MaskKey, cells: dict) -> MaskRow:
    if not cells[key]:
        raise InputError(f"{path}, row {number}: the column {key} is empty.", code="masks_table")
    texts = [cells.get(name, "") for name in ("y_offset", "x_offset")]
    offset = None
    if any(texts):
        try:
            offset = (int(texts[0]), int(texts[1]))
        except ValueError:
            raise InputError(
                f"{path}, row {number}: x_offset and y_offset must be two whole numbers, or both "
                f"empty.",
                code="masks_table",
            ) from None
    value = normalise_key(key, cells[key])
    mask = normalise_key("path", cells["mask"]) if cells["mask"] else ""
    return MaskRow(number, key, value, mask, cells.get("class", ""), offset)

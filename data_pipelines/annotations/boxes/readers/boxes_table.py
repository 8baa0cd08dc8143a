"""boxes.csv: one row per box.

Columns: one key of the labels table (path, sop_instance_uid, ...); `x_min,y_min,x_max,y_max` (edges
from 0 on) or `x,y,width,height`; `class`; and where needed `score`, `reader`, `ignore` (0 or 1) and
`frame` (of a DICOM file, from 1 on). A row whose box is empty: the image was assessed, and there is
nothing in it. An image that has no row was not assessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from data_pipelines.annotations.boxes.edge_boxes import Edges, edges_from_xywh
from data_pipelines.annotations.boxes.readers.raw_boxes import (
    NO_EDGES,
    ListedImage,
    RawBox,
    are_numbers,
    number_of,
)
from data_pipelines.errors import InputError
from data_pipelines.labels.csv_reader import read_csv
from data_pipelines.labels.table import KEYS, canonical_column, normalise_key

TABLE_NAME = "boxes.csv"
CORNERS = ("x_min", "y_min", "x_max", "y_max")
SIZES = ("x", "y", "width", "height")
_OPTIONAL = ("score", "reader", "ignore", "frame")
_THIRD_AXIS = ("z", "z_min", "z_max", "depth")
_YES = {"": False, "0": False, "1": True}


def read_boxes_table(path: Path) -> list[ListedImage]:
    """The images of a boxes.csv with their boxes.

    Raises LabelError where it is no CSV, InputError: boxes_table (a column is missing or unknown, a
    key is empty), volume_boxes (a column of a third axis: boxes are 2D).
    """
    table = read_csv(path)
    key, columns = _columns(path, table)
    listed: dict[tuple[str, int | None], list[RawBox]] = {}
    for number, cells in table.to_dict("index").items():
        if not cells[key]:
            raise InputError(f"{path}, row {number}: the key is empty.", code="boxes_table")
        value = normalise_key(columns[key], cells[key])
        named = {columns[str(name)]: cell for name, cell in cells.items()}
        frame = _frame(path, number, named.get("frame", ""))
        boxes = listed.setdefault((value, frame), [])
        box = _box(f"{path.name} row {number}", named)
        if box is not None:
            boxes.append(box)
    return [
        ListedImage(path.name, columns[key], (value,), tuple(boxes), frame)
        for (value, frame), boxes in listed.items()
    ]


def _columns(path: Path, table: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """The key column, and what each column is."""
    names = {str(name): str(name).strip().lower() for name in table}
    if any(name in _THIRD_AXIS for name in names.values()):
        raise InputError(
            f"{path} has boxes with three axes. Detection is 2D: give each slice its own boxes.",
            code="volume_boxes",
        )
    known = ("class", *CORNERS, *SIZES, *_OPTIONAL)
    columns = {
        name: lower if lower in known else (canonical_column(name) or "")
        for name, lower in names.items()
    }
    keys = [name for name, column in columns.items() if column in KEYS]
    present = set(columns.values())
    forms = [form for form in (CORNERS, SIZES) if present >= set(form)]
    if len(keys) != 1 or len(forms) != 1 or "class" not in present:
        raise InputError(
            f"{path} needs one key column ({', '.join(KEYS)}), a column class, and either "
            f"{', '.join(CORNERS)} or {', '.join(SIZES)}; its columns are {', '.join(names)}.",
            code="boxes_table",
        )
    expected = {*forms[0], *_OPTIONAL, "class", columns[keys[0]]}
    unknown = [name for name, column in columns.items() if column not in expected]
    if unknown:
        raise InputError(
            f"{path} has the unknown column {unknown[0]!r}; optional ones are "
            f"{', '.join(_OPTIONAL)}.",
            code="boxes_table",
        )
    return keys[0], columns


def _frame(path: Path, number: object, cell: str) -> int | None:
    if not cell:
        return None
    if not cell.isdecimal() or int(cell) < 1:
        raise InputError(
            f"{path}, row {number}: frame must be a whole number from 1 on.", code="boxes_table"
        )
    return int(cell) - 1


def _box(name: str, cells: Mapping[str, str]) -> RawBox | None:
    """The box of a row; None where it is empty."""
    form = CORNERS if "x_min" in cells else SIZES
    texts = [cells[column] for column in form]
    if not any(texts):
        return None
    a, b, c, d = (number_of(text) for text in texts)
    edges: Edges = (a, b, c, d) if form is CORNERS else edges_from_xywh(a, b, c, d)
    score = cells.get("score", "")
    ignore = _YES.get(cells.get("ignore", ""))
    is_bad = not are_numbers(edges) or ignore is None
    is_bad = is_bad or bool(score and not are_numbers([number_of(score)]))
    code = "bad_number" if is_bad else "" if cells["class"] else "no_class"
    return RawBox(
        name,
        cells["class"],
        NO_EDGES if is_bad else edges,
        number_of(score),
        cells.get("reader", ""),
        bool(ignore),
        code=code,
    )

"""The labels table: what a person wrote beside the images, checked cell by cell and never quoted.

Values of a finding: 1 present, 0 absent, -1 uncertain, empty not assessed. Errors name a column and
a row as a spreadsheet counts them, never a cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.csv_reader import read_csv
from data_pipelines.labels.raters import POLICIES, Readers, reconcile
from data_pipelines.pseudonyms import normalise_patient_id

Task = Literal["binary", "multilabel", "multiclass"]
Level = Literal["image", "series", "study", "patient"]

KEYS: dict[str, Level] = {
    "path": "image",
    "sop_instance_uid": "image",
    "series_instance_uid": "series",
    "study_instance_uid": "study",
    "patient_id": "patient",
}
SUBGROUP_COLUMNS = ("age", "sex", "view", "site")
SPLITS = ("train", "tune", "test")
#: how people write the three splits -> ours
SPLIT_ALIASES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "tune"),
    **{"training": "train", "testing": "test"},
}
#: names of our columns and others for them, in small letters without spaces and signs -> ours
COLUMN_ALIASES = {
    **{
        n.replace("_", ""): n
        for n in (*KEYS, *SUBGROUP_COLUMNS, "split", "patient", "class", "reader")
    },
    **dict.fromkeys(
        ("file", "filename", "filepath", "image", "imagefile", "imagename", "imagepath"), "path"
    ),
    **dict.fromkeys(("patientage", "ageyears"), "age"),
    **dict.fromkeys(("patientsex", "gender", "patientgender"), "sex"),
    **dict.fromkeys(("viewposition", "projection"), "view"),
    **dict.fromkeys(("subset", "partition"), "split"),
}
OLDEST = 90.0
_VALUES = {text: float(text) for text in ("0", "1", "-1", "0.0", "1.0", "-1.0", "+1")} | {
    "": math.nan
}
_SEXES = {
    "m": "M",
    "male": "M",
    "f": "F",
    "female": "F",
    "o": "O",
    "other": "O",
    "u": "",
    "unknown": "",
    "": "",
}


@dataclass(frozen=True, eq=False)
class Labels:
    """A checked labels table.

    `rows` has the index of the spreadsheet's rows and the columns key, label:<finding> (float64) or
    class (str), age (float64), sex, view, site, split, patient, meta:* (str), the optional ones
    where given. Equal rows are there once.
    `readers`: how several rows of one key became one; None where they may not differ.
    """

    rows: pd.DataFrame
    key: str
    level: Level
    task: Task
    findings: tuple[str, ...]
    classes: tuple[str, ...] | None
    ignored: tuple[str, ...]
    repeated_rows: int
    readers: dict[str, Any] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column but the key."""
        return tuple(str(name) for name in self.rows if name != "key")


def read_labels(
    path: Path | str, *, findings: Sequence[str] = (), readers: Readers = "error"
) -> Labels:
    """Read a labels CSV (see the contract's --labels). Raises LabelError.

    `findings` names the finding columns; `readers` says what becomes of several rows with one key:
    see reconcile.
    """
    path = Path(path)
    table = read_csv(path)
    key = next((name for name in KEYS if name in table), None)
    if key is None:
        near = next((name for name in table if canonical_column(name) in KEYS), None)
        mend = (
            "rename or add one"
            if near is None
            else f"rename its column {near!r} to {canonical_column(near)}"
        )
        raise LabelError(
            f"{path} has none of the key columns {', '.join(KEYS)}: {mend}. Its columns: "
            f"{', '.join(map(str, table))}."
        )
    _require(table[key] != "", path, key, "the key is empty")
    names = tuple(dict.fromkeys(findings)) or _detect(table, key, path)
    absent = [name for name in names if name not in table]
    if absent:
        raise LabelError(
            f"{path} has no column {', '.join(absent)}. Its columns: {', '.join(table.columns)}."
        )
    columns: dict[str, pd.Series] = {"key": table[key].map(lambda cell: normalise_key(key, cell))}
    classes = None
    if names == ("class",):
        columns["class"] = table["class"]
        classes = _classes(table["class"], path)
    else:
        columns |= {f"label:{name}": _values(table[name], path) for name in names}
    columns |= metadata_columns(table, path)
    if key == "patient_id":
        columns.pop("patient_id", None)
    used = {*names, key, "reader", *columns}
    rows, record = pd.DataFrame(columns), None
    if readers == "error":
        distinct = rows.drop_duplicates()
        fix = (
            "an earlier row has the same key and differs elsewhere; for several readers choose "
            "--readers"
        )
        _require(~distinct["key"].duplicated(), path, key, f"{fix} {', '.join(POLICIES)}")
    else:
        distinct, record = reconcile(rows, readers, path)
    return Labels(
        rows=distinct,
        key=key,
        level=KEYS[key],
        task="multiclass" if classes is not None else "binary" if len(names) == 1 else "multilabel",
        findings=() if classes is not None else names,
        classes=classes,
        ignored=tuple(str(name) for name in table if name not in used),
        repeated_rows=len(rows) - len(distinct) if record is None else 0,
        readers=record,
    )


def normalise_key(key: str, cell: str) -> str:
    """Return the form in which a key of the table equals an image's: see normal_id for patients;
    paths are posix.
    """
    if key == "patient_id":
        return normalise_patient_id(cell)
    return str(PurePosixPath(cell.replace("\\", "/"))) if key == "path" else cell


def canonical_column(name: Hashable) -> str | None:
    """Return which of our columns another spelling stands for (Patient ID, StudyInstanceUID,
    Gender), if any.
    """
    return COLUMN_ALIASES.get(re.sub(r"[^a-z0-9]", "", str(name).lower()))


def _detect(table: pd.DataFrame, key: str, path: Path) -> tuple[str, ...]:
    """The finding columns: those of 0, 1, -1 and empty cells alone, or `class`."""
    found = []
    for name in table:
        cells = table[name]
        if canonical_column(name) or str(name).startswith("meta:") or (cells == "").all():
            continue
        known = cells.isin(list(_VALUES))
        if known.all():
            found.append(str(name))
        elif (known & (cells != "")).sum() > (
            ~known
        ).sum():  # a finding with a slip of the pen, or a count?
            _require(
                known | cells.map(_is_number),
                path,
                str(name),
                "text where 0, 1, -1 or nothing belongs",
            )
    if found and "class" in table:
        raise LabelError(
            f"{path} has a column class and columns of 0 and 1. Choose with --finding."
        )
    if not found and "class" not in table:
        raise LabelError(
            f"{path} has no finding: no column holds only 0, 1, -1 and empty cells, and none is "
            f"named class. "
            + next(
                (
                    f"Rename its column {name!r} to class. "
                    for name in table
                    if canonical_column(name) == "class"
                ),
                "",
            )
            + "Name the finding columns with --finding to see which cell is at fault."
        )
    return tuple(found) or ("class",)


def _values(cells: pd.Series, path: Path) -> pd.Series:
    _require(cells.isin(list(_VALUES)), path, str(cells.name), "not 0, 1, -1 or empty")
    return cells.map(_VALUES).astype(float)


def _classes(cells: pd.Series, path: Path) -> tuple[str, ...]:
    _require(
        cells.map(lambda c: len(c) <= 64 and c.isprintable()),
        path,
        "class",
        "not a printable name up to 64 long",
    )
    names = sorted(set(cells) - {""})
    folded = cells.str.casefold()
    first = {name.casefold(): name for name in reversed(names)}
    _require(
        cells == folded.map({"": "", **first}),
        path,
        "class",
        "differs from another row's class by case alone",
    )
    return tuple(names)


def metadata_columns(table: pd.DataFrame, path: Path) -> dict[str, pd.Series]:
    """Return the checked columns that are kept beside the labels: age, sex, view, site, split,
    meta:*, and patient, or

    where there is none patient_id, which names the patients of files that name none.
    """
    columns: dict[str, pd.Series] = {}
    if "age" in table:
        sound = table["age"].map(lambda c: c == "" or (_is_number(c) and 0 <= float(c) <= 130))
        _require(sound, path, "age", "not a number of years from 0 to 130")
        columns["age"] = (
            table["age"]
            .map(lambda c: float(c) if c else math.nan)
            .map(lambda a: OLDEST if a > 89 else a)
        )
    if "sex" in table:
        sexes = table["sex"].str.lower()
        _require(sexes.isin(list(_SEXES)), path, "sex", "not M, F, O or empty")
        columns["sex"] = sexes.map(_SEXES)
    if "split" in table and (table["split"] != "").any():
        splits = table["split"].str.lower().map(SPLIT_ALIASES)
        _require(splits.notna(), path, "split", "not train, tune (or val) or test")
        columns["split"] = splits
    patient = "patient" if "patient" in table else "patient_id"
    for name in table:
        if name in ("view", "site", patient) or str(name).startswith("meta:"):
            columns[str(name)] = table[name]
    return columns


def _require(sound: pd.Series, path: Path, column: str, problem: str) -> None:
    if not sound.all():
        wrong = sound.index[~sound.astype(bool)]
        more = f" (and {len(wrong) - 1} more rows)" if len(wrong) > 1 else ""
        raise LabelError(f"{path}, column {column}, row {wrong[0]}: {problem}{more}.")


def _is_number(cell: str) -> bool:
    return bool(
        re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", cell, re.IGNORECASE)
    ) and np.isfinite(float(cell))

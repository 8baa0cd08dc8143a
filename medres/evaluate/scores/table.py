"""The scores table: its columns, reading CSV or Parquet, and one clear sentence for each mistake.

Columns: `label` and `score` (binary); `label:<finding>` and `score:<finding>` (several findings);
`label` and `score:<class>` (multi-class). Messages name columns and row numbers, never the content
of a cell. Rows of a file are counted as in a spreadsheet (2 is the first row below the header),
those of a DataFrame from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data_pipelines.labels.cells import is_missing, label_value
from data_pipelines.labels.task import LabelTask, TaskName, label_task
from medres.errors import EvaluationError
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import file_digest, frame_digest, read_table, release_memory
from medres.evaluate.scores.sample import Float64Array

LEVELS = ("image", "series", "study", "patient")
UNIT_PLURAL = {"image": "images", "series": "series", "study": "studies", "patient": "patients"}
STATUSES = ("scored", "refused", "failed")
PART = 100_000  # rows that are read at once
BINARY_FINDING, LABEL_COLUMN = "positive", "label"  # key in a report, and column in a table


@dataclass(frozen=True)
class Table:
    """A checked table with one row per image.

    task: name of a task of medres.tasks. names: findings or classes.
    label[name] (n,) float64: 0, 1, -1 (uncertain) or NaN (not assessed); for classes 1 in the row's
        own class and 0 in the others.
    score[name] (n,) float64: NaN unless the status is "scored".
    status (n,): "scored", "refused" or "failed". columns: ids and all other columns.
    sha256: of the file, or of the values of a DataFrame. name: of the table in a report.
    """

    task: TaskName
    names: tuple[str, ...]
    label: dict[str, Float64Array]
    score: dict[str, Float64Array]
    status: np.ndarray
    columns: pd.DataFrame
    sha256: str
    name: str

    @property
    def n_rows(self) -> int:
        return int(self.status.size)


def unit_noun(count: float | None, unit: str) -> str:
    """The noun behind a count of units.

    >>> unit_noun(1, "study"), unit_noun(2, "study")
    ('study', 'studies')
    """
    return unit if count == 1 else UNIT_PLURAL[unit]


class _Rows(NamedTuple):
    """How messages name a table and count its rows: `first` is the number of the first one."""

    what: str
    first: int


def load(
    source: pd.DataFrame | str | Path,
    *,
    patient: str | None = None,
    what: str = "scores",
    fold_ids: bool = False,
) -> Table:
    """Read and check a table. `patient` is the name of the patient column. fold_ids: ids that
    differ only in case or leading zeros are the same. Raises EvaluationError.

    >>> table = load(pd.DataFrame({"label": [1, 0], "score": [0.8, 0.3]}))
    >>> table.task, table.names, table.label["positive"].tolist()
    ('binary', ('positive',), [1.0, 0.0])
    """
    if isinstance(source, pd.DataFrame):
        frame, digest, name = source.reset_index(drop=True), frame_digest(source), what
    else:
        path = Path(source)
        frame, digest, name = (
            read_table(path, what),
            file_digest(path),
            path.stem,
        )
    rows = _Rows(what, 1 if isinstance(source, pd.DataFrame) else 2)
    frame = _named(frame, patient, what)
    if frame.empty:
        raise EvaluationError(
            f"the {what} table has no rows: give at least one row with a label and a score",
            code="empty_table",
        )
    table = _checked(frame, digest, name, rows, fold_ids)
    del frame
    release_memory()
    return table


def _named(frame: pd.DataFrame, patient: str | None, what: str) -> pd.DataFrame:
    frame = frame.copy(deep=False)
    frame.columns = pd.Index([str(name) for name in frame.columns])
    if not frame.columns.is_unique:
        raise EvaluationError(
            f"the {what} table has two columns of the same name: keep one of them",
            code="duplicate_column",
        )
    if patient is not None and patient != "patient":
        if patient not in frame.columns:
            raise EvaluationError(
                f"the {what} table has no column {patient!r} for the patient; it has "
                f"{_listed(frame)}",
                code="missing_column",
            )
        frame = frame.drop(columns="patient", errors="ignore").rename(columns={patient: "patient"})
    for unsupported in ("stratum", "weight"):
        if unsupported in frame.columns:
            raise EvaluationError(
                f"the {what} table has a column {unsupported!r}, but stratified and weighted "
                "samples are not supported, and unweighted figures would be wrong; rename the "
                "column if it means something else",
                code="unsupported_column",
            )
    return frame


def _checked(frame: pd.DataFrame, digest: str, name: str, rows: _Rows, fold_ids: bool) -> Table:
    task, names = _task(frame, rows)
    status = _status(frame, rows)
    if task.exclusive:
        label = _class_labels(frame, names, rows)
    elif "label" in frame.columns:
        label = {BINARY_FINDING: _labels(frame["label"], "label", rows)}
    else:
        label = {
            finding: _labels(frame[f"label:{finding}"], f"label:{finding}", rows)
            for finding in names
        }
    score = {}
    for finding in names:
        column = "score" if "score" in frame.columns else f"score:{finding}"
        score[finding] = _scores(frame[column], column, status, rows)
    used = [
        c for c in frame.columns if c in ("label", "score") or c.startswith(("label:", "score:"))
    ]
    columns = frame.drop(columns=used)
    for column in used:  # frees them in the caller too
        del frame[column]
    _check_ids(columns, rows, fold_ids)
    return Table(task.name, names, label, score, status, columns, digest, name)


def _task(frame: pd.DataFrame, rows: _Rows) -> tuple[LabelTask, tuple[str, ...]]:
    """The task that the names of the columns tell, and its findings or classes."""
    findings = [c.removeprefix("label:") for c in frame.columns if c.startswith("label:")]
    scored = [c.removeprefix("score:") for c in frame.columns if c.startswith("score:")]
    has_label, has_score = "label" in frame.columns, "score" in frame.columns
    if has_label and has_score and not findings and not scored:
        return label_task(1), (BINARY_FINDING,)
    if has_label and not has_score and not findings and len(scored) >= 2:
        return label_task(0, classes=True), tuple(scored)
    if findings and not has_label and not has_score:
        unpaired = sorted(set(findings) ^ set(scored))
        if unpaired:
            raise EvaluationError(
                f"the {rows.what} table has only one of label:{unpaired[0]} and "
                f"score:{unpaired[0]}: add the other one",
                code="unpaired_column",
            )
        return label_task(len(findings)), tuple(findings)
    raise EvaluationError(
        f"the {rows.what} table needs the columns label and score, or label:<finding> and "
        f"score:<finding>, or label and two or more score:<class>; it has {_listed(frame)}",
        code="missing_column",
    )


def _status(frame: pd.DataFrame, rows: _Rows) -> np.ndarray:
    if "status" not in frame.columns:
        status = np.empty(len(frame), dtype=object)
        status.fill("scored")  # one string, where np.full makes one per row
        return status
    status = frame["status"].astype("object").to_numpy()
    invalid = ~np.isin(status.astype(str), STATUSES)
    if invalid.any():
        raise EvaluationError(
            f"{_where(invalid, 'status', rows)} something other than scored, refused or failed",
            code="bad_status",
        )
    return status


def _labels(column: pd.Series, name: str, rows: _Rows) -> Float64Array:
    """0, 1, -1 and NaN. Text that spells one of these (1.0, TRUE, yes, NA) is read as such;
    everything else is an error.
    """
    codes, values = factorized(column)
    read = [label_value(str(value).strip()) for value in values]
    numbers = np.array([*(np.nan if value is None else value for value in read), np.nan])
    invalid = np.array([*(value is None for value in read), False])[codes]
    if invalid.any():
        raise EvaluationError(
            f"{_where(invalid, name, rows)} something other than 0, 1, -1 (uncertain) or an empty "
            "cell (not assessed)",
            code="bad_label",
        )
    return numbers[codes]


def factorized(column: pd.Series) -> tuple[np.ndarray, Any]:
    """Codes (n,), -1 for a missing cell, and the different cells."""
    return pd.factorize(column if column.dtype == "str" else column.astype("object"))


def _class_labels(
    frame: pd.DataFrame, names: tuple[str, ...], rows: _Rows
) -> dict[str, Float64Array]:
    codes, values = factorized(frame["label"])
    text = np.array([*(_class_name(str(value).strip(), names) for value in values), ""])[codes]
    unknown = ~np.isin(text, ("", *names))
    if unknown.any():
        raise EvaluationError(
            f"{_where(unknown, 'label', rows)} a class that has no score:<class> column",
            code="unknown_class",
        )
    return {name: np.where(text == "", np.nan, (text == name).astype(np.float64)) for name in names}


def _class_name(cell: str, names: tuple[str, ...]) -> str:
    """The class that a cell names ("0.0" is the class "0"); empty if it is not assessed."""
    if cell in names:
        return cell
    if is_missing(cell):
        return ""
    whole, _, fraction = cell.partition(".")
    return whole if whole in names and fraction.strip("0") == "" else cell


def _scores(column: pd.Series, name: str, status: np.ndarray, rows: _Rows) -> Float64Array:
    if column.dtype.kind in "fiub":
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values, text = _parsed_by_part(column)
        if text.any():
            raise EvaluationError(
                f"{_where(text, name, rows)} something that is not a number", code="bad_score"
            )
    missing = np.isnan(values) & (status == "scored")
    if missing.any():
        raise EvaluationError(
            f"{_where(missing, name, rows)} no score (empty or NaN): score these rows, or add a "
            "column status with refused or failed in them, so that they are counted",
            code="missing_score",
        )
    return np.where(status == "scored", values, np.nan)


def _parsed_by_part(column: pd.Series) -> tuple[Float64Array, np.ndarray]:
    """`_parsed` of a column, in parts that need little memory."""
    parts = [
        _parsed(column.iloc[start : start + PART].astype("object").to_numpy())
        for start in range(0, len(column), PART)
    ]
    values, text = zip(*parts, strict=True)
    return np.concatenate(values), np.concatenate(text)


def _parsed(cells: np.ndarray) -> tuple[Float64Array, np.ndarray]:
    """Exact floats of text cells (empty: NaN), and which cells are not numbers."""
    filled = np.where(pd.isna(cells) | (cells == ""), "nan", cells)
    try:
        return filled.astype(np.float64), np.zeros(cells.size, dtype=bool)
    except ValueError:
        number = np.array([_is_number(cell) for cell in filled])
        missing = np.array([is_missing(str(cell).strip()) for cell in filled])
        return np.where(number, filled, "nan").astype(np.float64), ~number & ~missing


def _is_number(cell: object) -> bool:
    try:
        float(str(cell))
    except ValueError:
        return False
    return True


def _check_ids(columns: pd.DataFrame, rows: _Rows, fold: bool) -> None:
    for level in LEVELS:
        if level in columns.columns:
            text = id_texts(columns[level], fold=fold)
            empty = (text == "").to_numpy()
            if empty.any():
                raise EvaluationError(
                    f"{_where(empty, level, rows)} no id: fill it in, or leave out the column",
                    code="missing_id",
                )
            columns[level] = text
    if "image" in columns.columns:
        key = ["image", "seed"] if "seed" in columns.columns else ["image"]
        same = columns["image"].duplicated() if len(key) == 1 else columns.duplicated(key)
        repeated = same.to_numpy()
        if repeated.any():
            raise EvaluationError(
                f"{_where(repeated, 'image', rows)} an image that an earlier row has: keep one row "
                "per image (and seed, if there is a column 'seed')",
                code="duplicate_image",
            )


def _where(affected: np.ndarray, column: str, rows: _Rows) -> str:
    count = int(affected.sum())
    noun = "row" if count == 1 else "rows"
    return (
        f"column {column!r} of the {rows.what} table: {count} {noun} (first: row "
        f"{int(np.argmax(affected)) + rows.first}) with"
    )


def _listed(frame: pd.DataFrame) -> str:
    names: list[Any] = list(frame.columns[:8])
    return (
        "no columns"
        if not names
        else ", ".join(map(repr, names)) + (" ..." if len(frame.columns) > 8 else "")
    )

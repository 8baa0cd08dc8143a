"""The scores table: what may stand in it, reading CSV or Parquet, and one clear sentence where it
is wrong.

Columns: `label` and `score` (binary); `label:<finding>` and `score:<finding>` (several findings);
`label` and `score:<class>` (multi-class). Messages name columns and row numbers (1 = first row
under the header), never a cell.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.scores.io import frame_digest, read_table
from medres.evaluate.scores.sample import Float64Array

LEVELS = ("image", "series", "study", "patient")
STATUSES = ("scored", "refused", "failed")
BINARY_FINDING = "positive"


@dataclass(frozen=True)
class Table:
    """A checked table, one row an image.

    task: binary, multilabel or multiclass; names: findings or classes; label[name] (n,): 0, 1, -1
        uncertain, NaN not assessed (multi-class: 1 for the row's own class, 0 for the others);
        score[name] (n,): NaN where refused;
    status (n,): scored, refused, failed; columns: ids and whatever else, as text.
    """

    task: str
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


def load(
    source: pd.DataFrame | str | Path, *, patient: str | None = None, what: str = "scores"
) -> Table:
    """Read and check a table. `patient` names the patient column. Raises EvaluationError."""
    if isinstance(source, pd.DataFrame):
        frame, digest, name = source.reset_index(drop=True), frame_digest(source), what
    else:
        path = Path(source)
        frame, digest, name = (
            read_table(path, what),
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stem,
        )
    frame = _named(frame, patient, what)
    if frame.empty:
        raise EvaluationError(
            f"the {what} table has no rows: give at least one row with a label and a score"
        )
    return _checked(frame, digest, name, what)


def _named(frame: pd.DataFrame, patient: str | None, what: str) -> pd.DataFrame:
    frame = frame.copy(deep=False)
    frame.columns = pd.Index([str(name) for name in frame.columns])
    if not frame.columns.is_unique:
        raise EvaluationError(
            f"the {what} table has a column more than once: keep one of each name"
        )
    if patient is not None and patient != "patient":
        if patient not in frame.columns:
            raise EvaluationError(
                f"the {what} table has no column {patient!r} for the patient; it has "
                f"{_listed(frame)}"
            )
        frame = frame.drop(columns="patient", errors="ignore").rename(columns={patient: "patient"})
    for unsupported in ("stratum", "weight"):
        if unsupported in frame.columns:
            raise EvaluationError(
                f"the {what} table has a column {unsupported!r}, which is not supported: "
                f"unweighted figures would be "
                "wrong for such a sample; rename the column if it means something else"
            )
    return frame


def _checked(frame: pd.DataFrame, digest: str, name: str, what: str) -> Table:
    task, names = _task(frame, what)
    status = _status(frame, what)
    if task == "multiclass":
        label = _class_labels(frame, names, what)
    elif "label" in frame.columns:
        label = {BINARY_FINDING: _labels(frame["label"], "label", what)}
    else:
        label = {
            finding: _labels(frame[f"label:{finding}"], f"label:{finding}", what)
            for finding in names
        }
    score = {}
    for one in names:
        column = "score" if "score" in frame.columns else f"score:{one}"
        score[one] = _scores(frame[column], column, status, what)
    used = [
        c for c in frame.columns if c in ("label", "score") or c.startswith(("label:", "score:"))
    ]
    columns = frame.drop(columns=used)
    _check_ids(columns, what)
    return Table(task, names, label, score, status, columns, digest, name)


def _task(frame: pd.DataFrame, what: str) -> tuple[str, tuple[str, ...]]:
    findings = [c.removeprefix("label:") for c in frame.columns if c.startswith("label:")]
    scored = [c.removeprefix("score:") for c in frame.columns if c.startswith("score:")]
    has_label, has_score = "label" in frame.columns, "score" in frame.columns
    if has_label and has_score and not findings and not scored:
        return "binary", (BINARY_FINDING,)
    if has_label and not has_score and not findings and len(scored) >= 2:
        return "multiclass", tuple(scored)
    if findings and not has_label and not has_score:
        lonely = sorted(set(findings) ^ set(scored))
        if lonely:
            raise EvaluationError(
                f"{lonely[0]!r} has only one of label:{lonely[0]} and score:{lonely[0]} in the "
                f"{what} table"
            )
        return ("multilabel" if len(findings) > 1 else "binary"), tuple(findings)
    raise EvaluationError(
        f"the {what} table needs the columns label and score, or label:<finding> and "
        f"score:<finding>, "
        f"or label and two or more score:<class>; it has {_listed(frame)}"
    )


def _status(frame: pd.DataFrame, what: str) -> np.ndarray:
    if "status" not in frame.columns:
        return np.full(len(frame), "scored", dtype=object)
    status = frame["status"].astype("object").to_numpy()
    wrong = ~np.isin(status.astype(str), STATUSES)
    if wrong.any():
        raise EvaluationError(
            f"{_where(wrong, 'status', what)} something other than scored, refused or failed"
        )
    return status


def _labels(column: pd.Series, name: str, what: str) -> Float64Array:
    """0, 1, -1 and NaN; text that spells these numbers is taken, anything else refused."""
    codes, values = pd.factorize(column.astype("object"), use_na_sentinel=True)
    numbers = np.full(len(values) + 1, np.nan)
    bad = np.zeros(len(values) + 1, dtype=bool)
    for place, value in enumerate(values):
        text = str(value).strip()
        if text == "":
            continue
        try:
            numbers[place] = float(value if isinstance(value, bool) else text)
        except ValueError:
            bad[place] = True
        bad[place] |= numbers[place] not in (0.0, 1.0, -1.0)
    wrong = bad[codes]
    if wrong.any():
        raise EvaluationError(
            f"{_where(wrong, name, what)} something other than 0, 1, -1 (uncertain) or nothing"
        )
    return numbers[codes]


def _class_labels(
    frame: pd.DataFrame, names: tuple[str, ...], what: str
) -> dict[str, Float64Array]:
    column = frame["label"].convert_dtypes() if frame["label"].dtype.kind == "f" else frame["label"]
    text = column.astype("object").where(column.notna(), "").astype(str).str.strip().to_numpy()
    wrong = ~np.isin(text, ("", *names))
    if wrong.any():
        raise EvaluationError(
            f"{_where(wrong, 'label', what)} a class without a score:<class> column"
        )
    return {name: np.where(text == "", np.nan, (text == name).astype(np.float64)) for name in names}


def _scores(column: pd.Series, name: str, status: np.ndarray, what: str) -> Float64Array:
    if column.dtype.kind in "fiub":
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values, text = _parsed(column.astype("object").to_numpy())
        if text.any():
            raise EvaluationError(f"{_where(text, name, what)} something that is not a number")
    missing = np.isnan(values) & (status == "scored")
    if missing.any():
        raise EvaluationError(
            f"{_where(missing, name, what)} no score (empty or NaN): score these rows, or mark "
            f"them with a column "
            "status = refused or failed, so that they are counted"
        )
    return np.where(status == "scored", values, np.nan)


def _parsed(cells: np.ndarray) -> tuple[Float64Array, np.ndarray]:
    """Exact floats of text cells (empty: NaN), and which cells are not numbers."""
    filled = np.where(pd.isna(cells) | (cells == ""), "nan", cells)
    try:
        return filled.astype(np.float64), np.zeros(cells.size, dtype=bool)
    except ValueError:
        wrong = np.array([not _is_number(cell) for cell in filled])
        return np.where(wrong, "nan", filled).astype(np.float64), wrong


def _is_number(cell: object) -> bool:
    try:
        float(str(cell))
    except ValueError:
        return False
    return True


def _check_ids(columns: pd.DataFrame, what: str) -> None:
    for level in LEVELS:
        if level in columns.columns:
            text = columns[level].astype("object")
            wrong = (text.isna() | (text.astype(str).str.strip() == "")).to_numpy()
            if wrong.any():
                raise EvaluationError(
                    f"{_where(wrong, level, what)} no id: fill it in, or leave the column out"
                )
            columns[level] = text.astype(str)
    if "image" in columns.columns:
        key = ["image", "seed"] if "seed" in columns.columns else ["image"]
        wrong = columns.duplicated(key).to_numpy()
        if wrong.any():
            raise EvaluationError(
                f"{_where(wrong, 'image', what)} an image that was listed before: one row an image "
                "(and a column 'seed' where a model was trained several times)"
            )


def _where(wrong: np.ndarray, column: str, what: str) -> str:
    count = int(wrong.sum())
    rows = "row" if count == 1 else "rows"
    return (
        f"column {column!r} of the {what} table: {count} {rows} (first: row "
        f"{int(np.argmax(wrong)) + 1}) with"
    )


def _listed(frame: pd.DataFrame) -> str:
    names: list[Any] = list(frame.columns[:8])
    return (
        "no columns"
        if not names
        else ", ".join(map(repr, names)) + (" ..." if len(frame.columns) > 8 else "")
    )

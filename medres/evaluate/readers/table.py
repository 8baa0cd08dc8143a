"""From the readers table (and the lesions table) to typed arrays. Every input that does not fit is
refused with a code; messages count rows and never show a value of a case.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.readers.locations import check_marks_inside, hit_rule_of, with_hits
from medres.evaluate.readers.marks import AS_STATED, has_marks, lesion_arrays
from medres.evaluate.readers.ratings import IntArray, Ratings
from medres.evaluate.readers.readings import readings_of
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import frame_digest, read_table

COLUMNS = ("reader", "modality", "case", "truth", "rating")
MIN_PER_CLASS = 2

Source = pd.DataFrame | str | Path


def load_ratings(
    source: Source, lesions: Source | None = None, *, finding: str | None = None
) -> Ratings:
    """A readers table with one row for each reader, modality and case: `reader`, `modality`,
    `case`, `truth` (0 or 1) and `rating`. `patient`, `finding`, `time_s` and `block` are optional.

    With a column `lesion` it has one row for each mark: the id of the lesion that the mark hits, or
    empty for a false mark; a case that was read without marks has one row with empty `lesion` and
    `rating`. The lesions table then holds every true lesion: `case`, `lesion`, and `weight` if
    wanted. Instead of `lesion` the readers table may give the place of each mark (`with_hits`).

    Raises EvaluationError. Codes: missing_column, duplicate_column, no_rows, missing_id,
    several_findings, unknown_finding, bad_truth, truth_differs, patient_differs, bad_rating,
    duplicate_rating, one_class, no_lesions_table, unused_lesions_table, and those of
    `lesion_arrays`, `with_hits` and `readings_of`.
    """
    table, selected = _one_finding(_read(source, "readers", COLUMNS), finding)
    table = table.reset_index(drop=True)
    known = None if lesions is None else _read(lesions, "lesions", ("case", "lesion"))
    if known is not None and selected is not None and "finding" in known.columns:
        known = known[id_texts(known["finding"]) == selected].reset_index(drop=True)
    hit_rule = AS_STATED
    if known is not None and "lesion" not in table.columns and "x" in table.columns:
        table = with_hits(table, known)
        hit_rule = hit_rule_of(known)
    elif known is not None and {"x", "y"} <= set(table.columns):
        check_marks_inside(table, known)
    for column in ("reader", "modality", "case"):
        table[column] = _ids(table[column], column, "readers")
    table["truth"] = _truth(table["truth"])
    marks = has_marks(table, known is not None)
    table["rating"] = _ratings(table["rating"], may_be_empty=marks)
    modalities, readers, cases = (_names(table[c]) for c in ("modality", "reader", "case"))
    at: tuple[IntArray, ...] = tuple(
        pd.Index(names).get_indexer(pd.Index(table[column]))
        for names, column in ((modalities, "modality"), (readers, "reader"), (cases, "case"))
    )
    truth = _one_value(table, at[2], "truth").astype(bool)
    whole = Ratings(
        modalities,
        readers,
        cases,
        truth,
        _patients(table, at[2]),
        np.full((len(modalities), len(readers), len(cases)), np.nan),
    )
    if marks:
        if known is None:
            raise EvaluationError(
                "the readers table has one row for each mark, so the true lesions must be known "
                "too: give the lesions table (columns case, lesion, and weight if wanted)",
                code="no_lesions_table",
            )
        ratings = lesion_arrays(whole, table, at, known, hit_rule)
    else:
        repeated = table.duplicated(["reader", "modality", "case"])
        if repeated.any():
            raise EvaluationError(
                f"{_rows(repeated)} of the readers table rate a case that the same reader has "
                "already rated in the same modality: keep one reading of each",
                code="duplicate_rating",
            )
        whole.rating[at] = table["rating"]
        ratings = whole
    _check_classes(ratings)
    return replace(ratings, readings=readings_of(table, at, whole.rating.shape))


def source_of(source: Source) -> dict[str, object]:
    """Name, number of rows and SHA-256 of a table, for the provenance of a report."""
    name = "table" if isinstance(source, pd.DataFrame) else Path(source).name
    table = source if isinstance(source, pd.DataFrame) else read_table(Path(source), name)
    return {"name": name, "rows": len(table), "sha256": frame_digest(table)}


def _read(source: Source, what: str, needed: tuple[str, ...]) -> pd.DataFrame:
    table = source.copy() if isinstance(source, pd.DataFrame) else read_table(Path(source), what)
    if table.columns.has_duplicates:
        repeated = table.columns[table.columns.duplicated()][0]
        raise EvaluationError(
            f"the {what} table has the column {repeated!r} more than once: keep one of them",
            code="duplicate_column",
        )
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise EvaluationError(
            f"the {what} table has no column {missing[0]!r}; it needs {', '.join(needed)}",
            code="missing_column",
        )
    if what == "readers" and table.empty:
        raise EvaluationError("the readers table has no rows", code="no_rows")
    return table


def _one_finding(table: pd.DataFrame, finding: str | None) -> tuple[pd.DataFrame, str | None]:
    """The rows of one finding, and its name; None if the table names no findings."""
    if "finding" not in table.columns:
        if finding is not None:
            raise EvaluationError(
                f"the readers table has no column 'finding', so {finding!r} cannot be selected",
                code="unknown_finding",
            )
        return table, None
    names = id_texts(table["finding"])
    known = sorted(names.unique())
    if len(known) > 1:
        names = _ids(table["finding"], "finding", "readers")
    if finding is None and len(known) > 1:
        raise EvaluationError(
            f"the readers table has several findings ({', '.join(known)}): say which one to "
            "analyze (finding=, or --name on the command line)",
            code="several_findings",
        )
    if finding is not None and finding not in known:
        raise EvaluationError(
            f"the readers table has no finding {finding!r}; it has {', '.join(known)}",
            code="unknown_finding",
        )
    selected = known[0] if finding is None else finding
    return table[names == selected], selected or None


def _ids(column: pd.Series, name: str, what: str) -> pd.Series:
    ids = id_texts(column)
    empty = ids == ""
    if empty.any():
        raise EvaluationError(
            f"{_rows(empty)} of the {what} table have no {name!r}", code="missing_id"
        )
    return ids


def _truth(column: pd.Series) -> pd.Series:
    truth = pd.to_numeric(column, errors="coerce")
    bad = ~truth.isin([0, 1])
    if bad.any():
        raise EvaluationError(
            f"{_rows(bad)} of the readers table have a truth other than 0 (not diseased) or 1 "
            "(diseased)",
            code="bad_truth",
        )
    return truth.astype(int)


def _ratings(column: pd.Series, *, may_be_empty: bool) -> pd.Series:
    rating = pd.to_numeric(column, errors="coerce").astype(float)
    empty = column.isna() | (column.astype(str).str.strip() == "")
    bad = ~rating.abs().lt(np.inf) & ~(empty & may_be_empty)
    if bad.any():
        raise EvaluationError(
            f"{_rows(bad)} of the readers table have a rating that is not a finite number: write "
            "ratings as numbers, higher for more suspicion, and leave out cases that were not read",
            code="bad_rating",
        )
    return rating


def _names(ids: pd.Series) -> tuple[str, ...]:
    """In order of their numbers if all are whole numbers, else in alphabetical order."""
    names = ids.unique().tolist()
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _one_value(table: pd.DataFrame, case: IntArray, column: str) -> IntArray:
    """The value of a column for each case, which all of its rows must agree on."""
    values = np.zeros(int(case.max()) + 1, dtype=np.int64)
    values[case] = table[column]
    differs = values[case] != table[column].to_numpy()
    if differs.any():
        count = np.unique(case[differs]).size
        raise EvaluationError(
            f"the {column} differs between the rows of {count} case{'s' if count > 1 else ''}: a "
            f"case has one {column} for all readers and modalities",
            code=f"{column}_differs",
        )
    return values


def _patients(table: pd.DataFrame, case: IntArray) -> IntArray:
    if "patient" not in table.columns:
        return np.arange(int(case.max()) + 1)
    ids = _ids(table["patient"], "patient", "readers")
    codes, _ = pd.factorize(ids)
    return _one_value(table.assign(patient=codes), case, "patient")


def _check_classes(ratings: Ratings) -> None:
    """Each reader must have read at least two patients of each class in each modality."""
    for cell_number, cell in enumerate(ratings.cells()):
        if cell.case.size == 0:
            continue
        for diseased, name in ((True, "diseased"), (False, "non-diseased")):
            count = np.unique(cell.patient[cell.truth == diseased]).size
            if count < MIN_PER_CLASS:
                modality, reader = divmod(cell_number, len(ratings.readers))
                raise EvaluationError(
                    f"reader {ratings.readers[reader]!r} read {name} cases of {count or 'no'} "
                    f"patient{'' if count == 1 else 's'} in modality "
                    f"{ratings.modalities[modality]!r}: at least {MIN_PER_CLASS} patients of each "
                    "class are needed",
                    code="one_class",
                )


def _rows(affected: pd.Series) -> str:
    count = int(affected.sum())
    return f"{count} row{'s' if count > 1 else ''} (first: row {int(np.argmax(affected)) + 1})"

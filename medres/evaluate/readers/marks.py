"""Marks of readers on lesions: which lesion each mark hits, and what stays unmarked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.readers.ratings import FalseMarks, IntArray, Lesions, Ratings
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import refuse_rows

Place = tuple[IntArray, ...]  # modality, reader and case of each row
AS_STATED = "as the readers table says"


def has_marks(table: pd.DataFrame, with_lesions: bool) -> bool:
    """Whether the rows of a readers table are marks. Raises EvaluationError (unused_lesions_table)
    if there are lesions and no column that says which of them a mark hits.
    """
    marks = "lesion" in table.columns
    if with_lesions and not marks:
        raise EvaluationError(
            "a lesions table was given, but the readers table has no column 'lesion' with the id "
            "of the lesion that a mark hits (empty for a false mark), and no x and y of the marks",
            code="unused_lesions_table",
        )
    return marks


def lesion_arrays(
    ratings: Ratings,
    table: pd.DataFrame,
    at: Place,
    lesions: pd.DataFrame,
    hit_rule: str = AS_STATED,
) -> Ratings:
    """The study with its lesions, marks and highest mark of each case. table: one row for each
    mark, with `lesion` and `rating`; at: where each row belongs; hit_rule: what `lesion` means.

    Raises EvaluationError. Codes: duplicate_lesion, bad_weight, lesion_in_normal_case,
    diseased_without_lesion, unknown_lesion, lesion_without_rating, marks_and_none,
    duplicate_rating.
    """
    known, notes = _lesions(ratings, lesions)
    name = id_texts(table["lesion"])
    rating = table["rating"].to_numpy()
    marked = ~np.isnan(rating)
    _check_rows(table, name, marked)
    number = _numbers(known, at[2], name)
    shape = ratings.rating.shape
    by_lesion = np.full((*shape[:2], len(known)), -np.inf)
    false_mark = np.full(shape, -np.inf)
    n_marks = np.zeros(shape, dtype=np.int64)
    np.add.at(n_marks, tuple(a[marked] for a in at), 1)
    hit, missed = marked & (number >= 0), marked & (number < 0)
    np.maximum.at(by_lesion, (at[0][hit], at[1][hit], number[hit]), rating[hit])
    np.maximum.at(false_mark, tuple(a[missed] for a in at), rating[missed])
    highest = np.full(shape, np.nan)
    highest[at] = -np.inf
    np.fmax.at(highest, tuple(a[marked] for a in at), rating[marked])
    twice = int(
        pd.DataFrame({"m": at[0][hit], "r": at[1][hit], "lesion": number[hit]}).duplicated().sum()
    )
    if twice:
        notes += (
            f"{twice} further mark{'s' if twice > 1 else ''} on a lesion that the reader had "
            "already marked: the highest rating counts",
        )
    return replace(
        ratings,
        rating=highest,
        lesions=Lesions(
            known["at"].to_numpy(),
            known["weight"].to_numpy(),
            by_lesion,
            false_mark,
            n_marks,
            FalseMarks(at[0][missed], at[1][missed], at[2][missed], rating[missed]),
            hit_rule,
        ),
        notes=ratings.notes + notes,
    )


def _lesions(ratings: Ratings, lesions: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Lesions of the cases that were read, sorted by case, with weights that sum to 1 in a case."""
    known = pd.DataFrame({"case": id_texts(lesions["case"]), "lesion": id_texts(lesions["lesion"])})
    refuse_rows(
        known["lesion"] == "", "have no id in the column 'lesion'", "missing_id", table="lesions"
    )
    refuse_rows(
        known.duplicated(), "name a lesion a second time", "duplicate_lesion", table="lesions"
    )
    given = "weight" in lesions.columns
    weight = pd.to_numeric(lesions["weight"], errors="coerce") if given else 1.0
    known["weight"] = np.asarray(weight, dtype=float)
    bad = ~np.isfinite(known["weight"]) | (known["weight"] <= 0)
    refuse_rows(bad, "have a weight that is not a number above 0", "bad_weight", table="lesions")
    known["at"] = pd.Index(ratings.cases).get_indexer(pd.Index(known["case"]))
    unread = int((known["at"] < 0).sum())
    known = known[known["at"] >= 0]
    normal = ~ratings.truth[known["at"].to_numpy()]
    refuse_rows(
        normal, "name a lesion in a case whose truth is 0", "lesion_in_normal_case", table="lesions"
    )
    known = known.sort_values("at", kind="stable").reset_index(drop=True)
    without = int(ratings.truth.sum()) - known["at"].nunique()
    if without:
        raise EvaluationError(
            f"{without} diseased case{'s have' if without > 1 else ' has'} no lesion in the "
            "lesions table: add the lesions, or set the truth to 0",
            code="diseased_without_lesion",
        )
    total = known.groupby("at")["weight"].transform("sum")
    notes: tuple[str, ...] = ()
    if given and not np.allclose(total, 1.0, rtol=0, atol=1e-9):
        notes = ("the weights of the lesions were divided by their sum in each case",)
    if unread:
        notes += (f"{unread} lesions of the lesions table are in cases that nobody read",)
    known["weight"] /= total
    return known, notes


def _check_rows(table: pd.DataFrame, name: pd.Series, marked: np.ndarray) -> None:
    keys = ["modality", "reader", "case"]
    refuse_rows(
        (name != "") & ~marked,
        "name a lesion and have no rating",
        "lesion_without_rating",
        table="readers",
    )
    n_rows = table.groupby(keys)["case"].transform("size")
    empty = ~marked & (n_rows > 1).to_numpy()
    n_marks = pd.Series(marked).groupby([table[key] for key in keys]).transform("sum")
    refuse_rows(
        empty & (n_marks > 0).to_numpy(),
        "say that a case was read without marks, and other rows hold marks of that reading",
        "marks_and_none",
        table="readers",
    )
    refuse_rows(
        empty, "repeat that a case was read without marks", "duplicate_rating", table="readers"
    )


def _numbers(known: pd.DataFrame, case: IntArray, name: pd.Series) -> IntArray:
    """The row of the lesion that each mark hits, -1 for a false mark."""
    index = pd.MultiIndex.from_frame(known[["at", "lesion"]])
    number = index.get_indexer(pd.MultiIndex.from_arrays([case, name]))
    refuse_rows(
        (name != "").to_numpy() & (number < 0),
        "name a lesion that the lesions table does not have in this case",
        "unknown_lesion",
        table="readers",
    )
    return number

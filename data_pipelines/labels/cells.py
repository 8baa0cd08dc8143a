"""How people and programs write a label, and the names of columns that are no label."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

#: words in lower case -> value and kind of spelling
_WORDS: dict[str, tuple[float, str]] = {
    **dict.fromkeys(("true",), (1.0, "true_false")),
    **dict.fromkeys(("false",), (0.0, "true_false")),
    **dict.fromkeys(("yes", "y"), (1.0, "yes_no")),
    **dict.fromkeys(("no", "n"), (0.0, "yes_no")),
    **dict.fromkeys(("na", "n/a", "nan", "<na>", "null", "none"), (math.nan, "na")),
    "": (math.nan, "empty"),
}
#: kind of spelling -> what it was read as
SPELLINGS = {
    "true_false": "written True or False, read as 1 or 0",
    "yes_no": "written yes or no, read as 1 or 0",
    "na": "written NA, nan or null, read as not assessed",
    "decimal": "written as decimal numbers such as 1.0, read as whole numbers",
}
#: names in lower case, words joined by one underscore, of 0/1 columns that are not findings
_NAMES = """
male female man woman sex gender is_male is_female hispanic ethnicity race pregnant smoker smoking
former_smoker alcohol deceased inpatient outpatient emergency icu portable bedside supine erect ap
pa lateral frontal left right fold folds cv_fold fold_id kfold split subset
train training in_train is_train tune tuning val valid validation is_val is_valid test testing
in_test is_test holdout index idx row row_number number no id uid include included exclude excluded
duplicate duplicated is_duplicate qc usable
"""
_COVARIATES = frozenset(_NAMES.split())
_COMPACT = frozenset(name.replace("_", "") for name in _COVARIATES)
_COVARIATE_START = re.compile(
    r"(sex|gender|race|ethnicity|fold|split|is_(male|female|train|test))_|(k?fold|split)\d+$"
)
_UNNAMED = re.compile(r"unnamed: \d+(\.\d+|_level_\d+)*", re.IGNORECASE)
#: how programs write a class that is not given; "none" may be a class
_NO_CLASS = frozenset({"na", "n/a", "nan", "<na>", "null"})


def label_value(cell: str) -> float | None:
    """Return 1, 0, -1 or NaN (not assessed); None where the cell is none of them.

    >>> [label_value(cell) for cell in ("1", "0.0", "True", "no", "-1", "2", "maybe")]
    [1.0, 0.0, 1.0, 0.0, -1.0, None, None]
    """
    word = _WORDS.get(cell.lower())
    if word is not None:
        return word[0]
    value = float(cell) if is_number(cell) else None
    return value if value in (-1.0, 0.0, 1.0) else None


def is_missing(cell: str) -> bool:
    """Whether a cell is empty or says that there is no value, such as R's NA.

    >>> is_missing("NA"), is_missing(""), is_missing("0")
    (True, True, False)
    """
    word = _WORDS.get(cell.lower())
    return word is not None and math.isnan(word[0])


def is_no_class(cell: str) -> bool:
    """Whether a cell of the column class says that no class is given, such as R's NA.

    >>> is_no_class("NA"), is_no_class("none")
    (True, False)
    """
    return cell.lower() in _NO_CLASS


def spellings(cells: Iterable[str]) -> dict[str, int]:
    """Return how many cells are written in each of the ways of SPELLINGS; whole numbers and empty
    cells are not listed.

    >>> spellings(["1", "True", "false", "NA", "", "0.0"])
    {'true_false': 2, 'na': 1, 'decimal': 1}
    """
    kinds = Counter(
        _WORDS[cell.lower()][1] if cell.lower() in _WORDS else "decimal" if "." in cell else ""
        for cell in cells
    )
    return {kind: kinds[kind] for kind in SPELLINGS if kinds[kind]}


def is_covariate(name: str) -> bool:
    """Whether a 0/1 column of this name is known to describe the patient, the acquisition or the
    table, not a finding.

    >>> [is_covariate(name) for name in ("Male", "fold_1", "Fold1", "isTrain", "pneumonia")]
    [True, True, True, True, False]
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    compact = plain.replace("_", "")
    return plain in _COVARIATES or compact in _COMPACT or bool(_COVARIATE_START.match(plain))


def is_unnamed(name: str) -> bool:
    """Whether a header cell is no name: empty, or what pandas writes for an empty one."""
    return not name or bool(_UNNAMED.fullmatch(name))


def is_plain_index(cells: list[str], *, first: bool) -> bool:
    """Whether a column only counts rows: different whole numbers, which start at 0 or 1 and follow
    each other unless it is the first column.
    """
    if not all(re.fullmatch(r"\d+", cell) for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    counts = any(numbers == list(range(start, start + len(numbers))) for start in (0, 1))
    return counts or (first and len(set(numbers)) == len(numbers))


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number in decimal notation."""
    return bool(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", cell, re.IGNORECASE)) and bool(
        np.isfinite(float(cell))
    )

"""Ids in tables: how they are read, when two of them may mean the same, and whether two tables
share any. Messages count ids and never show one.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

_INTEGRAL = re.compile(r"-?\d+\.0+")
_FIRST_LEADING_ZEROS = re.compile(r"(?m)^((?:[^\d\n]++|[1-9]\d*+|0(?!\d))*+)0+(?=\d)")
_AT_ONCE = 100_000  # ids
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def id_texts(column: pd.Series, *, fold: bool = False) -> pd.Series:
    """The ids of a column as text without outer spaces. Where the whole column is written as
    decimal numbers without a fraction ("1.0"), they become whole numbers ("1"). Missing ids are
    empty. fold: also ignore case and leading zeros, see `folded`.

    >>> id_texts(pd.Series([1.0, 12.0])).tolist(), id_texts(pd.Series([" P1", "1.0"])).tolist()
    (['1', '12'], ['P1', '1.0'])
    """
    if column.dtype == "str":
        ids = column.fillna("").str.strip()
    else:
        codes, values = pd.factorize(column.astype("object"), use_na_sentinel=True)
        texts = pd.Series([*(str(value).strip() for value in values), ""], dtype="str")
        ids = texts.take(codes).set_axis(column.index)
    first = next((text for text in ids if text), "")
    if _INTEGRAL.fullmatch(first) and (ids.str.fullmatch(_INTEGRAL) | (ids == "")).all():
        ids = ids.str.partition(".")[0]
    if fold:
        codes, values = pd.factorize(ids)
        ids = pd.Series(_folded_all(values.tolist()), dtype="str").take(codes).set_axis(ids.index)
    return ids


def folded(text: str) -> str:
    """An id without what people write in different ways: case, and zeros before its first number.

    >>> folded("P007"), folded("p7"), folded("0012")
    ('p7', 'p7', '12')
    """
    return _LEADING_ZEROS.sub("", text.casefold(), count=1)


def count_similar(ids: pd.Series) -> int:
    """How many distinct ids of a column differ from another one only in case or leading zeros."""
    if _numbered(ids):
        return 0
    distinct = ids.drop_duplicates()
    parts = [
        pd.util.hash_array(np.array(_folded_all(part.tolist()), dtype=object), categorize=False)
        for part in (distinct[i : i + _AT_ONCE] for i in range(0, len(distinct), _AT_ONCE))
    ]
    hashes = pd.Series(np.concatenate([np.zeros(0, dtype=np.uint64), *parts]))
    return int(hashes.duplicated(keep=False).sum())


def _numbered(ids: pd.Series) -> bool:
    """Whether different ids are certainly not similar, because they are one prefix and a number
    each, without leading zeros or all of the same length. It is much faster than folding them."""
    texts = ids.astype("str")
    ends = [] if texts.empty else [texts.min(), texts.max()]
    prefix = os.path.commonprefix(ends)  # noqa: RUF071 - of texts, not of paths
    numbers = texts.str.slice(len(prefix.rstrip("0123456789")))
    if not numbers.str.isdecimal().all():
        return False
    return texts.str.len().nunique() == 1 or not numbers.str.startswith("0").any()


def _folded_all(texts: list[str]) -> list[str]:
    """`folded` of each text; in one pass over all of them unless an id has a line break."""
    joined = "\n".join(texts)
    if joined.count("\n") != max(0, len(texts) - 1):
        return [folded(text) for text in texts]
    lines = _FIRST_LEADING_ZEROS.sub(r"\1", joined.casefold()).split("\n")
    return lines if texts else []


@dataclass(frozen=True)
class SharedIds:
    """What two columns of ids have in common.

    same: distinct ids in both. similar: distinct ids of the first that are in the second but for
    case or leading zeros. comparable: False if one column holds numbers only and the other none.
    """

    same: int
    similar: int
    comparable: bool


def shared_ids(a: pd.Series, b: pd.Series) -> SharedIds:
    """Compare two columns of `id_texts`.

    >>> shared_ids(pd.Series(["P1", "p2"]), pd.Series(["P1", "P02"]))
    SharedIds(same=1, similar=1, comparable=True)
    >>> shared_ids(pd.Series(["1", "2"]), pd.Series(["P1", "P2"])).comparable
    False
    """
    first, second = set(a), set(b)
    same = first & second
    others = {folded(text) for text in second}
    similar = sum(folded(text) in others for text in first - same)
    numbers = [np.mean([text.isdecimal() for text in ids]) for ids in (first, second)]
    return SharedIds(len(same), similar, sorted(numbers) != [0.0, 1.0])


def uncertain(shared: SharedIds, level: str, table: str, other: str) -> str | None:
    """Why it cannot be said that two tables share no ID of a level; None if it can."""
    if shared.similar:
        return (
            f"{shared.similar} {level} ID{'s' if shared.similar > 1 else ''} of {table} may be in "
            f"{other} too, because only case or leading zeros differ"
        )
    if not shared.comparable:
        return (
            f"the {level} IDs of one table are numbers and those of the other are not, so equal "
            "IDs may not be recognized"
        )
    return None

"""Ids in tables: how they are read, when two of them may mean the same, and whether two tables
share any. Messages count ids and never show one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

_INTEGRAL = re.compile(r"-?\d+\.0+")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def id_texts(column: pd.Series, *, fold: bool = False) -> pd.Series:
    """The ids of a column as text without outer spaces. Where the whole column is written as
    decimal numbers without a fraction ("1.0"), they become whole numbers ("1"). Missing ids are
    empty. fold: also ignore case and leading zeros, see `folded`.

    >>> id_texts(pd.Series([1.0, 12.0])).tolist(), id_texts(pd.Series([" P1", "1.0"])).tolist()
    (['1', '12'], ['P1', '1.0'])
    """
    codes, values = pd.factorize(column.astype("object"), use_na_sentinel=True)
    texts = [str(value).strip() for value in values]
    if texts and all(_INTEGRAL.fullmatch(text) for text in texts):
        texts = [text.partition(".")[0] for text in texts]
    if fold:
        texts = [folded(text) for text in texts]
    return pd.Series(np.array([*texts, ""], dtype=object)[codes], index=column.index)


def folded(text: str) -> str:
    """An id without what people write in different ways: case, and zeros before its first number.

    >>> folded("P007"), folded("p7"), folded("0012")
    ('p7', 'p7', '12')
    """
    return _LEADING_ZEROS.sub("", text.casefold(), count=1)


def count_similar(ids: pd.Series) -> int:
    """How many distinct ids of a column differ from another one only in case or leading zeros."""
    texts = ids.drop_duplicates()
    return int(texts.map(folded).duplicated(keep=False).sum())


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

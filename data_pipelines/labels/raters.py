"""Several rows of the labels table for one key: the labels of several raters (human readers),
combined by a stated policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import pandas as pd

from data_pipelines.errors import LabelError

Readers = Literal["error", "majority", "any", "uncertain"]
Vote = float | str  # the value of a finding, or the name of a class

_RANKS = (0.0, -1.0, 1.0)  # of `any`: a later value overrules an earlier one

#: what each policy does, as written to ingest.json
POLICIES: dict[str, str] = {
    "majority": "the value of more than half of the readers who assessed it, else uncertain",
    "any": "present where any reader says so, else uncertain where any does, else absent",
    "uncertain": "the value that all readers who assessed it agree on, else uncertain",
}


class ReadersRecord(TypedDict):
    """What ingest.json says about the raters. disagreements: number of keys per finding."""

    policy: str
    rule: str
    keys_with_several_rows: int
    disagreements: dict[str, int]


def reconcile(
    rows: pd.DataFrame, policy: Readers, path: Path
) -> tuple[pd.DataFrame, ReadersRecord]:
    """Return one row per key, and what was combined.

    Values of a finding are 0, 1, -1 (uncertain) and NaN (not assessed: no vote). A class needs more
    than half of the votes (majority) or all of them (uncertain), else the key gets none; the policy
    `any` does not apply to classes. Raises LabelError with code policy_not_for_classes there, and
    with code raters_differ when rows of one key differ in age, sex, view, site, split or patient. A
    meta:* column that differs is left empty.
    """
    voted = [str(name) for name in rows if str(name).startswith("label:") or name == "class"]
    if policy == "any" and "class" in voted:
        raise LabelError(
            f"{path}: the policy 'any' cannot combine classes. Choose majority or uncertain.",
            code="policy_not_for_classes",
        )
    several = rows[rows["key"].duplicated(keep=False)]
    _require_equal(several, voted, path)
    combined = rows.drop_duplicates("key").copy()
    first = several.drop_duplicates("key")["key"]  # row -> key
    disagreements = {}
    for name in map(str, rows):
        if name in voted:
            missing: Vote = "" if name == "class" else math.nan
            votes = _Votes(several["key"], several[name])
            disagreements[name] = votes.disagreements
            values = votes.combined(policy, missing).reindex(first)
            combined.loc[first.index, name] = (
                values.fillna(missing).astype(rows[name].dtype).to_numpy()
            )
        elif name != "key":
            differs = _differing(several, name)
            combined.loc[first.index[first.isin(differs)], name] = ""
    return combined, {
        "policy": policy,
        "rule": POLICIES[policy],
        "keys_with_several_rows": int(several["key"].nunique()),
        "disagreements": {name.removeprefix("label:"): n for name, n in disagreements.items()},
    }


class _Votes:
    """The votes on one column: cells that are neither '' nor NaN. counts: how often each value was
    given, by key and value.
    """

    def __init__(self, keys: pd.Series, cells: pd.Series) -> None:
        is_vote = (cells != "") & cells.notna()
        self.counts = cells[is_vote].groupby([keys[is_vote], cells[is_vote]], sort=False).size()
        self._by_key = self.counts.groupby(level=0, sort=False)

    @property
    def disagreements(self) -> int:
        """Number of keys with different votes."""
        return int((self._by_key.size() > 1).sum())

    def combined(self, policy: Readers, missing: Vote) -> pd.Series:
        """The value of each key that has a vote."""
        if policy == "any":
            values = self.counts.index.get_level_values(1)
            ranks = pd.Series([_RANKS.index(value) for value in values], self.counts.index, int)
            return ranks.groupby(level=0, sort=False).max().map(dict(enumerate(_RANKS)))
        total = self._by_key.sum()
        needed = total if policy == "uncertain" else total // 2 + 1
        keys = self.counts.index.get_level_values(0)
        agreed = self.counts[self.counts.to_numpy() >= needed.reindex(keys).to_numpy()]
        winners = pd.Series(
            agreed.index.get_level_values(1), agreed.index.get_level_values(0), dtype=object
        )
        undecided: Vote = missing if isinstance(missing, str) else -1.0
        return winners.reindex(total.index, fill_value=undecided)


def _differing(several: pd.DataFrame, name: str) -> pd.Index:
    """The keys whose rows differ in a column."""
    different = several.groupby("key", sort=False)[name].nunique(dropna=False) > 1
    return different.index[different]


def _require_equal(several: pd.DataFrame, voted: Sequence[str], path: Path) -> None:
    """Raise LabelError (raters_differ) for the first key whose rows differ in a column that is
    neither voted on nor meta:*.
    """
    names = [
        name for name in map(str, several) if name not in voted and not name.startswith("meta:")
    ]
    differing = {name: set(_differing(several, name)) for name in names if name != "key"}
    every = set().union(*differing.values())
    if not every:
        return
    group = several[several["key"] == next(key for key in several["key"] if key in every)]
    key = group["key"].iloc[0]
    name = next(name for name in names if key in differing.get(name, ()))
    raise LabelError(
        f"{path}, column {name}, row {group.index[1]}: rows of one key differ in this column, "
        f"and votes cannot settle that. Correct the table.",
        code="raters_differ",
    )

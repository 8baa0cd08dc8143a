"""Several rows of the labels table for one key: the labels of several raters (human readers),
combined by a stated policy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import pandas as pd

from data_pipelines.errors import LabelError

Readers = Literal["error", "majority", "any", "uncertain"]
Vote = float | str  # the value of a finding, or the name of a class

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
    combined = rows.drop_duplicates("key").copy()
    disagreements = dict.fromkeys(voted, 0)
    for _, group in several.groupby("key", sort=False):
        first = group.index[0]
        for name in map(str, group):
            if name in voted:
                votes = _votes(group[name])
                disagreements[name] += len(set(votes)) > 1
                missing: Vote = "" if name == "class" else math.nan
                combined.loc[first, name] = _combined(votes, policy, missing)
            elif group[name].nunique(dropna=False) > 1:
                _require_metadata(name, group, path)
                combined.loc[first, name] = ""
    return combined, {
        "policy": policy,
        "rule": POLICIES[policy],
        "keys_with_several_rows": int(several["key"].nunique()),
        "disagreements": {name.removeprefix("label:"): n for name, n in disagreements.items()},
    }


def _votes(cells: pd.Series) -> list[Vote]:
    """The values that are neither '' nor NaN."""
    return [cell for cell in cells if cell != "" and not pd.isna(cell)]


def _combined(votes: Sequence[Vote], policy: Readers, missing: Vote) -> Vote:
    if not votes:
        return missing
    undecided: Vote = missing if isinstance(votes[0], str) else -1.0
    if policy == "any":
        return next(value for value in (1.0, -1.0, 0.0) if value in votes)
    value, count = Counter(votes).most_common(1)[0]
    needed = len(votes) if policy == "uncertain" else len(votes) // 2 + 1
    return value if count >= needed else undecided


def _require_metadata(name: str, group: pd.DataFrame, path: Path) -> None:
    if not name.startswith("meta:"):
        raise LabelError(
            f"{path}, column {name}, row {group.index[1]}: rows of one key differ in this column, "
            f"and votes cannot settle that. Correct the table.",
            code="raters_differ",
        )

"""Several rows of the labels table about one thing: what readers said, brought together by a stated
policy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from data_pipelines.errors import LabelError

Readers = Literal["error", "majority", "any", "uncertain"]

#: what each policy does, as ingest.json says it
POLICIES: dict[str, str] = {
    "majority": "the value of more than half of the readers who assessed it, else uncertain",
    "any": "present where any reader says so, else uncertain where any does, else absent",
    "uncertain": "the value that all readers who assessed it agree on, else uncertain",
}


def reconcile(
    rows: pd.DataFrame, policy: Readers, path: Path
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """One row a key, and a record: policy, rule, keys with several rows, and disagreements by
    finding.

    Values of a finding: 0, 1, -1 (uncertain), NaN (not assessed: no vote). Classes: one that has
    more than half of the votes (majority) or all of them (uncertain), else none; `any` has no
    meaning for them. Raises LabelError there, and where rows of one key differ in age, sex, view,
    site, split or patient; meta:* that differ are left empty.
    """
    voted = [str(name) for name in rows if str(name).startswith("label:") or name == "class"]
    if policy == "any" and "class" in voted:
        raise LabelError(
            f"{path}: readers' classes cannot be brought together by 'any': choose majority or "
            f"uncertain."
        )
    several = rows[rows["key"].duplicated(keep=False)]
    first = rows.drop_duplicates("key").copy()
    disagreements = dict.fromkeys(voted, 0)
    for _, group in several.groupby("key", sort=False):
        at = group.index[0]
        for name in group:
            if name in voted:
                votes = [
                    v
                    for v in group[name]
                    if v != "" and not (isinstance(v, float) and math.isnan(v))
                ]
                disagreements[str(name)] += len(set(votes)) > 1
                first.loc[at, name] = _vote(
                    votes, policy, nothing="" if name == "class" else math.nan
                )
            elif group[name].nunique(dropna=False) > 1:
                first.loc[at, name] = _unequal(str(name), group, path)
    record = {
        "policy": policy,
        "rule": POLICIES[policy],
        "keys_with_several_rows": int(several["key"].nunique()),
    }
    return first, record | {
        "disagreements": {name.removeprefix("label:"): n for name, n in disagreements.items()}
    }


def _vote(votes: list[Any], policy: Readers, *, nothing: Any) -> Any:
    if not votes:
        return nothing
    undecided = nothing if isinstance(votes[0], str) else -1.0
    rules: dict[str, Callable[[], Any]] = {
        "majority": lambda: next(
            (v for v, n in Counter(votes).items() if 2 * n > len(votes)), undecided
        ),
        "any": lambda: next(value for value in (1.0, -1.0, 0.0) if value in votes),
        "uncertain": lambda: votes[0] if len(set(votes)) == 1 else undecided,
    }
    return rules[policy]()


def _unequal(name: str, group: pd.DataFrame, path: Path) -> str:
    if name.startswith("meta:"):
        return ""
    raise LabelError(
        f"{path}, column {name}, row {group.index[1]}: rows of one key differ in it, and no vote "
        f"can settle that. Mend the table."
    )

"""The worst errors at the first threshold, by hashed id: what a person should look at first."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from medres.evaluate.units import Units

WORST = 10


def worst_errors(units: Units, name: str, threshold: float) -> dict[str, list[dict[str, Any]]]:
    """{"false_negatives", "false_positives"}: [{"id", "score"}], the farthest from the threshold first.

    id: the first 12 hex digits of the SHA-256 of the unit's id, so that the page holds no id of a table.
    """
    use = np.flatnonzero(units.usable(name))
    label, score = units.label[name][use] == 1.0, units.score[name][use]
    missed = np.flatnonzero(label & (score < threshold))
    alarms = np.flatnonzero(~label & (score >= threshold))
    lists = {
        "false_negatives": missed[np.argsort(score[missed], kind="stable")],
        "false_positives": alarms[np.argsort(-score[alarms], kind="stable")],
    }
    return {
        kind: [{"id": hashed(str(units.key[use[i]])), "score": float(score[i])} for i in places[:WORST]]
        for kind, places in lists.items()
    }


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]

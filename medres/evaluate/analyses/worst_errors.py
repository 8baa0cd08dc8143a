"""The worst errors at the first threshold, by hashed id: what a person should look at first."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.metrics.operating_point import Threshold
from medres.evaluate.scores.units import AnalysisUnits

WORST = 10
MAX_BYTES = 1_000_000  # of all pictures of a page together
MAX_IMAGES = 40
PNG = b"\x89PNG\r\n\x1a\n"

Pictures = Callable[
    [str, str, str], bytes | None
]  # (finding, unit of analysis, the unit's id) -> PNG, or None


def worst_errors(
    units: AnalysisUnits, name: str, threshold: float
) -> dict[str, list[dict[str, Any]]]:
    """{"false_negatives", "false_positives"}: [{"id", "score"}], the farthest from the threshold
    first.

    id: the first 12 hex digits of the SHA-256 of the unit's id, so that the page holds no id of a
        table.
    """
    return {
        kind: [
            {"id": hashed(str(units.key[i])), "score": float(units.score[name][i])} for i in places
        ]
        for kind, places in _places(units, name, threshold).items()
    }


def draw_worst(
    units: AnalysisUnits, points: dict[str, list[Threshold]], pictures: Pictures
) -> dict[str, dict[str, str]]:
    """{finding: {id: data URI}} of the worst errors, worst first in every finding, up to
    MOST_PICTURES and MOST_BYTES.

    Raises EvaluationError where `pictures` returns something other than the bytes of a PNG, or
    None.
    """
    found = {n: _places(units, n, p[0].threshold) for n, p in points.items() if p}
    queue = [
        (rank, n, i)
        for n, kinds in found.items()
        for places in kinds.values()
        for rank, i in enumerate(places)
    ]
    out: dict[str, dict[str, str]] = {name: {} for name in found}
    left = MAX_BYTES
    for _, name, i in sorted(queue, key=lambda one: one[0])[:MAX_IMAGES]:
        key = str(units.key[i])
        png = pictures(name, units.unit, key)
        if png is None:
            continue
        if not (isinstance(png, bytes) and png.startswith(PNG)):
            raise EvaluationError(
                "pictures: the function must return the bytes of a PNG file, or None"
            )
        text = "data:image/png;base64," + base64.b64encode(png).decode()
        left -= len(text)
        if left < 0:
            break
        out[name][hashed(key)] = text
    return out


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _places(units: AnalysisUnits, name: str, threshold: float) -> dict[str, np.ndarray]:
    use = np.flatnonzero(units.usable(name))
    label, score = units.label[name][use] == 1.0, units.score[name][use]
    missed = np.flatnonzero(label & (score < threshold))
    alarms = np.flatnonzero(~label & (score >= threshold))
    return {
        "false_negatives": use[missed[np.argsort(score[missed], kind="stable")]][:WORST],
        "false_positives": use[alarms[np.argsort(-score[alarms], kind="stable")]][:WORST],
    }

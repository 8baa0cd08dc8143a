"""The worst errors at the first threshold, by hashed id: what a person should look at first."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.schema import ErrorCase, WorstErrors
from medres.evaluate.scores.sample import Int64Array
from medres.evaluate.scores.units import AnalysisUnits

MAX_PER_KIND = 10
MAX_BYTES = 1_000_000  # of all images of a page together
MAX_IMAGES = 40
PNG = b"\x89PNG\r\n\x1a\n"

Pictures = Callable[
    [str, str, str], bytes | None
]  # (finding, unit of analysis, the unit's id) -> PNG, or None


def worst_errors(units: AnalysisUnits, name: str, threshold: float) -> WorstErrors:
    """Up to ten of each kind, the farthest from the threshold first. They are named by a hash, so
    that the page shows no id of the table.
    """
    keys = units.key
    missed, alarms = (
        [
            ErrorCase(hashed(str(keys.iloc[row])), float(units.score[name][row]))
            for row in rows.tolist()
        ]
        for rows in _worst_rows(units, name, threshold)
    )
    return WorstErrors(missed, alarms)


def draw_worst(
    units: AnalysisUnits, thresholds: dict[str, list[Threshold]], pictures: Pictures
) -> dict[str, dict[str, str]]:
    """{finding: {id: data URI}} of the worst errors, the worst of every finding first, up to
    MAX_IMAGES and MAX_BYTES.

    Raises EvaluationError if `pictures` returns something other than the bytes of a PNG, or None.
    """
    worst = {
        name: _worst_rows(units, name, named[0].value)
        for name, named in thresholds.items()
        if named
    }
    queue = [
        (rank, name, row)
        for name, kinds in worst.items()
        for rows in kinds
        for rank, row in enumerate(rows.tolist())
    ]
    images: dict[str, dict[str, str]] = {name: {} for name in worst}
    left, keys = MAX_BYTES, units.key
    for _, name, row in sorted(queue, key=lambda entry: entry[0])[:MAX_IMAGES]:
        key = str(keys.iloc[row])
        png = pictures(name, units.unit, key)
        if png is None:
            continue
        if not (isinstance(png, bytes) and png.startswith(PNG)):
            raise EvaluationError(
                "pictures: the function must return the bytes of a PNG file, or None",
                code="not_png",
            )
        text = "data:image/png;base64," + base64.b64encode(png).decode()
        left -= len(text)
        if left < 0:
            break
        images[name][hashed(key)] = text
    return images


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _worst_rows(units: AnalysisUnits, name: str, threshold: float) -> tuple[Int64Array, Int64Array]:
    """Rows of the false negatives and of the false positives, the worst first."""
    use = np.flatnonzero(units.usable(name))
    label, score = units.label[name][use] == 1.0, units.score[name][use]
    missed = np.flatnonzero(label & ~(score >= threshold))
    alarms = np.flatnonzero(~label & (score >= threshold))
    return (
        use[missed[np.argsort(score[missed], kind="stable")]][:MAX_PER_KIND],
        use[alarms[np.argsort(-score[alarms], kind="stable")]][:MAX_PER_KIND],
    )

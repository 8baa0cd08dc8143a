"""Curves small enough to be kept in a report and drawn on a page."""

from __future__ import annotations

from typing import Any

import numpy as np

from medres.evaluate.roc import Counts

MAX_CURVE_POINTS = 400


def reduced(counts: Counts, most: int = MAX_CURVE_POINTS) -> dict[str, list[Any]]:
    """Cumulative counts at no more than `most` thresholds, evenly spread along the ROC curve."""
    along = counts.tp / max(counts.n_positive, 1) + counts.fp / max(counts.n_negative, 1)
    keep = np.arange(along.size)
    if along.size > most:
        keep = np.unique(np.searchsorted(along, np.linspace(along[0], along[-1], most)))
    keep = np.minimum(keep, along.size - 1)
    return {
        "threshold": counts.threshold[keep].tolist(), "tp": counts.tp[keep].tolist(), "fp": counts.fp[keep].tolist()
    }  # fmt: skip

"""The folds of a detector: the report of each on its held-out patients, and their summary.

The boxes of several models cannot be joined by their mean, so there is no ensemble. Scores of
different models are not compared either: figures are computed in each fold and then averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medres.errors import TrainingError
from medres.inference.boxes.scoring import evaluate_detector

FIGURES = ("ap50", "froc_mean")
REPLICATES = 500  # of the bootstrap of a fold


def require_folds(folds: int) -> None:
    """Raise TrainingError (no_ensemble) for seeds without folds."""
    if folds < 2:
        raise TrainingError(
            "segmenters and detectors are not joined, so seeds make no ensemble: give --folds",
            code="no_ensemble",
        )


def fold_report(model: Path, work: Path, out: Path) -> dict[str, Any]:
    """The report of a fold, saved into `out`, and its figures by class and their means."""
    result = evaluate_detector(model, work, "test", replicates=REPLICATES)
    result.save(out, overwrite=True)
    numbers = result.numbers
    findings = {
        name: {figure: finding[figure] for figure in FIGURES}
        for name, finding in numbers["findings"].items()
    }
    return {"findings": findings, "macro": {figure: numbers["macro"][figure] for figure in FIGURES}}


def summary_of_folds(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For summary.json: AP50 and mean FROC sensitivity averaged over the folds, and their standard
    deviation between folds; and the figures of each fold.

    >>> low, high = ({"macro": {"ap50": {"estimate": v}, "froc_mean": {"estimate": v}}}
    ...              for v in (0.4, 0.6))
    >>> round(summary_of_folds([low, high])["ap50"], 2)
    0.5
    """
    summary: dict[str, Any] = {}
    for figure in FIGURES:
        values = [report["macro"][figure]["estimate"] for report in reports]
        known = [value for value in values if value is not None]
        summary[figure] = float(np.mean(known)) if known else None
        summary[f"{figure}_fold_sd"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return {**summary, "folds": [dict(report) for report in reports]}

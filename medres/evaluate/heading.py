"""What was evaluated on whom: the head of report.json and the flow of images and patients (STARD 15, 16 and 19)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medres.evaluate.demographics import demographics
from medres.evaluate.options import Options
from medres.evaluate.scores import Table
from medres.evaluate.units import Units

SCHEMA = "medres.report/1"


def heading(
    table: Table, units: Units, pooling: tuple[str, str | None], options: Options, title: str | None
) -> dict[str, Any]:
    folds = int(np.unique(units.fold).size)
    images = int(table.columns["image"].nunique()) if "image" in table.columns else units.n_images
    return {
        "schema": SCHEMA,
        "title": title or "Diagnostic evaluation",
        "task": table.task,
        "analysis_unit": units.unit,
        "cluster": "patient" if units.has_patient else None,
        "pooling": {
            "score": pooling[0] if units.pooled else None,
            "label": (pooling[1] or "equal") if units.pooled else None,
        },
        "folds": folds if folds > 1 else None,
        "design": options.design | {"prevalence": options.prevalence or None},
        "n": {"patients": units.n_patients, "units": units.n_units, "images": images},
    }


def flow(table: Table, units: Units, ingest: Mapping[str, Any] | None) -> dict[str, Any]:
    """How many rows came in, how many were scored, and what ingest left out before (without the folders it read)."""
    status = {name: int(np.count_nonzero(table.status == name)) for name in ("scored", "refused", "failed")}
    out: dict[str, Any] = {"images": table.n_rows, **status, "units": units.n_units}
    out |= {"units_refused": int(units.refused.sum()), "patients": units.n_patients}
    out["demographics"] = demographics(units)
    if ingest is not None:
        out["ingest"] = {key: value for key, value in ingest.items() if key != "sources"}
    return out

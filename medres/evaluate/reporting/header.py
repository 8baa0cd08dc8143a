"""The head of report.json: the evaluated data, and the flow of images and patients (STARD items 15,
16 and 19).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medres.evaluate.options import ReportOptions
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits

SCHEMA = "medres.report/1"


def heading(
    table: Table,
    units: AnalysisUnits,
    pooling: tuple[str, str | None],
    options: ReportOptions,
    title: str | None,
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


def flow(table: Table, units: AnalysisUnits, ingest: Mapping[str, Any] | None) -> dict[str, Any]:
    """The number of rows, how many were scored, and what ingest excluded before (without the
    folders that it read).
    """
    status = {
        name: int(np.count_nonzero(table.status == name))
        for name in ("scored", "refused", "failed")
    }
    out: dict[str, Any] = {"images": table.n_rows, **status, "units": units.n_units}
    out |= {"units_refused": int(units.refused.sum()), "patients": units.n_patients}
    out["demographics"] = demographics_table(units)
    if ingest is not None:
        out["ingest"] = {key: value for key, value in ingest.items() if key != "sources"}
    return out


COLUMNS = ("sex", "site", "manufacturer", "modality", "view")
MAX_LEVELS = 12


def demographics_table(units: AnalysisUnits) -> dict[str, Any]:
    """Characteristics of the patients (of the units if there is no patient ID), from the first row
    of each: age in years, and counts of the levels of other columns.
    """
    first = np.unique(units.patient, return_index=True)[1]
    rows = units.columns.iloc[first]
    out: dict[str, Any] = {}
    if "age" in rows:
        age = pd.to_numeric(
            rows["age"].astype("object").where(rows["age"].astype(str) != "", None), errors="coerce"
        ).dropna()
        if len(age):
            q1, median, q3 = (float(age.quantile(q)) for q in (0.25, 0.5, 0.75))
            out["age"] = {"n": len(age), "median": median, "q1": q1, "q3": q3}
    for column in COLUMNS:
        if column in rows:
            text = (
                rows[column]
                .astype("object")
                .where(rows[column].notna(), "")
                .astype(str)
                .str.strip()
            )
            counts = text.where(text != "", "(unknown)").value_counts()
            if len(counts) <= MAX_LEVELS:
                out[column] = {str(level): int(counts[level]) for level in sorted(counts.index)}
    return out

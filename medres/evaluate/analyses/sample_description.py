"""Who was evaluated: sample size, the flow of images and patients, and the characteristics of the
patients (STARD 2015, items 19 and 20).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medres.evaluate.schema import AgeSummary, Demographics, Flow, SampleSize
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.serialization import to_plain

COLUMNS = ("sex", "site", "manufacturer", "modality", "view")
MAX_LEVELS = 12


def sample_size(table: Table, units: AnalysisUnits) -> SampleSize:
    """Patients, units of analysis, and different images (rows where no image is named)."""
    images = int(table.columns["image"].nunique()) if "image" in table.columns else units.n_images
    return SampleSize(units.n_patients, units.n_units, images)


def participant_flow(table: Table, units: AnalysisUnits, ingest: Mapping[str, Any] | None) -> Flow:
    """The number of rows, how many were scored, and what ingest excluded before (without the
    folders that it read).
    """
    status = {
        name: int(np.count_nonzero(table.status == name))
        for name in ("scored", "refused", "failed")
    }
    without_sources = {key: value for key, value in (ingest or {}).items() if key != "sources"}
    return Flow(
        images=table.n_rows,
        **status,
        units=units.n_units,
        units_refused=int(units.refused.sum()),
        patients=units.n_patients,
        demographics=demographics(units),
        ingest=None if ingest is None else to_plain(without_sources),
    )


def demographics(units: AnalysisUnits) -> Demographics:
    """Characteristics of the patients (of the units if there is no patient ID), from the first row
    of each: age in years, and counts of the levels of other columns.
    """
    first = np.unique(units.patient, return_index=True)[1]
    rows = units.columns.iloc[first]
    age_summary = None
    if "age" in rows:
        age = pd.to_numeric(
            rows["age"].astype("object").where(rows["age"].astype(str) != "", None), errors="coerce"
        ).dropna()
        if len(age):
            q1, median, q3 = (float(age.quantile(q)) for q in (0.25, 0.5, 0.75))
            age_summary = AgeSummary(len(age), median, q1, q3)
    levels: dict[str, dict[str, int]] = {}
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
                levels[column] = {str(level): int(counts[level]) for level in sorted(counts.index)}
    return Demographics(age_summary, **levels)

"""Who was evaluated: sample size, the flow of images and patients, and the characteristics of the
patients (STARD 2015, items 19 and 20).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medres.evaluate.schema import AgeSummary, Demographics, Flow, Headline, SampleSize
from medres.evaluate.scores.table import Table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.serialization import to_plain

COLUMNS = ("sex", "site", "manufacturer", "modality", "view")
MAX_LEVELS = 12
DOMINANT_SHARE = 0.2  # of all units; a patient with more makes the patient-weighted AUC lead


def sample_size(table: Table, units: AnalysisUnits) -> SampleSize:
    """Patients, units of analysis, and different images (rows where no image is named)."""
    return SampleSize(units.n_patients, units.n_units, _images(table, units))


def _images(table: Table, units: AnalysisUnits) -> int:
    """Without seeds no image repeats: the table was checked, and a second index of a million ids
    would take a tenth of the memory of the report.
    """
    if "image" not in table.columns:
        return units.n_images
    repeats = "seed" in table.columns
    return int(table.columns["image"].nunique()) if repeats else int(table.columns["image"].count())


def headline_of(units: AnalysisUnits) -> tuple[Headline, float | None]:
    """Which AUC leads, and the share of the units that the largest patient holds (None if there is
    no patient column or patients do not repeat). It depends on the numbers of units per patient
    alone: not on scores, labels or the finding.
    """
    sizes = np.bincount(units.patient)
    sizes = sizes[sizes > 0]
    if not units.has_patient or sizes.size == 0 or sizes.max() == 1:
        return "image", None
    share = float(sizes.max() / sizes.sum())
    dominated = share > DOMINANT_SHARE and int(np.ptp(sizes)) > 0
    return ("patient" if dominated else "image"), share


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

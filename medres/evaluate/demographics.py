"""Who the patients were: counts and medians of the columns that a table happens to have (STARD item 20)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medres.evaluate.units import Units

COLUMNS = ("sex", "site", "manufacturer", "modality", "view")
MOST_LEVELS = 12


def demographics(units: Units) -> dict[str, Any]:
    """By patient (by unit where none is known), from each one's first row: age in years, and counts of levels."""
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
            text = rows[column].astype("object").where(rows[column].notna(), "").astype(str).str.strip()
            counts = text.where(text != "", "(unknown)").value_counts()
            if len(counts) <= MOST_LEVELS:
                out[column] = {str(level): int(counts[level]) for level in sorted(counts.index)}
    return out

"""People's calls on the same units, as points beside the ROC curve. Inference over readers is not
done here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.scores.io import read_table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.intervals import proportion_estimate


def load_readers(source: pd.DataFrame | str | Path, units: AnalysisUnits) -> pd.DataFrame:
    """Rows reader, arm, unit key, finding, rating (0 or 1). `arm` and, for one finding, `finding`
    may be left out.

    Raises EvaluationError: a missing column, a rating that is not 0 or 1, an unknown finding or
    unit, a doubled row.
    """
    table = (
        source.copy() if isinstance(source, pd.DataFrame) else read_table(Path(source), "readers")
    )
    for column in ("reader", units.unit, "rating"):
        if column not in table.columns:
            raise EvaluationError(
                f"the readers table has no column {column!r}; the unit of analysis is "
                f"{units.unit!r}"
            )
    if "finding" not in table.columns:
        if len(units.names) > 1:
            raise EvaluationError(
                "the readers table needs a column 'finding', since the scores have several"
            )
        table["finding"] = units.names[0]
    if "arm" not in table.columns:
        table["arm"] = ""
    table = table[["reader", "arm", units.unit, "finding", "rating"]].rename(
        columns={units.unit: "key"}
    )
    rating = pd.to_numeric(table["rating"], errors="coerce")
    checks = {
        "a rating other than 0 or 1 (not flagged, flagged)": ~rating.isin([0, 1]),
        "a finding that the scores do not have": ~table["finding"].isin(units.names),
        f"a {units.unit} that the scores do not have": ~table["key"]
        .astype(str)
        .isin(units.key.astype(str)),
        "a reader, arm, finding and unit that stood before": table.duplicated(
            ["reader", "arm", "key", "finding"]
        ),
    }
    for what, wrong in checks.items():
        if wrong.any():
            rows = int(wrong.sum())
            raise EvaluationError(
                f"the readers table holds {what}: {rows} rows, first: row "
                f"{int(np.argmax(wrong)) + 1}"
            )
    return table.assign(rating=rating.astype(int), key=table["key"].astype(str))


def reader_points(
    readers: pd.DataFrame, units: AnalysisUnits, name: str, level: float
) -> list[dict[str, Any]]:
    """[{"reader", "arm", "n", "sensitivity", "specificity"}] over the units that a reader rated and
    that have a label.
    """
    place = pd.Series(np.arange(units.n_units), index=units.key.astype(str))
    out = []
    for (reader, arm), rows in readers[readers["finding"] == name].groupby(
        ["reader", "arm"], sort=True
    ):
        at = place.loc[rows["key"]].to_numpy()
        known = np.isin(units.label[name][at], (0.0, 1.0))
        at, flagged = at[known], rows["rating"].to_numpy()[known] == 1
        label, patient = units.label[name][at] == 1.0, units.patient[at]
        out.append(
            {
                "reader": str(reader), "arm": str(arm), "n": int(label.size),
                "sensitivity": proportion_estimate(flagged[label], patient[label], level),
                "specificity": proportion_estimate(~flagged[~label], patient[~label], level),
            }
        )  # fmt: skip
    return out

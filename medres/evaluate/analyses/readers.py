"""Human readers' calls on the same units, as points beside the ROC curve. Inference over readers is
not done here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.schema import ReaderPoint
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import read_table
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.intervals import proportion_estimate


def load_readers(
    source: pd.DataFrame | str | Path, units: AnalysisUnits, *, fold_ids: bool = False
) -> pd.DataFrame:
    """A table of reader, arm, key (the id of the unit), finding and rating (0 or 1). The source may
    lack `arm` and, if there is only one finding, `finding`.

    Raises EvaluationError for a missing column, a rating that is not 0 or 1, an unknown finding or
    unit, and a repeated row.
    """
    table = (
        source.copy() if isinstance(source, pd.DataFrame) else read_table(Path(source), "readers")
    )
    for column in ("reader", units.unit, "rating"):
        if column not in table.columns:
            raise EvaluationError(
                f"the readers table has no column {column!r}; the unit of analysis is "
                f"{units.unit!r}",
                code="missing_column",
            )
    if "finding" not in table.columns:
        if len(units.names) > 1:
            raise EvaluationError(
                "the readers table needs a column 'finding', because the scores have several "
                "findings",
                code="missing_column",
            )
        table["finding"] = units.names[0]
    if "arm" not in table.columns:
        table["arm"] = ""
    table = table[["reader", "arm", units.unit, "finding", "rating"]].rename(
        columns={units.unit: "key"}
    )
    table["key"] = id_texts(table["key"], fold=fold_ids)
    rating = pd.to_numeric(table["rating"], errors="coerce")
    unknown_unit = ~table["key"].isin(units.key.astype(str))
    repeated = table.duplicated(["reader", "arm", "key", "finding"])
    checks = (
        ("bad_rating", "a rating other than 0 (negative) or 1 (positive)", ~rating.isin([0, 1])),
        (
            "unknown_finding",
            "a finding that the scores do not have",
            ~table["finding"].isin(units.names),
        ),
        ("unknown_unit", f"an id ({units.unit}) that the scores do not have", unknown_unit),
        ("duplicate_rating", "a second rating by the same reader and arm", repeated),
    )
    for code, problem, affected in checks:
        if affected.any():
            count = int(affected.sum())
            raise EvaluationError(
                f"the readers table has {problem}: {count} row{'s' if count > 1 else ''} (first: "
                f"row {int(np.argmax(affected)) + 1})",
                code=code,
            )
    return table.assign(rating=rating.astype(int))


def reader_points(
    readers: pd.DataFrame, units: AnalysisUnits, name: str, level: float
) -> list[ReaderPoint]:
    """One point per reader and arm, over the units that the reader rated and that have a label."""
    row_of_key = pd.Series(np.arange(units.n_units), index=units.key.astype(str))
    points = []
    for (reader, arm), rows in readers[readers["finding"] == name].groupby(
        ["reader", "arm"], sort=True
    ):
        at = row_of_key.loc[rows["key"]].to_numpy()
        assessed = np.isin(units.label[name][at], (0.0, 1.0))
        at, flagged = at[assessed], rows["rating"].to_numpy()[assessed] == 1
        label, patient = units.label[name][at] == 1.0, units.patient[at]
        sensitivity = proportion_estimate(flagged[label], patient[label], level)
        specificity = proportion_estimate(~flagged[~label], patient[~label], level)
        points.append(ReaderPoint(str(reader), str(arm), int(label.size), sensitivity, specificity))
    return points

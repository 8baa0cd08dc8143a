"""Human readers' calls, as points beside the ROC curve, each with the model on the same units.
Inference over readers is not done here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medres.errors import EvaluationError
from medres.evaluate.analyses.paired_rates import Bools, paired_calls
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.results import TwoRates
from medres.evaluate.schema import ReaderPoint
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import read_table
from medres.evaluate.scores.sample import Int64Array
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
    unknown_unit = ~table["key"].isin(units.key)
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
    readers: pd.DataFrame,
    units: AnalysisUnits,
    name: str,
    level: float,
    threshold: Threshold | None = None,
) -> list[ReaderPoint]:
    """One point per reader and arm, over the units that the reader rated and that have a label and
    a score, so that reader and model are compared on the same units. threshold: the model's.
    """
    row_of_key = pd.Series(np.arange(units.n_units), index=units.key)
    points = []
    for (reader, arm), rows in readers[readers["finding"] == name].groupby(
        ["reader", "arm"], sort=True
    ):
        rated = row_of_key.loc[rows["key"]].to_numpy()
        use = units.usable(name)[rated]
        at, flagged = rated[use], rows["rating"].to_numpy()[use] == 1
        label, patient = units.label[name][at] == 1.0, units.patient[at]
        of_reader = _two_rates(flagged, label, patient, level)
        model = difference = None
        if threshold is not None:
            called = units.score[name][at] >= threshold.value
            model = _two_rates(called, label, patient, level)
            difference = paired_calls(label, called, flagged, patient, threshold, level)
        points.append(
            ReaderPoint(
                reader=str(reader),
                arm=str(arm),
                n=int(label.size),
                n_without_score=int((units.refused & units.assessed(name))[rated].sum()),
                sensitivity=of_reader.sensitivity,
                specificity=of_reader.specificity,
                model=model,
                difference=difference,
            )
        )
    return points


def _two_rates(called: Bools, label: Bools, patient: Int64Array, level: float) -> TwoRates:
    return TwoRates(
        proportion_estimate(called[label], patient[label], level),
        proportion_estimate(~called[~label], patient[~label], level),
    )

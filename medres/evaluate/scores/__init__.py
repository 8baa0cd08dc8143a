"""The scores table: reading, checking, pooling to units, and the labeled sample of one finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.evaluate.scores.io import read_table
    from medres.evaluate.scores.sample import Counts, Float64Array, Int64Array, Sample, rank_counts
    from medres.evaluate.scores.table import Table, load
    from medres.evaluate.scores.units import AnalysisUnits, to_units

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.evaluate.scores.io": "read_table",
        "medres.evaluate.scores.sample": "Counts Float64Array Int64Array Sample rank_counts",
        "medres.evaluate.scores.table": "Table load",
        "medres.evaluate.scores.units": "AnalysisUnits to_units",
    },
)

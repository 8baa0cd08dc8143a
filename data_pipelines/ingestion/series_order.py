"""The order of slices in their series, and the verdict on the series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from data_pipelines.kinds import kinds_with_series
from data_pipelines.volumes.series import group_planes, series_verdict


def in_series_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `order`, the index of each slice along the normal of its series, and `verdict` (see
    volumes.series). Images of a kind without series get 0 and SINGLE.
    """
    order = pd.Series(0, index=rows.index)
    verdict = pd.Series("SINGLE", index=rows.index, dtype=object)
    for _, series in rows[rows["kind"].isin(kinds_with_series())].groupby("series"):
        groups = group_planes(
            [replace(plane, source_index=n) for n, plane in enumerate(series["plane"])]
        )
        sorted_rows = series.index[
            [plane.source_index for group in groups for plane in group.planes]
        ]
        order[sorted_rows] = np.arange(len(sorted_rows))
        verdict[sorted_rows] = series_verdict(groups)
    return rows.assign(order=order, verdict=verdict)

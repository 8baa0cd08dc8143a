"""The manifest by cache record: a volume is one row, with the labels of its slices pooled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from data_pipelines.cache.store import Cache
from data_pipelines.errors import LabelError
from data_pipelines.ingestion.manifest import Manifest


def labels_per_sample(manifest: Manifest, cache: Cache) -> Manifest:
    """The manifest with one row a record of the cache, in its order; for images and stacks its own
    rows.

    A volume's row is that of its middle slice. A finding is present (1) where it is in any slice;
    else missing or uncertain (-1) where it is in any; else absent (0). Raises LabelError where
    slices of a volume are of different classes.
    """
    table = manifest.table.set_index("image")
    rows = table.loc[cache.images["image"]].reset_index()[list(manifest.table.columns)]
    if cache.spec.form == "volume":
        members = table.loc[cache.slices["image"]].reset_index()
        record = cache.slices["record"].to_numpy()
        for column in (name for name in rows if str(name).startswith("label:")):
            rows[column] = members[column].groupby(record).agg(_any).to_numpy()
        if "class" in rows:
            rows["class"] = members["class"].groupby(record).agg(_one_class).to_numpy()
    return replace(manifest, table=rows)


def _any(labels: pd.Series) -> float:
    """Or of 0, 1, -1 (uncertain) and missing, in three-valued logic."""
    if (labels == 1).any():
        return 1.0
    if (labels == -1).any():
        return -1.0
    return float("nan") if labels.isna().any() else 0.0


def _one_class(classes: pd.Series) -> str:
    named = np.unique(classes[classes != ""])
    if len(named) > 1:
        raise LabelError(
            "slices of one series are of different classes, so that the volume has none: label "
            "the series"
        )
    return str(named[0]) if len(named) else ""

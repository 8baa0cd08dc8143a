"""The manifest by sample of a cache: a volume is one row, with the labels of its slices pooled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from data_pipelines.cache.store import Cache
from data_pipelines.errors import LabelError
from data_pipelines.ingestion.manifest import Manifest


def labels_per_sample(manifest: Manifest, cache: Cache) -> Manifest:
    """The manifest with one row per sample of the cache, in the cache's order.

    The row of a stack or a volume is that of its middle slice. A finding of a volume is present (1)
    if any slice has it; otherwise uncertain (-1) or missing if it is so in any slice; otherwise
    absent (0). Raises LabelError (code mixed_classes) if the slices of a volume have different
    classes.
    """
    table = manifest.table.set_index("image")
    rows = table.loc[cache.images["image"]].reset_index()[list(manifest.table.columns)]
    if cache.spec.layout == "volume":
        slices = table.loc[cache.slices["image"]].reset_index()
        sample = cache.slices["record"].to_numpy()
        for column in (name for name in rows if str(name).startswith("label:")):
            rows[column] = slices[column].groupby(sample).agg(_any_slice).to_numpy()
        if "class" in rows:
            rows["class"] = slices["class"].groupby(sample).agg(_one_class).to_numpy()
    return replace(manifest, table=rows)


def _any_slice(labels: pd.Series) -> float:
    """Logical or of 0, 1, -1 (uncertain) and missing, in three-valued logic."""
    if (labels == 1).any():
        return 1.0
    if (labels == -1).any():
        return -1.0
    return float("nan") if labels.isna().any() else 0.0


def _one_class(classes: pd.Series) -> str:
    named = np.unique(classes[classes != ""])
    if len(named) > 1:
        raise LabelError(
            "slices of one series have different classes, so its volume has no class: give one "
            "label per series",
            code="mixed_classes",
        )
    return str(named[0]) if len(named) else ""

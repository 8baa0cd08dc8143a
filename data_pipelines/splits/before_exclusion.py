"""Splits that are assigned before exclusion, so that they do not depend on what is excluded, and
exclusions can be counted by split.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from data_pipelines.pseudonyms import PseudonymKey
from data_pipelines.splits.assignment import SplitOptions, assign
from data_pipelines.splits.stratified import row_strata

#: reasons of exclusion that follow from the splits themselves
_FROM_SPLITS = frozenset({"no_split", "split_leak", "both_sites"})


def assign_before_exclusion(
    rows: pd.DataFrame,
    options: SplitOptions,
    key: PseudonymKey,
    *,
    splits_given: bool,
    no_loss: Collection[str] = (),
) -> tuple[pd.Series, dict[str, Any]]:
    """Return the split of each row, kept or excluded ('' where none is known), and what ingest.json
    says about the splits.

    rows: those of `assign`, and reason ('' for an image that is kept). no_loss: reasons of files
    that are no image of this data set: they are assigned no split. Where so many images are
    excluded that a split would lack images, or a label that it could have, the splits are assigned
    among the images that are kept (`splits_assigned` is then after_exclusion). Errors: see assign.
    """
    drawn = rows[
        (rows["patient"] != "")
        & ~rows["reason"].isin([*_FROM_SPLITS, *no_loss])
        & ((rows["split"] != "") | (not splits_given))
    ]
    images = rows[rows["reason"] == ""]
    kept_only, record = assign(images, options, key, splits_given=splits_given)
    alone = pd.Series(kept_only, index=images.index, dtype=object)
    splits = rows["split"].copy()
    if len(drawn) > len(images):
        splits[drawn.index], _ = assign(drawn, options, key, splits_given=splits_given)
        if not _lacks_more(images, splits[images.index], alone):
            return splits, {**record, "splits_assigned": "before_exclusion"}
    of_group = dict(zip(images["group"], alone, strict=True))
    splits[drawn.index] = drawn["group"].map(of_group).fillna(splits[drawn.index])
    splits[images.index] = alone
    assigned = "after_exclusion" if len(drawn) > len(images) else "before_exclusion"
    return splits, {**record, "splits_assigned": assigned}


def _lacks_more(images: pd.DataFrame, splits: pd.Series, alone: pd.Series) -> bool:
    """Whether a label, or the images as a whole, reach fewer of the splits than with `alone`."""
    strata = pd.Series(row_strata(images), index=images.index)
    if splits.nunique() < alone.nunique():
        return True
    reached, possible = (s.groupby(strata).nunique() for s in (splits, alone))
    return bool((reached < possible).any())

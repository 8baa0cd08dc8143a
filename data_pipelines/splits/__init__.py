"""Train, tune (validation) and test: stratified by patient, with linked patients kept together, and
checked for overlap.

Start with `assign` (which split each row goes to) or `stratified.py` (how groups are divided).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.splits.assignment import SplitOptions, apply_external_site, assign, folds_of
    from data_pipelines.splits.leakage import crosses_splits, refuse_leaks
    from data_pipelines.splits.stratified import (
        FRACTIONS,
        SPLITS,
        allocate,
        check_no_overlap,
        connected_groups,
        group_folds,
        group_strata,
        row_strata,
        sample_tune_split,
    )

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.splits.assignment": "SplitOptions apply_external_site assign folds_of",
        "data_pipelines.splits.leakage": "crosses_splits refuse_leaks",
        "data_pipelines.splits.stratified": "FRACTIONS SPLITS allocate check_no_overlap "
        "connected_groups group_folds group_strata row_strata sample_tune_split",
    },
)

"""Intervals, estimates and the bootstrap, without any notion of images. numpy and scipy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.evaluate.statistics.bootstrap import (
        Statistic,
        percentile_estimate,
        replicates_for,
        resampled,
        score_limits,
    )
    from medres.evaluate.statistics.clusters import t_quantile
    from medres.evaluate.statistics.estimate import Estimate, undefined
    from medres.evaluate.statistics.intervals import (
        likelihood_ratio,
        logit_interval,
        mean_in_unit_range,
        normal_quantile,
        proportion_estimate,
    )

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.evaluate.statistics.bootstrap": "Statistic percentile_estimate replicates_for "
        "resampled score_limits",
        "medres.evaluate.statistics.clusters": "t_quantile",
        "medres.evaluate.statistics.estimate": "Estimate undefined",
        "medres.evaluate.statistics.intervals": "likelihood_ratio logit_interval "
        "mean_in_unit_range normal_quantile proportion_estimate",
    },
)

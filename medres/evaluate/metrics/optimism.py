"""Optimism of a threshold that was chosen on the evaluated data, estimated by choosing it again in
every bootstrap replicate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from medres.evaluate.metrics.thresholds import youden_index
from medres.evaluate.results import TwoRates
from medres.evaluate.scores.sample import Counts, Float64Array, Sample, rank_counts
from medres.evaluate.statistics.bootstrap import (
    ENOUGH_FOR_PERCENTILES,
    Statistic,
    coarsened,
    percentile_estimate,
    resampled,
    score_limits,
)
from medres.evaluate.statistics.clusters import degrees, t_quantile
from medres.evaluate.statistics.estimate import Estimate


def optimism_corrected(
    sample: Sample,
    level: float,
    replicates: int,
    draws: Mapping[str, Float64Array] | None = None,
) -> TwoRates:
    """Sensitivity and specificity at Youden's point minus the optimism (Harrell 1996); the interval
    is shifted by it (Noma 2021).

    The optimism is the mean over replicates of the rate at the replicate's own Youden point in the
    replicate, minus the rate at that same threshold in the original sample. Needs both classes.
    draws: of `bootstrap_statistics`, if they exist already.
    """
    coarse = coarsened(sample)
    original = rank_counts(coarse.label, coarse.score)
    if draws is None:
        draws = resampled(coarse, bootstrap_statistics(), replicates)
    defined = ~np.isnan(draws["index"])
    index = draws["index"][defined].astype(np.int64)
    in_original = {
        "sensitivity": original.tp[index] / original.n_positive,
        "specificity": 1.0 - original.fp[index] / original.n_negative,
    }
    exact = sample.counts
    apparent = {"sensitivity": _sensitivity(exact), "specificity": _specificity(exact)}
    corrected = {}
    for name, rates in in_original.items():
        optimism = float(np.mean(draws[name][defined] - rates)) if defined.any() else 0.0
        shifted = np.clip(draws[name] - optimism, 0.0, 1.0)
        value = min(1.0, max(0.0, apparent[name] - optimism))
        corrected[name] = _estimate(value, shifted, sample, name == "sensitivity", level)
    return TwoRates(corrected["sensitivity"], corrected["specificity"])


def bootstrap_statistics() -> dict[str, Statistic]:
    """What the bootstrap of `optimism_corrected` computes of each draw."""
    return {"index": youden_index, "sensitivity": _sensitivity, "specificity": _specificity}


def _estimate(
    value: float, draws: Float64Array, sample: Sample, label: bool, level: float
) -> Estimate:
    """Percentile limits, or with few patients Wilson's on the variance of the bootstrap."""
    method = "bootstrap of patients, threshold chosen again each time, shifted by the optimism"
    smaller = min(sample.effective_patients(True), sample.effective_patients(False))
    percentile = percentile_estimate(
        value, draws, level, method, sample.label.size, sample.n_patients
    )
    if smaller >= ENOUGH_FOR_PERCENTILES or percentile.bounds is None:
        return percentile
    error = float(np.nanstd(draws, ddof=1))
    most, quantile = sample.effective_patients(label), t_quantile(level, degrees(smaller))
    low, high = score_limits(value, value, error, most, quantile)
    return replace(percentile, ci_low=low, ci_high=high, method=f"{method}, Wilson with t")


def _sensitivity(counts: Counts) -> float:
    return float(counts.tp[youden_index(counts)] / counts.n_positive)


def _specificity(counts: Counts) -> float:
    return 1.0 - float(counts.fp[youden_index(counts)] / counts.n_negative)

"""Optimism of a threshold that was chosen on the evaluated data, estimated by choosing it again in
every bootstrap replicate.
"""

from __future__ import annotations

import numpy as np

from medres.evaluate.metrics.thresholds import youden_index
from medres.evaluate.results import TwoRates
from medres.evaluate.scores.sample import Counts, Sample, rank_counts
from medres.evaluate.statistics.bootstrap import percentile_estimate, resampled


def optimism_corrected(sample: Sample, level: float, replicates: int) -> TwoRates:
    """Sensitivity and specificity at Youden's point minus the optimism (Harrell 1996); the interval
    is shifted by it (Noma 2021).

    The optimism is the mean over replicates of the rate at the replicate's own Youden point in the
    replicate, minus the rate at that same threshold in the original sample. Needs both classes.
    """
    original = rank_counts(sample.label, sample.score)
    draws = resampled(
        sample,
        {"index": youden_index, "sensitivity": _sensitivity, "specificity": _specificity},
        replicates,
    )
    defined = ~np.isnan(draws["index"])
    index = draws["index"][defined].astype(np.int64)
    in_original = {
        "sensitivity": original.tp[index] / original.n_positive,
        "specificity": 1.0 - original.fp[index] / original.n_negative,
    }
    best = youden_index(original)
    apparent = {
        "sensitivity": float(original.tp[best] / original.n_positive),
        "specificity": float(1.0 - original.fp[best] / original.n_negative),
    }
    corrected = {}
    for name, rates in in_original.items():
        optimism = float(np.mean(draws[name][defined] - rates)) if defined.any() else 0.0
        shifted = np.clip(draws[name] - optimism, 0.0, 1.0)
        value = min(1.0, max(0.0, apparent[name] - optimism))
        method = "bootstrap of patients, threshold chosen again each time, shifted by the optimism"
        corrected[name] = percentile_estimate(
            value, shifted, level, method, sample.label.size, sample.n_patients
        )
    return TwoRates(corrected["sensitivity"], corrected["specificity"])


def _sensitivity(counts: Counts) -> float:
    return float(counts.tp[youden_index(counts)] / counts.n_positive)


def _specificity(counts: Counts) -> float:
    return 1.0 - float(counts.fp[youden_index(counts)] / counts.n_negative)

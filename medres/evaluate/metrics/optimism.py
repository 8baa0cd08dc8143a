"""A threshold chosen on the data it is judged on: how much too good it looks, by choosing it anew
in every replicate.
"""

from __future__ import annotations

import numpy as np

from medres.evaluate.metrics.results import TwoRates
from medres.evaluate.scores.sample import Counts, Sample, rank_counts
from medres.evaluate.statistics.bootstrap import percentile_estimate, resampled


def optimism_corrected(sample: Sample, level: float, replicates: int) -> TwoRates:
    """Sensitivity and specificity at Youden's point less the optimism (Harrell 1996); interval
    shifted by it (Noma 2021).

    The optimism is the mean over replicates of: the rate at the replicate's own Youden point in the
    replicate, less the rate at that same threshold in the original sample. Needs both classes.
    """
    original = rank_counts(sample.label, sample.score)
    places = resampled(
        sample,
        {"place": _youden_place, "sensitivity": _sensitivity, "specificity": _specificity},
        replicates,
    )
    known = ~np.isnan(places["place"])
    place = places["place"][known].astype(np.int64)
    there = {
        "sensitivity": original.tp[place] / original.n_positive,
        "specificity": 1.0 - original.fp[place] / original.n_negative,
    }
    best = int(_youden_place(original))
    apparent = {
        "sensitivity": float(original.tp[best] / original.n_positive),
        "specificity": float(1.0 - original.fp[best] / original.n_negative),
    }
    corrected = {}
    for name, rates in there.items():
        optimism = float(np.mean(places[name][known] - rates)) if known.any() else 0.0
        draws = np.clip(places[name] - optimism, 0.0, 1.0)
        value = min(1.0, max(0.0, apparent[name] - optimism))
        method = "bootstrap of patients, threshold chosen anew, shifted by the optimism"
        corrected[name] = percentile_estimate(
            value, draws, level, method, sample.label.size, sample.n_patients
        )
    return TwoRates(corrected["sensitivity"], corrected["specificity"])


def _youden_place(counts: Counts) -> float:
    return float(np.argmax(counts.tp / counts.n_positive - counts.fp / counts.n_negative))


def _sensitivity(counts: Counts) -> float:
    return float(counts.tp[int(_youden_place(counts))] / counts.n_positive)


def _specificity(counts: Counts) -> float:
    return 1.0 - float(counts.fp[int(_youden_place(counts))] / counts.n_negative)

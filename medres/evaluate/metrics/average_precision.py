"""Average precision, stepwise (no interpolation), with an interval from the infinitesimal jackknife
by patient.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from medres.evaluate.scores.sample import Counts, Float64Array, Sample, compact_codes
from medres.evaluate.statistics.clusters import by_class_and_patient, clustered_variance
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import logit_interval


def precision_of(counts: Counts) -> Float64Array:
    """(k,) precision at each distinct score, from the highest down; 0 if (in a replicate) no unit
    is classified as positive.
    """
    return counts.tp / np.maximum(counts.tp + counts.fp, 1)


def average_precision(counts: Counts) -> float:
    """Sum of precision x step in recall (what scikit-learn computes). Needs one positive."""
    steps = np.diff(counts.tp, prepend=0) / counts.n_positive
    return float(np.sum(steps * precision_of(counts)))


def average_precision_estimate(sample: Sample, level: float) -> Estimate:
    """Interval on the logit scale; variance from the derivative of AP in each patient's weight; t
    on patients - 1, or if they have different numbers of units as in `clustered_variance`.
    """
    if sample.n_positive == 0:
        return undefined("no positive unit", n=sample.label.size)
    counts = sample.counts
    value = average_precision(counts)
    cluster, groups = compact_codes(sample.patient)
    estimate = partial(
        Estimate,
        value,
        level=level,
        n=sample.label.size,
        n_clusters=groups if sample.clustered else None,
    )
    if sample.n_negative == 0:
        return estimate(why="no negative unit: the value is 1 for any scores")
    if groups < 2 or sample.n_positive < 2:
        return estimate(why="an interval needs two patients and two positive units")
    influence = _influence(sample, counts, value)
    found = clustered_variance(*by_class_and_patient(sample.label, cluster, influence))
    estimate = partial(estimate, effective_patients=found.effective_patients, flag=found.flag)
    if found.variance is None:
        return estimate(why=found.why)
    error = math.sqrt(found.variance)
    if error < 1e-12 or not 0.0 < value < 1.0:
        return estimate(why="the estimated variance is zero: no interval of this kind")
    limits = logit_interval(value, error, found.quantile(level))
    return estimate(*limits, sided="two", method="infinitesimal jackknife, logit")


def _influence(sample: Sample, counts: Counts, value: float) -> Float64Array:
    """(n,) derivative of AP in the weight of each unit: its own step, and its part in the precision
    of those below.
    """
    predicted = (counts.tp + counts.fp).astype(np.float64)
    steps = np.diff(counts.tp, prepend=0) / counts.n_positive
    below_if_positive = np.cumsum((steps * counts.fp / predicted**2)[::-1])[::-1]
    below_if_negative = np.cumsum((-steps * counts.tp / predicted**2)[::-1])[::-1]
    index = np.searchsorted(-counts.threshold, -sample.score)
    own = (precision_of(counts)[index] - value) / counts.n_positive
    return np.where(sample.label, own + below_if_positive[index], below_if_negative[index])

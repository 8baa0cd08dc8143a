"""Exclusive classes: confusion matrix, accuracy, top-k accuracy, kappa, Hand & Till. The class with
the highest score is the predicted class.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from medres.evaluate.metrics.operating_point import OperatingPointContext, cross_table, rates
from medres.evaluate.metrics.roc import influence, placements
from medres.evaluate.results import ClassFigures, Multiclass
from medres.evaluate.scores.sample import Float64Array, Int64Array, Sample
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.clusters import t_quantile
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import (
    logit_interval,
    normal_quantile,
    proportion_estimate,
)

MANY_CLASSES = 50  # beyond, only some classes have a section of their own
N_DETAILED = 10
TOP_K = (1, 5)


def detailed_classes(units: AnalysisUnits) -> tuple[str, ...]:
    """The classes that get a section of their own: all of them; of more than MANY_CLASSES those
    with the lowest sensitivity among the classes that occur.
    """
    if len(units.names) <= MANY_CLASSES:
        return tuple(units.names)
    truth, scores = _truth_and_scores(units)
    right, k = np.argmax(scores, axis=0) == truth, len(units.names)
    size = np.bincount(truth, minlength=k)
    sensitivity = np.bincount(truth, right, minlength=k) / np.maximum(size, 1)
    order = np.argsort(np.where(size > 0, sensitivity, 2.0), kind="stable")[:N_DETAILED]
    return tuple(units.names[i] for i in sorted(order))


def _truth_and_scores(units: AnalysisUnits) -> tuple[Int64Array, Float64Array]:
    """The true class of each unit, as an index, and the scores (classes, units)."""
    use = units.usable(units.names[0])
    truth = np.argmax(np.stack([units.label[n][use] for n in units.names]), axis=0)
    return truth, np.stack([units.score[n][use] for n in units.names])


def top_k_accuracy(
    truth: Int64Array, scores: Float64Array, patient: Int64Array, k: int, level: float
) -> Estimate:
    """The share of units whose class is among the k classes with the highest scores. Of equal
    scores the class that is named first counts as higher, so that k = 1 is the accuracy.

    scores: (classes, units).
    """
    own = scores[truth, np.arange(truth.size)]
    earlier = np.arange(len(scores))[:, np.newaxis] < truth
    ahead = ((scores > own) | ((scores == own) & earlier)).sum(axis=0)
    return proportion_estimate(ahead < k, patient, level)


def multiclass_report(
    units: AnalysisUnits, level: float, ordinal: bool, case_control: bool
) -> Multiclass:
    """The figures of all classes together, and of each class against the rest."""
    use = units.usable(units.names[0])
    truth, scores = _truth_and_scores(units)
    predicted, patient, fold = np.argmax(scores, axis=0), units.patient[use], units.fold[use]
    k = len(units.names)
    confusion = np.bincount(truth * k + predicted, minlength=k * k).reshape(k, k)
    linear, square = np.zeros((k, k)), np.subtract.outer(np.arange(k), np.arange(k)) ** 2.0
    linear[~np.eye(k, dtype=bool)] = 1.0
    not_ordered = undefined(
        "the design does not state that the classes are ordered (ordinal: true)"
    )
    context = OperatingPointContext(level, case_control)
    return Multiclass(
        classes=list(units.names),
        confusion=confusion.tolist(),
        accuracy=proportion_estimate(truth == predicted, patient, level),
        balanced_accuracy=_balanced_accuracy(truth, predicted, patient, k, level),
        kappa=kappa(truth, predicted, patient, linear, level),
        quadratic_kappa=kappa(truth, predicted, patient, square, level) if ordinal else not_ordered,
        hand_till=hand_till(truth, scores, patient, fold, level)
        if k <= MANY_CLASSES
        else undefined(
            f"{k} classes make {k * (k - 1) // 2} pairs: it is computed for up to {MANY_CLASSES} "
            f"classes",
            n=truth.size,
        ),
        top_k={str(n): top_k_accuracy(truth, scores, patient, n, level) for n in TOP_K}
        if k > max(TOP_K)
        else None,
        detailed=list(detailed_classes(units)) if k > MANY_CLASSES else None,
        per_class=[
            ClassFigures(
                name,
                cross_table(truth == i, predicted == i),
                rates(Sample(truth == i, scores[i], patient, fold), predicted == i, context),
            )
            for i, name in enumerate(units.names)
        ],
    )


def kappa(
    truth: Int64Array,
    predicted: Int64Array,
    patient: Int64Array,
    disagreement: Float64Array,
    level: float,
) -> Estimate:
    """Cohen's kappa 1 - sum(w p) / sum(w p_row p_col) for weights w of disagreement (0 on the
    diagonal).
    """
    k, n = disagreement.shape[0], truth.size
    if n == 0:
        return undefined("no unit")
    table = np.bincount(truth * k + predicted, minlength=k * k).reshape(k, k) / n
    row, column = table.sum(axis=1), table.sum(axis=0)
    observed, expected = float((disagreement * table).sum()), float(row @ disagreement @ column)
    if expected == 0.0:
        return undefined(
            "all labels and predictions are of one class: kappa is undefined (0 / 0)", n=n
        )
    part = disagreement[truth, predicted] - observed
    chance = (disagreement @ column)[truth] + (row @ disagreement)[predicted] - 2.0 * expected
    derivative = -(part / expected - observed * chance / expected**2) / n
    return _wald(
        1.0 - observed / expected, derivative, patient, level, "delta method by patient", -1.0, 1.0
    )


def hand_till(
    truth: Int64Array, scores: Float64Array, patient: Int64Array, fold: Int64Array, level: float
) -> Estimate:
    """Hand & Till 2001: the mean over pairs of classes of the two AUCs that separate them."""
    k, groups, parts = scores.shape[0], int(patient.max(initial=0)) + 1, []
    for i in range(k):
        for j in range(k):
            if i == j:
                continue
            pair = (truth == i) | (truth == j)
            sample = Sample(truth[pair] == i, scores[i][pair], patient[pair], fold[pair])
            if sample.n_positive == 0 or sample.n_negative == 0:
                return undefined("a class has no unit", n=truth.size)
            parts.append(placements(sample, groups))
    value = float(np.mean([p.auc for p in parts]))
    try:
        by_patient = np.mean([influence(p) for p in parts], axis=0)
    except ValueError as error:
        return Estimate(value, why=str(error), n=truth.size)
    error_size = math.sqrt(float(by_patient @ by_patient))
    if error_size < 1e-12 or not 0.0 < value < 1.0:
        return Estimate(
            value, why="the estimated variance is zero: no interval of this kind", n=truth.size
        )
    limits = logit_interval(value, error_size, normal_quantile(level))
    return Estimate(value, *limits, level, "two", "joint influence by patient, logit", n=truth.size)


def _balanced_accuracy(
    truth: Int64Array, predicted: Int64Array, patient: Int64Array, k: int, level: float
) -> Estimate:
    size = np.bincount(truth, minlength=k)
    if (size == 0).any():
        return undefined("a class has no unit", n=truth.size)
    right = (truth == predicted).astype(np.float64)
    recall = np.bincount(truth, right, minlength=k) / size
    derivative = (right - recall[truth]) / size[truth] / k
    return _wald(
        float(recall.mean()), derivative, patient, level, "delta method by patient", 0.0, 1.0
    )


def _wald(
    value: float,
    derivative: Float64Array,
    patient: Int64Array,
    level: float,
    method: str,
    low: float,
    high: float,
) -> Estimate:
    _, cluster = np.unique(patient, return_inverse=True)
    groups = int(cluster.max()) + 1
    n_clusters = groups if groups < derivative.size else None
    estimate = partial(Estimate, value, n=derivative.size, n_clusters=n_clusters)
    by_patient = np.bincount(cluster, derivative)
    variance = groups / (groups - 1) * float(by_patient @ by_patient) if groups > 1 else 0.0
    if variance < 1e-24:
        return estimate(why="the estimated variance is zero: no interval of this kind")
    half = t_quantile(level, groups - 1) * math.sqrt(variance)
    return estimate(max(low, value - half), min(high, value + half), level, "two", f"{method}, t")

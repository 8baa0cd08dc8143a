"""The ROC curve, the AUC and its variance, from one sort of the scores.

A score equal to or above the threshold is positive. The direction is never flipped: an AUC below .5
stays below .5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.results import Curve
from medres.evaluate.scores.sample import (
    Counts,
    Float64Array,
    Int64Array,
    Sample,
    effective_number,
)
from medres.evaluate.statistics.clusters import degrees

MAX_CURVE_POINTS = 400


def auc_from_counts(counts: Counts) -> float:
    """Trapezoidal area = P(positive scores higher) + P(tie) / 2. Needs both classes.

    >>> from medres.evaluate.scores.sample import rank_counts
    >>> auc_from_counts(rank_counts(np.array([True, False, True]), np.array([0.9, 0.5, 0.5])))
    0.75
    """
    tp, step = counts.tp, np.diff(counts.fp, prepend=0)
    twice = int(np.sum(step[1:] * (tp[1:] + tp[:-1]))) + int(step[0]) * int(tp[0])
    return twice / 2 / counts.n_positive / counts.n_negative


@dataclass(frozen=True)
class Placements:
    """The AUC as a sum over patients.

    auc: the (weighted) estimate. positive, negative (g,): summed weighted deviations of a patient's
        placements, so that positive + negative is the patient's influence. n_clusters_positive,
        n_clusters_negative: patients with at least one unit of the class. n_clusters: patients with
        any unit. share_positive, share_negative (g,): a patient's share of the weight of the class.
    """

    auc: float
    positive: Float64Array
    negative: Float64Array
    n_clusters_positive: int
    n_clusters_negative: int
    n_clusters: int
    share_positive: Float64Array
    share_negative: Float64Array


def placements(
    sample: Sample, n_patients: int | None = None, *, patient_weighted: bool = False
) -> Placements:
    """DeLong's structural components summed by patient, in O(n log n) (ranks as in Sun & Xu 2014).

    `n_patients`: length of the patient axis (default: highest code + 1). `patient_weighted` gives
        every patient with units of a class the same weight in that class, however many units it
        holds. With several folds: the mean of the within-fold AUCs (LeDell, Petersen & van der Laan
        2015), over folds that hold both classes.
    Raises ValueError if no fold has both classes.
    """
    groups = int(sample.patient.max()) + 1 if n_patients is None else n_patients
    folds = (
        [sample.take(sample.fold == f) for f in np.unique(sample.fold)]
        if np.ptp(sample.fold)
        else [sample]
    )
    parts = [
        _placements(fold, groups, patient_weighted)
        for fold in folds
        if fold.n_positive and fold.n_negative
    ]
    if not parts:
        raise ValueError("no fold holds both classes")
    if len(parts) == 1:
        return parts[0]
    return Placements(
        float(np.mean([p.auc for p in parts])),
        np.mean([p.positive for p in parts], axis=0),
        np.mean([p.negative for p in parts], axis=0),
        sample.patients_with(True),
        sample.patients_with(False),
        sample.n_patients,
        np.mean([p.share_positive for p in parts], axis=0),
        np.mean([p.share_negative for p in parts], axis=0),
    )


def _placements(sample: Sample, groups: int, patient_weighted: bool) -> Placements:
    order = sample.ascending
    score, label, patient = sample.score[order], sample.label[order], sample.patient[order]
    tie = np.cumsum(np.append(False, score[1:] != score[:-1]))
    per_positive = by_group(patient, label, groups)
    per_negative = by_group(patient, ~label, groups)
    a = _weights(label, patient, per_positive, patient_weighted)
    b = _weights(~label, patient, per_negative, patient_weighted)
    total_a, total_b = float(a.sum()), float(b.sum())
    below_a, below_b = _midrank(tie, a) / total_a, _midrank(tie, b)
    auc = min(1.0, float(np.sum(a * below_b)) / total_a / total_b)
    below_b /= total_b
    return Placements(
        auc,
        by_group(patient, a * (below_b - auc) / total_a, groups),
        by_group(patient, b * (1.0 - below_a - auc) / total_b, groups),
        int(np.count_nonzero(per_positive)),
        int(np.count_nonzero(per_negative)),
        int(np.count_nonzero(per_positive + per_negative)),
        by_group(patient, a, groups) / total_a,
        by_group(patient, b, groups) / total_b,
    )


def auc_covariance(models: list[Placements]) -> Float64Array:
    """(k, k) covariance of k AUCs on the same units: Obuchowski 1997; with one unit per patient,
    DeLong 1988 exactly.

    Raises ValueError if either class has fewer than two patients: the variance is then undefined.
    """
    i10, i01, total = (
        models[0].n_clusters_positive,
        models[0].n_clusters_negative,
        models[0].n_clusters,
    )
    if i10 < 2 or i01 < 2:
        raise ValueError("the variance of an AUC needs two patients with each class")
    a = np.stack([m.positive for m in models])
    b = np.stack([m.negative for m in models])
    cross = a @ b.T
    return (
        i10 / (i10 - 1) * (a @ a.T)
        + i01 / (i01 - 1) * (b @ b.T)
        + total / (total - 1) * (cross + cross.T)
    )


def leverage_covariance(models: list[Placements]) -> Float64Array:
    """(k, k) covariance as `auc_covariance`, for patients with unequal numbers of units: a
    patient's squared part is divided by 1 - its share of the class (Bell & McCaffrey 2002), since
    the estimate is drawn toward a patient who dominates it. Equal to Obuchowski's if all shares of
    a class are equal.

    Raises ValueError if either class has fewer than two patients.
    """
    first = models[0]
    if first.n_clusters_positive < 2 or first.n_clusters_negative < 2:
        raise ValueError("the variance of an AUC needs two patients with each class")
    a = np.stack([m.positive for m in models])
    b = np.stack([m.negative for m in models])
    cross = a @ b.T
    a, b = a / np.sqrt(1.0 - first.share_positive), b / np.sqrt(1.0 - first.share_negative)
    return a @ a.T + b @ b.T + first.n_clusters / (first.n_clusters - 1) * (cross + cross.T)


def unequal_df(models: list[Placements]) -> float:
    """Satterthwaite's degrees of freedom (1946) of the `leverage_covariance` of an AUC, or of the
    difference of two on the same units.
    """
    return satterthwaite(class_parts(models))


def class_parts(models: list[Placements]) -> list[tuple[float, float]]:
    """The parts of a `leverage_covariance` from the patients of each class, with Kish's effective
    number of them - 1 degrees of freedom each.
    """
    first, parts = models[0], []
    for deviations, share in (
        ([m.positive for m in models], first.share_positive),
        ([m.negative for m in models], first.share_negative),
    ):
        deviation = deviations[0] - (deviations[1] if len(models) > 1 else 0.0)
        part = float(deviation @ (deviation / (1.0 - share)))
        parts.append((part, degrees(effective_number(share))))
    return parts


def satterthwaite(parts: list[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of variances with so many degrees each (Satterthwaite 1946).

    >>> satterthwaite([(1.0, 9.0), (1.0, 9.0)]), satterthwaite([(1.0, 9.0), (0.0, 1.0)])
    (18.0, 9.0)
    """
    spread = sum(part * part / df for part, df in parts)
    if spread <= 0.0:
        return min(df for _, df in parts)
    return sum(part for part, _ in parts) ** 2 / spread


def influence(model: Placements) -> Float64Array:
    """(g,) patients' parts of the AUC, scaled so that sums of products over patients are
    (co)variances.

    For AUCs on different units of the same patients: findings, subgroups, pairs of classes. Raises
    ValueError if a class has fewer than two patients.
    """
    i10, i01 = model.n_clusters_positive, model.n_clusters_negative
    if i10 < 2 or i01 < 2:
        raise ValueError("the variance of an AUC needs two patients with each class")
    return np.sqrt(i10 / (i10 - 1)) * model.positive + np.sqrt(i01 / (i01 - 1)) * model.negative


def disjoint_pairs(sample: Sample) -> int:
    """The largest number of disjoint pairs of one patient with a positive unit and another with a
    negative unit.
    """
    with_positive = set(np.unique(sample.patient[sample.label]).tolist())
    with_negative = set(np.unique(sample.patient[~sample.label]).tolist())
    return min(len(with_positive), len(with_negative), len(with_positive | with_negative) // 2)


def thin_curve(counts: Counts, most: int = MAX_CURVE_POINTS) -> Curve:
    """Cumulative counts at up to `most` thresholds, evenly spread along the ROC curve."""
    along = counts.tp / max(counts.n_positive, 1) + counts.fp / max(counts.n_negative, 1)
    keep = np.arange(along.size)
    if along.size > most:
        keep = np.unique(np.searchsorted(along, np.linspace(along[0], along[-1], most)))
    keep = np.minimum(keep, along.size - 1)
    return Curve(
        counts.threshold[keep].tolist(), counts.tp[keep].tolist(), counts.fp[keep].tolist()
    )


def by_group(code: Int64Array, value: NDArray[Any], groups: int) -> Float64Array:
    """(groups,) sums of `value` over equal codes."""
    return np.asarray(np.bincount(code, value, minlength=groups), dtype=np.float64)


def _weights(
    member: NDArray[np.bool_],
    patient: Int64Array,
    per_patient: Float64Array,
    patient_weighted: bool,
) -> Float64Array:
    """(n,) weights of the members of a class: 1 each, so that sums stay exact, or 1 / units of the
    patient.
    """
    if patient_weighted:
        return member / np.maximum(per_patient, 1.0)[patient]
    return member.astype(np.float64)


def _midrank(tie: Int64Array, weight: Float64Array) -> Float64Array:
    """For each unit (in rising order of score) the weight below its score plus half the weight at
    its score.
    """
    tied = np.bincount(tie, weight)
    return (np.cumsum(tied) - tied / 2.0)[tie]

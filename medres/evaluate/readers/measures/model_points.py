"""A stand-alone model at the specificity of each reader.

Exploratory: the threshold of the model is chosen on the cases of the study. Each bootstrap draw
chooses it anew, so its variance is in the interval.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medres.evaluate.readers.measures.resampling import drawn_weights
from medres.evaluate.readers.outcome import ModelAtReader
from medres.evaluate.readers.ratings import FloatArray, Ratings
from medres.evaluate.statistics.bootstrap import percentile_estimate
from medres.evaluate.statistics.estimate import Estimate

METHOD = "percentile bootstrap of patients; the model's threshold is chosen anew in each draw"


class _Point(NamedTuple):
    """By weights (W,): of a reader, and of the model at this specificity."""

    specificity: FloatArray
    sensitivity: FloatArray
    model: FloatArray


def model_at_readers(
    people: Ratings, model: Ratings, at: float, level: float
) -> list[ModelAtReader]:
    """For each modality every reader, then their mean. at: the rating from which readers are
    positive.
    """
    weights = np.vstack([np.ones(people.truth.size), drawn_weights(people)])
    curves = _curves(model, weights)
    found = []
    for i, modality in enumerate(people.modalities):
        points = {}
        for j, reader in enumerate(people.readers):
            if people.read[i, j].any():
                points[reader] = _point(people, i, j, at, weights, curves)
        for reader, point in points.items():
            found.append(_estimates(reader, modality, point, people, level))
        if len(points) > 1:
            mean = _Point(*(np.mean(part, axis=0) for part in zip(*points.values(), strict=True)))
            found.append(_estimates(None, modality, mean, people, level))
    return found


def _curves(model: Ratings, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """False-positive rate and sensitivity (W, k) of the model's ROC curves, from 0."""
    cell = model.cell(0, 0)
    order = np.argsort(-cell.rating, kind="stable")
    score = cell.rating[order]  # minus infinity for a case without marks
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    mass, truth = weights[:, cell.case[order]], cell.truth[order]
    rates = []
    for of_class in (~truth, truth):
        cumulative = np.cumsum(mass * of_class, axis=1)[:, ends]
        rates.append(np.pad(cumulative / cumulative[:, -1:], ((0, 0), (1, 0))))
    return rates[0], rates[1]


def _point(
    people: Ratings,
    i: int,
    j: int,
    at: float,
    weights: FloatArray,
    curves: tuple[FloatArray, FloatArray],
) -> _Point:
    cell = people.cell(i, j)
    mass, positive = weights[:, cell.case], cell.rating >= at
    fpr = (mass @ (positive & ~cell.truth)) / (mass @ ~cell.truth)
    tpr = (mass @ (positive & cell.truth)) / (mass @ cell.truth)
    model = np.array([np.interp(x, *curve) for x, *curve in zip(fpr, *curves, strict=True)])
    return _Point(1.0 - fpr, tpr, model)


def _estimates(
    reader: str | None, modality: str, point: _Point, people: Ratings, level: float
) -> ModelAtReader:
    n, patients = people.truth.size, np.unique(people.patient).size

    def estimate(values: FloatArray) -> Estimate:
        return percentile_estimate(float(values[0]), values[1:], level, METHOD, n, patients)

    return ModelAtReader(
        reader,
        modality,
        estimate(point.specificity),
        estimate(point.sensitivity),
        estimate(point.model),
        estimate(point.sensitivity - point.model),
    )

"""FROC of readers: the share of lesions that are marked against false marks per image.

Each lesion counts once, with the highest rating of its marks; every false mark counts. The curve is
a step curve: the sensitivity at a number of false marks is the highest that does not exceed it,
carried forward beyond the end of the curve. Readers are fixed; intervals are over patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medres.evaluate.readers.measures.resampling import (
    bca_estimate,
    drawn_weights,
    left_out_weights,
)
from medres.evaluate.readers.ratings import BoolArray, FloatArray, IntArray, Lesions, Ratings
from medres.evaluate.statistics.estimate import Estimate

FALSE_MARKS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class FrocCurve:
    """Corners of the step curve of one reader."""

    modality: str
    reader: str
    false_marks: list[float]
    sensitivity: list[float]


@dataclass(frozen=True)
class FrocValues:
    """Sensitivity at each of `Froc.fp_per_image`, and the mean of these. reader None: the mean over
    the readers. images: all, or lesion-free (false marks on non-diseased cases per such case).
    carried_forward: at which the curve of a reader had already ended.
    """

    modality: str
    reader: str | None
    images: str
    sensitivity: list[Estimate]
    froc_mean: Estimate
    carried_forward: list[bool]


@dataclass(frozen=True)
class FrocDifference:
    """Of froc_mean (all images), a - b; reader None: the mean over the readers."""

    a: str
    b: str
    reader: str | None
    difference: Estimate


@dataclass(frozen=True)
class Froc:
    """hit_rule: which mark hits a lesion."""

    hit_rule: str
    fp_per_image: list[float]
    curves: list[FrocCurve]
    values: list[FrocValues]
    differences: list[FrocDifference]


@dataclass(frozen=True)
class _Marks:
    """Marks of one reader from the highest rating down. case: (M,). lesion: (M,) whether it is the
    mark of a lesion. last: (M,) whether the next mark has another rating. n_lesions: (C,). read:
    (C,) bool.
    """

    case: IntArray
    lesion: FloatArray
    last: IntArray
    n_lesions: FloatArray
    read: FloatArray


@dataclass(frozen=True)
class _Replicated:
    """observed: (7,). draws: (replicates, 7). left_out: (patients, 7). ended: (7,)."""

    observed: FloatArray
    draws: FloatArray
    left_out: FloatArray
    ended: BoolArray


def froc(
    ratings: Ratings, lesions: Lesions, pairs: tuple[tuple[int, int], ...], level: float
) -> Froc:
    """Of every reader and modality. pairs: of modalities to compare."""
    weights = np.ones((1, ratings.truth.size)), drawn_weights(ratings), left_out_weights(ratings)
    curves, values = [], []
    means: dict[int, list[tuple[int, _Replicated]]] = {}
    for images, counted in (("all", np.ones(ratings.truth.size)), ("lesion-free", ~ratings.truth)):
        for i, modality in enumerate(ratings.modalities):
            cells = []
            for j in np.flatnonzero(ratings.read[i].any(axis=1)):
                marks = _marks(ratings, lesions, i, int(j))
                parts = [_sensitivities(marks, w, np.asarray(counted, float)) for w in weights]
                (observed, ended), (draws, _), (left_out, _) = parts
                cell = _Replicated(observed[0], draws, left_out, ended[0])
                cells.append((int(j), cell))
                if images == "all":
                    curves.append(_curve(marks, modality, ratings.readers[j]))
                values.append(_values(modality, ratings.readers[j], images, cell, ratings, level))
            if len(cells) > 1:
                values.append(
                    _values(modality, None, images, _mean([c for _, c in cells]), ratings, level)
                )
            if images == "all":
                means[i] = cells
    return Froc(
        lesions.hit_rule,
        list(FALSE_MARKS),
        curves,
        values,
        _differences(ratings, means, pairs, level),
    )


def _marks(ratings: Ratings, lesions: Lesions, i: int, j: int) -> _Marks:
    read = ratings.read[i, j]
    false = lesions.all_false
    own = (false.modality == i) & (false.reader == j)
    hit = np.flatnonzero(np.isfinite(lesions.rating[i, j]) & read[lesions.case])
    rating = np.concatenate([lesions.rating[i, j, hit], false.rating[own]])
    case = np.concatenate([lesions.case[hit], false.case[own]])
    order = np.argsort(-rating, kind="stable")
    last = np.flatnonzero(np.append(np.diff(rating[order]) != 0, True)[: rating.size])
    n_lesions = np.bincount(lesions.case, minlength=read.size) * read
    return _Marks(
        case[order],
        (order < hit.size).astype(float),
        last,
        n_lesions.astype(float),
        read.astype(float),
    )


def _sensitivities(
    marks: _Marks, weights: FloatArray, counted: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """(W, 7) sensitivities and whether the curve had ended, by weights (W, C) of the cases.

    counted: (C,) 1 where false marks and images count.
    """
    x, y = _steps(marks, weights, counted)
    wanted = np.array(FALSE_MARKS)
    at = (x[:, None, :] <= wanted[:, None] + 1e-12).sum(axis=2) - 1
    return np.take_along_axis(y, at, axis=1), wanted > x[:, -1:]


def _steps(
    marks: _Marks, weights: FloatArray, counted: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """False marks per image and sensitivity (W, k + 1), which ascend from 0."""
    of_mark = weights[:, marks.case]
    images = np.maximum(weights @ (marks.read * counted), 1e-300)[:, None]
    total = np.maximum(weights @ marks.n_lesions, 1e-300)[:, None]
    false = np.cumsum(of_mark * ((1 - marks.lesion) * counted[marks.case]), axis=1)
    true = np.cumsum(of_mark * marks.lesion, axis=1)
    x, y = false[:, marks.last] / images, true[:, marks.last] / total
    return np.pad(x, ((0, 0), (1, 0))), np.pad(y, ((0, 0), (1, 0)))


def _curve(marks: _Marks, modality: str, reader: str) -> FrocCurve:
    every = np.ones((1, marks.read.size))
    x, y = _steps(marks, every, every[0])
    return FrocCurve(modality, reader, x[0].tolist(), y[0].tolist())


def _mean(cells: list[_Replicated]) -> _Replicated:
    return _Replicated(
        np.mean([cell.observed for cell in cells], axis=0),
        np.mean([cell.draws for cell in cells], axis=0),
        np.mean([cell.left_out for cell in cells], axis=0),
        np.any([cell.ended for cell in cells], axis=0),
    )


def _values(
    modality: str,
    reader: str | None,
    images: str,
    cell: _Replicated,
    ratings: Ratings,
    level: float,
) -> FrocValues:
    n = ratings.truth.size
    each = [
        bca_estimate(float(value), draws, left_out, level, n)
        for value, draws, left_out in zip(cell.observed, cell.draws.T, cell.left_out.T, strict=True)
    ]
    mean = bca_estimate(
        float(cell.observed.mean()), cell.draws.mean(axis=1), cell.left_out.mean(axis=1), level, n
    )
    return FrocValues(modality, reader, images, each, mean, [bool(end) for end in cell.ended])


def _differences(
    ratings: Ratings,
    cells: dict[int, list[tuple[int, _Replicated]]],
    pairs: tuple[tuple[int, int], ...],
    level: float,
) -> list[FrocDifference]:
    found = []
    for a, b in pairs:
        of_a, of_b = dict(cells[a]), dict(cells[b])
        names = ratings.modalities[a], ratings.modalities[b]
        both = sorted(of_a.keys() & of_b.keys())
        parts: list[tuple[str | None, _Replicated, _Replicated]] = [
            (ratings.readers[j], of_a[j], of_b[j]) for j in both
        ]
        if len(of_a) > 1 and len(of_b) > 1:
            parts.append((None, _mean(list(of_a.values())), _mean(list(of_b.values()))))
        for reader, x, y in parts:
            estimate = bca_estimate(
                float(x.observed.mean() - y.observed.mean()),
                x.draws.mean(axis=1) - y.draws.mean(axis=1),
                x.left_out.mean(axis=1) - y.left_out.mean(axis=1),
                level,
                ratings.truth.size,
            )
            found.append(FrocDifference(*names, reader, estimate))
    return found

"""How much readers agree with each other within a modality, whatever the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from medres.evaluate.readers.figures import Figure, RateFigure
from medres.evaluate.readers.measures.correlation import icc_agreement, icc_consistency
from medres.evaluate.readers.measures.kappa import (
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    linear,
    quadratic,
    unweighted,
)
from medres.evaluate.readers.ratings import BoolArray, FloatArray, IntArray, Ratings
from medres.evaluate.serialization import ABSENT
from medres.evaluate.statistics.estimate import Estimate, undefined

MAX_CATEGORIES = 20
METHOD = "influence of each case (delta method), t over cases"
CLUSTERED = "influence of each case (delta method) summed within patients, t over patients"
MARKS = "a case without marks has no number, so its rating cannot enter a correlation"


@dataclass(frozen=True)
class PairAgreement:
    """Two readers on the cases that both read. weighted_*: by the distance of the categories in
    their order, and by its square.
    """

    modality: str
    a: str
    b: str
    kappa: Estimate
    weighted_linear: Estimate
    weighted_quadratic: Estimate
    ac1: Estimate


@dataclass(frozen=True)
class ModalityAgreement:
    """All readers of a modality on the cases that all of them read. icc_2_1: absolute agreement,
    readers random; icc_3_1: consistency of these readers.
    """

    modality: str
    readers: int
    fleiss: Estimate
    ac1: Estimate
    icc_2_1: Estimate
    icc_3_1: Estimate


@dataclass(frozen=True)
class Agreement:
    """categories: of the scale, in their order; None if the ratings have too many values for
    kappa. positive_at: ratings were first split at this value, because the figure is a rate at it.
    """

    categories: int | None
    modalities: list[ModalityAgreement]
    pairs: list[PairAgreement]
    positive_at: float | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class _Scale:
    """codes: (modalities, readers, cases) number of the category, -1 where not read. too_many: why
    there are no categories, or None.
    """

    codes: IntArray
    categories: int
    too_many: str | None


def agreement(ratings: Ratings, figure: Figure, level: float) -> Agreement | None:
    """Between the readers of each modality; None if no modality has two readers."""
    took_part: BoolArray = np.any(ratings.read, axis=2)
    readers_of = [np.flatnonzero(took_part[i]) for i in range(len(took_part))]
    if max(at.size for at in readers_of) < 2:
        return None
    split = figure.at if isinstance(figure, RateFigure) else None
    values = ratings.rating
    if split is not None:
        values = np.where(ratings.read, (values >= split).astype(float), np.nan)
    scale = _scale(values)
    found = Agreement(None if scale.too_many else scale.categories, [], [], split)
    for i, modality in enumerate(ratings.modalities):
        at = readers_of[i]
        if at.size < 2:
            continue
        found.modalities.append(_of_all(ratings, values, scale, i, at, level))
        for a, b in combinations(at, 2):
            common = ratings.read[i, [a, b]].all(axis=0)
            names = modality, ratings.readers[a], ratings.readers[b]
            codes, patient = scale.codes[i, [a, b]][:, common], ratings.patient[common]
            found.pairs.append(PairAgreement(*names, *_of_pair(codes, scale, patient, level)))
    return found


def _scale(values: FloatArray) -> _Scale:
    read = ~np.isnan(values)
    levels = np.unique(values[read])
    codes = np.full(values.shape, -1)
    codes[read] = np.searchsorted(levels, values[read])
    why = None
    if levels.size > MAX_CATEGORIES:
        why = (
            f"the ratings have {levels.size} different values, and kappa needs categories (at "
            f"most {MAX_CATEGORIES}): choose a figure such as sensitivity@R, which splits them"
        )
    return _Scale(codes, max(int(levels.size), 2), why)


def _of_pair(
    codes: IntArray, scale: _Scale, patient: IntArray, level: float
) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    if scale.too_many:
        none = undefined(scale.too_many, n=codes.shape[1])
        return none, none, none, none
    q, method = scale.categories, _method(patient)
    plain, by_distance, by_square = (
        cohen_kappa(codes, weights(q), patient, level, method)
        for weights in (unweighted, linear, quadratic)
    )
    return plain, by_distance, by_square, gwet_ac1(codes, q, patient, level, method)


def _of_all(
    ratings: Ratings, values: FloatArray, scale: _Scale, i: int, at: IntArray, level: float
) -> ModalityAgreement:
    common = ratings.read[i, at].all(axis=0)
    patient, part = ratings.patient[common], values[i, at][:, common]
    codes, method = scale.codes[i, at][:, common], _method(patient)
    if scale.too_many:
        fleiss = ac1 = undefined(scale.too_many, n=part.shape[1])
    else:
        fleiss = fleiss_kappa(codes, scale.categories, patient, level, method)
        ac1 = gwet_ac1(codes, scale.categories, patient, level, method)
    if np.isfinite(part).all():
        absolute = icc_agreement(part, patient, level)
        consistency = icc_consistency(part, patient, level)
    else:
        absolute = consistency = undefined(MARKS, n=part.shape[1])
    return ModalityAgreement(
        ratings.modalities[i], int(at.size), fleiss, ac1, absolute, consistency
    )


def _method(patient: IntArray) -> str:
    return METHOD if np.unique(patient).size == patient.size else CLUSTERED

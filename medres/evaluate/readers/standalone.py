"""A model that stands in the readers table as one more reader, against the human readers.

The analysis is that of one modality (Hillis 2007, section 5.3) on the differences reader minus
model, whose covariances include the model's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.readers.analysis import ANALYSES
from medres.evaluate.readers.figures import Figure
from medres.evaluate.readers.outcome import ModalityContrast, StandaloneModel, StandaloneReader
from medres.evaluate.readers.ratings import FalseMarks, FloatArray, Ratings
from medres.evaluate.readers.variances.covariances import figure_covariance, figure_values
from medres.evaluate.readers.variances.inference import (
    Scale,
    contrast,
    interval,
    two_sided_p,
    with_holm,
)
from medres.evaluate.readers.variances.obuchowski_rockette import (
    Scatter,
    mean_scatter,
    standard_error,
)


def split_off(ratings: Ratings, name: str) -> tuple[Ratings, Ratings]:
    """The study of the human readers, and that of the model (one modality, one reader).

    Raises EvaluationError. Codes: unknown_reader, standalone_differs, one_reader.
    """
    if name not in ratings.readers:
        raise EvaluationError(
            f"the readers table has no reader {name!r} to take as the model; it has "
            f"{', '.join(ratings.readers)}",
            code="unknown_reader",
        )
    at = ratings.readers.index(name)
    people = [i for i in range(len(ratings.readers)) if i != at]
    if not people:
        raise EvaluationError(
            f"the readers table has no reader besides the model {name!r}", code="one_reader"
        )
    read = np.any(ratings.read, axis=2)
    of_model = np.flatnonzero(read[:, at])
    model = ratings.select(modalities=[int(of_model[0])], readers=[at])
    for other in of_model[1:]:
        if not _same(model, ratings.select(modalities=[int(other)], readers=[at])):
            raise EvaluationError(
                f"the model {name!r} has other ratings in other modalities: a stand-alone model "
                "has one rating for each case",
                code="standalone_differs",
            )
    of_people = [int(i) for i in np.flatnonzero(read[:, people].any(axis=1))]
    return ratings.select(modalities=of_people, readers=people), model


def compare_standalone(
    people: Ratings,
    model: Ratings,
    figure: Figure,
    *,
    analysis: str,
    covariance: str,
    level: float,
    margin: float | None,
) -> StandaloneModel:
    """The model against each reader and against their mean, in each modality."""
    scale = Scale(
        level,
        len(people.cases),
        f"single-modality test on reader minus model; {ANALYSES[analysis]}",
    )
    contrasts: list[ModalityContrast] = []
    per_reader: list[StandaloneReader] = []
    name = model.readers[0]
    for i, modality in enumerate(people.modalities):
        joint = _joined(people.select(modalities=[i]), model)
        sigma = figure_covariance(covariance, figure, joint)
        difference, of_difference = _minus_last(figure_values(figure, joint)[0], sigma)
        scatter = mean_scatter(analysis, difference, of_difference)
        value = float(difference.mean())
        contrasts.append(
            contrast(
                (modality, name), value, scatter, scale, margin=margin, first_is_reference=True
            )
        )
        per_reader += _per_reader(people.readers, modality, difference, of_difference, scale)
    variance = float(figure_covariance(covariance, figure, model)[0, 0])
    own = replace(scale, method="normal, over cases")
    estimate = interval(
        float(figure_values(figure, model)[0, 0]), _normal(variance), own, bounded=True
    )
    return StandaloneModel(name, estimate, with_holm(contrasts), per_reader)


def _per_reader(
    readers: tuple[str, ...],
    modality: str,
    difference: FloatArray,
    covariance: FloatArray,
    scale: Scale,
) -> list[StandaloneReader]:
    fixed = replace(scale, method="normal, over cases; one reader")
    found = []
    for value, variance, reader in zip(difference, np.diag(covariance), readers, strict=True):
        scatter = _normal(float(variance))
        estimate = interval(float(value), scatter, fixed)
        found.append(StandaloneReader(reader, modality, estimate, two_sided_p(value, scatter)))
    return found


def _normal(variance: float) -> Scatter:
    return Scatter(standard_error(variance), None)


def _minus_last(values: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Differences from the last value, and their covariance."""
    r = values.size - 1
    change = np.hstack([np.eye(r), -np.ones((r, 1))])
    return change @ values, change @ sigma @ change.T


def _same(a: Ratings, b: Ratings) -> bool:
    same = np.array_equal(a.rating, b.rating, equal_nan=True)
    if a.lesions is None or b.lesions is None:
        return same
    return (
        same
        and np.array_equal(a.lesions.rating, b.lesions.rating)
        and np.array_equal(a.lesions.false_mark, b.lesions.false_mark)
    )


def _joined(people: Ratings, model: Ratings) -> Ratings:
    """One modality with the model as the last reader."""

    def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a, b], axis=1)

    lesions = people.lesions
    if lesions is not None and model.lesions is not None:
        lesions = replace(
            lesions,
            rating=both(lesions.rating, model.lesions.rating),
            false_mark=both(lesions.false_mark, model.lesions.false_mark),
            n_marks=both(lesions.n_marks, model.lesions.n_marks),
            all_false=_both_false(lesions.all_false, model.lesions.all_false, len(people.readers)),
        )
    return replace(
        people,
        readers=(*people.readers, *model.readers),
        rating=both(people.rating, model.rating),
        lesions=lesions,
        readings=None,
    )


def _both_false(people: FalseMarks, model: FalseMarks, number: int) -> FalseMarks:
    """number: of the model among the readers."""
    return FalseMarks(
        np.concatenate([people.modality, model.modality]),
        np.concatenate([people.reader, np.full(model.reader.size, number)]),
        np.concatenate([people.case, model.case]),
        np.concatenate([people.rating, model.rating]),
    )

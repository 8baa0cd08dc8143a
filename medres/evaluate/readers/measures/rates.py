"""Sensitivity and specificity of the readers at a rating, and of a stand-alone model at its own
threshold.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medres.evaluate.readers.analysis import Analysis
from medres.evaluate.readers.figures import Figure, RateFigure
from medres.evaluate.readers.options import StudyOptions, pairs_of
from medres.evaluate.readers.outcome import RateComparison
from medres.evaluate.readers.ratings import Ratings
from medres.evaluate.readers.standalone import compare_standalone
from medres.evaluate.readers.variances.covariances import figure_covariance, figure_values

COVARIANCE = "jackknife"


def positive_rating(ratings: Ratings, figure: Figure, stated: float | None) -> float | None:
    """From which a reader is positive: as stated, else that of the figure, else 1 for ratings that
    are 0 or 1.
    """
    if stated is not None:
        return stated
    if isinstance(figure, RateFigure):
        return figure.at
    return 1.0 if np.isin(ratings.rating[ratings.read], (0.0, 1.0)).all() else None


def model_threshold(model: Ratings, figure: Figure, stated: float | None) -> float | None:
    """The same of a stand-alone model. A figure such as sensitivity@R holds for the model too if
    nothing else was stated.
    """
    return positive_rating(model, figure, stated)


def decided(model: Ratings, threshold: float, at: float) -> Ratings:
    """The model's decisions on the scale of the readers: `at` if positive, else below all."""
    positive = np.where(model.rating >= threshold, at, -np.inf)
    return replace(model, rating=np.where(model.read, positive, np.nan))


def compare_rates(
    people: Ratings, model: Ratings | None, figure: Figure, options: StudyOptions, at: float
) -> list[RateComparison]:
    """Sensitivity, then specificity. A margin holds only for the one that is the study's figure."""
    threshold = None if model is None else model_threshold(model, figure, options.threshold)
    found = []
    for diseased, kind in ((True, "sensitivity"), (False, "specificity")):
        rate = RateFigure(f"{kind}@{at:g}", diseased, at)
        margin = options.margin if rate == figure else None
        result = Analysis(
            people,
            figure_values(rate, people),
            figure_covariance(COVARIANCE, rate, people),
            options.analysis,
            options.level,
            pairs_of(people, options.pair),
            margin,
        )
        alone = None
        if model is not None and threshold is not None:
            alone = compare_standalone(
                people,
                decided(model, threshold, at),
                rate,
                analysis=options.analysis,
                covariance=COVARIANCE,
                level=options.level,
                margin=margin,
            )
        found.append(
            RateComparison(
                rate.name,
                at,
                result.reader_values(),
                result.modality_means(),
                result.contrasts(),
                result.reader_contrasts(),
                threshold,
                alone,
            )
        )
    return found

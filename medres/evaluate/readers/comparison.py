"""The modalities of a study compared by Obuchowski-Rockette or by U-statistics."""

from __future__ import annotations

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.readers.analysis import Analysis, design_of
from medres.evaluate.readers.figures import Figure, PairFigure, RateFigure
from medres.evaluate.readers.options import StudyOptions, check_no_empty, pairs_of
from medres.evaluate.readers.outcome import ReaderStudy, StudyCounts
from medres.evaluate.readers.ratings import Ratings
from medres.evaluate.readers.standalone import compare_standalone
from medres.evaluate.readers.variances.covariances import (
    choose_covariance,
    figure_covariance,
    figure_values,
)
from medres.evaluate.readers.variances.obuchowski_rockette import variance_shares
from medres.evaluate.readers.variances.sizing import Plan, SampleSizes, sample_sizes
from medres.evaluate.readers.variances.ustatistics import ustatistics

MIN_READERS = 2  # for a variance between readers
PILOT_MODALITIES = 2
FEW_READERS = 5  # below it, simulated tests of random readers reject too often


def compare(
    people: Ratings, model: Ratings | None, figure: Figure, options: StudyOptions
) -> ReaderStudy:
    """The main analysis, without what stands beside it.

    Raises EvaluationError. Codes: missing_cells, not_for_ustat, one_reader, no_sample_size, and
    those of `choose_covariance`.
    """
    if options.method == "ustat":
        return _by_ustatistics(people, model, figure, options)
    return _by_variance_analysis(people, model, figure, options)


def _by_variance_analysis(
    people: Ratings, model: Ratings | None, figure: Figure, options: StudyOptions
) -> ReaderStudy:
    """Obuchowski-Rockette."""
    check_no_empty(people)
    chosen = choose_covariance(options.covariance, figure, people, model)
    pairs = pairs_of(people, options.pair)
    result = Analysis(
        people,
        figure_values(figure, people),
        figure_covariance(chosen, figure, people),
        options.analysis,
        options.level,
        pairs,
        options.margin,
    )
    alone = None
    if model is not None:
        alone = compare_standalone(
            people,
            model,
            figure,
            analysis=options.analysis,
            covariance=chosen,
            level=options.level,
            margin=options.margin,
        )
    n = _counts(people)
    several = n.readers > 1 and n.modalities > 1
    return ReaderStudy(
        figure=figure.name,
        analysis=options.analysis,
        covariance=chosen,
        method="or",
        design=design_of(people),
        n=n,
        values=result.reader_values(),
        modalities=result.modality_means(),
        contrasts=result.contrasts(),
        overall=result.overall(),
        per_reader=result.reader_contrasts(),
        components=result.components,
        variance_shares=variance_shares(result.components, n.readers) if several else None,
        standalone=alone,
        sample_size=_sizes(result, n, options),
        notes=_notes(people, figure, result),
    )


def _by_ustatistics(
    people: Ratings, model: Ratings | None, figure: Figure, options: StudyOptions
) -> ReaderStudy:
    """Gallas. Raises EvaluationError (not_for_ustat, one_reader)."""
    reason = _why_not_ustat(figure, model, options)
    if reason or not isinstance(figure, PairFigure):
        raise EvaluationError(
            f"the method 'ustat' cannot be used: {reason}; choose the method 'or'",
            code="not_for_ustat",
        )
    if options.effect is not None:
        raise _no_sample_size()
    choose_covariance("unbiased", figure, people)
    n_readers = np.any(people.read, axis=2).sum(axis=1)
    if (n_readers < MIN_READERS).any():
        alone = people.modalities[int(np.argmin(n_readers))]
        raise EvaluationError(
            f"modality {alone!r} was read by one reader, and random readers need two",
            code="one_reader",
        )
    pairs = pairs_of(people, options.pair)
    values, sigma = figure_values(figure, people), figure_covariance("unbiased", figure, people)
    single = Analysis(people, values, sigma, options.analysis, options.level, pairs, options.margin)
    result = ustatistics(figure, people, options.level, options.margin)
    return ReaderStudy(
        figure=figure.name,
        analysis=options.analysis,
        covariance="unbiased",
        method="ustat",
        design=design_of(people),
        n=_counts(people),
        values=single.reader_values(),
        modalities=result.modality_means(),
        contrasts=result.contrasts(pairs),
        per_reader=single.reader_contrasts(),
        components=None,
        notes=_notes(people, figure, None),
    )


def _why_not_ustat(figure: Figure, model: Ratings | None, options: StudyOptions) -> str | None:
    if not figure.u_statistic:
        return f"the figure {figure.name!r} is no mean over pairs of cases"
    if options.analysis != "rrrc":
        return f"the analysis {options.analysis!r} is of the other method"
    if options.covariance not in (None, "unbiased"):
        return f"the covariance {options.covariance!r} is of the other method"
    if model is not None:
        return "a stand-alone model is compared by the other method"
    if options.positive is not None:
        return "sensitivity and specificity are compared by the other method"
    return None


def _sizes(result: Analysis, n: StudyCounts, options: StudyOptions) -> SampleSizes | None:
    if options.effect is None:
        return None
    if not result.ratings.crossed or n.modalities != PILOT_MODALITIES or n.readers < MIN_READERS:
        raise _no_sample_size()
    plan = Plan(result.components, n.cases, options.effect, options.analysis, options.level)
    return sample_sizes(plan)


def _no_sample_size() -> EvaluationError:
    return EvaluationError(
        "sample sizes need a crossed study with two modalities and at least two readers, analyzed "
        "by the method 'or'",
        code="no_sample_size",
    )


def _counts(ratings: Ratings) -> StudyCounts:
    diseased = int(ratings.truth.sum())
    return StudyCounts(
        readers=len(ratings.readers),
        modalities=len(ratings.modalities),
        cases=len(ratings.cases),
        diseased=diseased,
        nondiseased=len(ratings.cases) - diseased,
        patients=int(np.unique(ratings.patient).size),
        readings=int(ratings.read.sum()),
        lesions=None if ratings.lesions is None else int(ratings.lesions.case.size),
    )


def _notes(ratings: Ratings, figure: Figure, result: Analysis | None) -> list[str]:
    notes = list(ratings.notes)
    several = result is not None and len(ratings.modalities) > 1
    if result is not None and several and result.name != "rrfc" and result.components.bounded:
        notes.append("Cov2 is smaller than Cov3, and their difference counts as zero")
    if result is not None and result.name == "rrrc" and len(ratings.readers) < FEW_READERS:
        notes.append(
            f"with fewer than {FEW_READERS} readers the test of random readers and cases can "
            "reject too often: in simulations with three readers up to 8 % in place of 5 % "
            "(benchmarks/RESULTS.md)"
        )
    if not ratings.crossed:
        missing = int((~ratings.read).sum())
        notes.append(
            f"the study is not crossed: {missing} readings did not take place; each value is over "
            "the cases that the reader read, and covariances are over common cases"
        )
    if ratings.clustered:
        notes.append("some patients have several cases; whole patients are left out at a time")
    if isinstance(figure, RateFigure):
        notes.append("positive is a rating equal to or above the one in the figure's name")
    return notes

"""The analysis of a reader study from its tables, and its report on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from medres.evaluate.analyses.provenance import made_now
from medres.evaluate.readers.comparison import compare
from medres.evaluate.readers.figures import Figure, RateFigure, default_figure, make_figure
from medres.evaluate.readers.measures.agreement import agreement
from medres.evaluate.readers.measures.froc import Froc, froc
from medres.evaluate.readers.measures.model_points import model_at_readers
from medres.evaluate.readers.measures.rates import (
    compare_rates,
    decided,
    model_threshold,
    positive_rating,
)
from medres.evaluate.readers.measures.reading_time import confounded_blocks, reading_times
from medres.evaluate.readers.measures.roc_curves import ReaderCurve, roc_curves
from medres.evaluate.readers.options import StudyOptions, check_study, pairs_of
from medres.evaluate.readers.outcome import ReaderStudy, ReaderStudyResult
from medres.evaluate.readers.ratings import Lesions, Ratings
from medres.evaluate.readers.reporting.methods import study_methods
from medres.evaluate.readers.reporting.page import study_page, study_tables
from medres.evaluate.readers.standalone import split_off
from medres.evaluate.readers.table import Source, load_ratings, source_of
from medres.evaluate.reporting.csv_tables import Row
from medres.evaluate.reporting.saved_report import SavedReport


@dataclass(frozen=True)
class ReaderStudyReport(SavedReport):
    """All results of a reader study. report: typed objects, see medres.evaluate.readers.outcome."""

    report: ReaderStudyResult

    def __repr__(self) -> str:
        study = self.report.reader_study
        return (
            f"ReaderStudyReport({self.report.title!r}, {study.figure}, {study.n.readers} readers, "
            f"{study.n.modalities} modalities, {study.n.cases} cases)"
        )

    def to_html(self) -> str:
        """The self-contained page."""
        return study_page(self.report)

    def _tables(self) -> dict[str, list[Row]]:
        return study_tables(self.report.reader_study)


def reader_study(
    readers: Source,
    *,
    lesions: Source | None = None,
    figure: str | None = None,
    analysis: str = "rrrc",
    covariance: str | None = None,
    method: str = "or",
    pair: tuple[str, str] | None = None,
    margin: float | None = None,
    standalone: str | None = None,
    positive: float | None = None,
    threshold: float | None = None,
    effect: float | None = None,
    finding: str | None = None,
    level: float = 0.95,
    title: str | None = None,
) -> ReaderStudyReport:
    """Compare modalities (such as without and with a model) by what several readers say about the
    same cases: Obuchowski-Rockette with the degrees of freedom of Hillis.

    readers: a table, or its path: `reader`, `modality`, `case`, `truth` (0 or 1), `rating` (higher
    for more suspicion); with a column `lesion` one row for each mark; `time_s` (seconds of the
    reading) and `block` (session) if wanted. lesions: the true lesions (`case`, `lesion`, and
    `weight` if wanted). figure: auc, pauc, sensitivity@R, specificity@R, and with lesions wafroc,
    afroc, hrauc, lroc, pcl@F, alroc@F; default auc, or wafroc with lesions. analysis:
    rrrc (readers and cases random), frrc (fixed readers) or rrfc (fixed cases). covariance: delong,
    jackknife or unbiased; default delong for the AUC of a crossed study, else jackknife. method: or
    (Obuchowski-Rockette), or ustat (U-statistics, for any design, also where readers read in one
    modality only; the AUC and other means over pairs of cases, rrrc). pair: the two modalities to
    compare, as a - b; default all pairs. margin: of non-inferiority and equivalence, in the figure;
    state it before you see the data. standalone: the reader in the table that is a model, which is
    compared with the others. positive: the rating from which a reader calls a case positive;
    sensitivity and specificity are then compared too (default: that of a figure sensitivity@R, or 1
    if all ratings are 0 or 1). threshold: the same of the stand-alone model, frozen before. effect:
    a difference that matters, for which the readers and cases of a further study are computed
    (crossed, two modalities, method or). finding: which value of a column `finding` to analyze.
    level: of confidence.

    Raises EvaluationError; its codes are those of `load_ratings`, `StudyOptions`, `make_figure`,
    `choose_covariance` and `split_off`, and one_reader, one_modality, missing_cells,
    unknown_modality, not_for_ustat, no_sample_size.
    """
    options = StudyOptions(
        figure=figure,
        analysis=analysis,
        covariance=covariance,
        method=method,
        pair=pair,
        margin=margin,
        standalone=standalone,
        positive=positive,
        threshold=threshold,
        effect=effect,
        level=level,
    )
    ratings = load_ratings(readers, lesions, finding=finding)
    study = analyze(ratings, options)
    return ReaderStudyReport(
        ReaderStudyResult(
            title=title or "Reader study",
            reader_study=study,
            provenance=_provenance(readers, lesions, level),
            methods=study_methods(study, level, margin),
        )
    )


def analyze(ratings: Ratings, options: StudyOptions) -> ReaderStudy:
    """The main analysis and everything beside it, of ratings that were read."""
    merit = make_figure(options.figure or default_figure(ratings), ratings)
    people, model = ratings, None
    if options.standalone is not None:
        people, model = split_off(ratings, options.standalone)
    check_study(people, options.analysis, alone=model is not None)
    at = positive_rating(people, merit, options.positive)
    study = compare(people, _on_the_scale(model, merit, options), merit, options)
    rates = alone = None
    if at is not None and options.method == "or":
        rates = compare_rates(people, model, merit, options, at)
        alone = None if model is None else model_at_readers(people, model, at, options.level)
    lesions = people.lesions
    return replace(
        study,
        rates=rates,
        agreement=agreement(people, merit, options.level),
        reading_time=reading_times(people, options),
        curves=_curves(people, model, merit, options, at),
        froc=None if lesions is None else _froc(people, lesions, options),
        model_at_readers=alone,
        notes=study.notes + confounded_blocks(people),
    )


def _curves(
    people: Ratings, model: Ratings | None, figure: Figure, options: StudyOptions, at: float | None
) -> list[ReaderCurve]:
    curves = roc_curves(people, at)
    if model is None:
        return curves
    named = replace(model, modalities=model.readers)
    return curves + roc_curves(named, model_threshold(model, figure, options.threshold))


def _froc(people: Ratings, lesions: Lesions, options: StudyOptions) -> Froc:
    return froc(people, lesions, pairs_of(people, options.pair), options.level)


def _on_the_scale(model: Ratings | None, figure: Figure, options: StudyOptions) -> Ratings | None:
    """The model as the figure takes it: a rate takes its decisions at its own threshold."""
    if model is None or options.threshold is None or not isinstance(figure, RateFigure):
        return model
    return decided(model, options.threshold, figure.at)


def _provenance(readers: Source, lesions: Source | None, level: float) -> Mapping[str, object]:
    made: dict[str, object] = {**made_now(), "level": level, "readers": source_of(readers)}
    return made if lesions is None else made | {"lesions": source_of(lesions)}

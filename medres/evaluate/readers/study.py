"""The analysis of a reader study from its tables, and its report on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from data_pipelines.runtime.plain_text import json_text
from medres.errors import EvaluationError
from medres.evaluate.analyses.provenance import made_now
from medres.evaluate.options import check_level_and_margin
from medres.evaluate.readers.analysis import (
    ANALYSES,
    RANDOM_READERS,
    Analysis,
    all_pairs,
    design_of,
)
from medres.evaluate.readers.figures import Figure, PairFigure, make_figure
from medres.evaluate.readers.outcome import ReaderStudy, ReaderStudyResult, StudyCounts
from medres.evaluate.readers.ratings import Ratings
from medres.evaluate.readers.reporting.page import study_methods, study_page, study_tables
from medres.evaluate.readers.standalone import compare_standalone, split_off
from medres.evaluate.readers.table import Source, load_ratings, source_of
from medres.evaluate.readers.variances.covariances import (
    choose_covariance,
    figure_covariance,
    figure_values,
)
from medres.evaluate.readers.variances.sizing import Plan, SampleSizes, sample_sizes
from medres.evaluate.readers.variances.ustatistics import ustatistics
from medres.evaluate.reporting.save import save_report
from medres.evaluate.serialization import JsonObject

MIN_READERS = 2  # for a variance between readers
PILOT_MODALITIES = 2


@dataclass(frozen=True)
class ReaderStudyReport:
    """All results of a reader study. report: typed objects, see medres.evaluate.readers.outcome."""

    report: ReaderStudyResult

    @cached_property
    def numbers(self) -> JsonObject:
        """What report.json holds: plain dicts, lists, numbers and texts."""
        return self.report.to_json()

    def __repr__(self) -> str:
        study = self.report.reader_study
        return (
            f"ReaderStudyReport({self.report.title!r}, {study.figure}, {study.n.readers} readers, "
            f"{study.n.modalities} modalities, {study.n.cases} cases)"
        )

    def to_json(self) -> str:
        """report.json as text; never NaN or infinity."""
        return json_text(self.numbers, indent=1, ensure_ascii=False) + "\n"

    def to_html(self) -> str:
        """The self-contained page."""
        return study_page(self.report)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write report.html, report.json and tables/*.csv into a new folder: all of them, or after
        a failure none. Returns the folder.

        Raises EvaluationError if the folder exists and is not empty. `overwrite` replaces an
        earlier report, and nothing else.
        """
        texts = {"report.json": self.to_json(), "report.html": self.to_html()}
        tables = study_tables(self.report.reader_study)
        return save_report(texts, tables, Path(folder), overwrite=overwrite)

    def _repr_html_(self) -> str:
        return self.to_html()


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
    effect: float | None = None,
    finding: str | None = None,
    level: float = 0.95,
    title: str | None = None,
) -> ReaderStudyReport:
    """Compare modalities (such as without and with a model) by what several readers say about the
    same cases: Obuchowski-Rockette with the degrees of freedom of Hillis.

    readers: a table, or its path: `reader`, `modality`, `case`, `truth` (0 or 1), `rating` (higher
    for more suspicion); with a column `lesion` one row for each mark. lesions: the true lesions
    (`case`, `lesion`, and `weight` if wanted). figure: auc, pauc, sensitivity@R, specificity@R, and
    with lesions wafroc, afroc, hrauc, lroc; default auc, or wafroc with lesions. analysis: rrrc
    (readers and cases random), frrc (fixed readers) or rrfc (fixed cases). covariance: delong,
    jackknife or unbiased; default delong for the AUC of a crossed study, else jackknife. method: or
    (Obuchowski-Rockette), or ustat (U-statistics, for any design, also where readers read in one
    modality only; the AUC and other means over pairs of cases, rrrc). pair: the
    two modalities to compare, as a - b; default all pairs. margin: of non-inferiority and
    equivalence, in the figure; state it before you see the data. standalone: the reader in the
    table that is a model, which is compared with the others. effect: a difference
    that matters, for which the readers and cases of a further study are computed (crossed, two
    modalities, method or). finding: which value of a column `finding` to analyze. level: of
    confidence.

    Raises EvaluationError; its codes are those of `load_ratings`, `make_figure`,
    `choose_covariance` and `split_off`, and unknown_analysis, unknown_method, out_of_range,
    one_reader, one_modality, missing_cells, unknown_modality, not_for_ustat, no_sample_size.
    """
    _check_options(analysis, method, level, margin)
    ratings = load_ratings(readers, lesions, finding=finding)
    name = figure or ("auc" if ratings.lesions is None else "wafroc")
    merit = make_figure(name, ratings)
    people, model = (ratings, None) if standalone is None else split_off(ratings, standalone)
    _check_study(people, analysis, alone=model is not None)
    if method == "ustat":
        study = _by_ustatistics(people, merit, analysis, covariance, pair, margin, level, model)
    else:
        study = _by_variance_analysis(
            people, merit, analysis, covariance, pair, margin, level, model
        )
    if effect is not None:
        study = replace(study, sample_size=_sizes(study, effect, level))
    return ReaderStudyReport(
        ReaderStudyResult(
            title=title or "Reader study",
            reader_study=study,
            provenance=_provenance(readers, lesions, level),
            methods=study_methods(study, level, margin),
        )
    )


def _by_variance_analysis(
    people: Ratings,
    figure: Figure,
    analysis: str,
    covariance: str | None,
    pair: tuple[str, str] | None,
    margin: float | None,
    level: float,
    model: Ratings | None,
) -> ReaderStudy:
    """Obuchowski-Rockette."""
    _check_no_empty(people)
    chosen = choose_covariance(covariance, figure, people)
    result = Analysis(
        people,
        figure_values(figure, people),
        figure_covariance(chosen, figure, people),
        analysis,
        level,
        _pairs(people, pair),
        margin,
    )
    alone = None
    if model is not None:
        alone = compare_standalone(
            people, model, figure, analysis=analysis, covariance=chosen, level=level, margin=margin
        )
    return ReaderStudy(
        figure=figure.name,
        analysis=analysis,
        covariance=chosen,
        method="or",
        design=design_of(people),
        n=_counts(people),
        values=result.reader_values(),
        modalities=result.modality_means(),
        contrasts=result.contrasts(),
        overall=result.overall(),
        per_reader=result.reader_contrasts(),
        components=result.components,
        standalone=alone,
        notes=_notes(people, figure, result),
    )


def _by_ustatistics(
    people: Ratings,
    figure: Figure,
    analysis: str,
    covariance: str | None,
    pair: tuple[str, str] | None,
    margin: float | None,
    level: float,
    model: Ratings | None,
) -> ReaderStudy:
    """Gallas. Raises EvaluationError (not_for_ustat, one_reader)."""
    if not isinstance(figure, PairFigure) or not figure.u_statistic:
        raise _not_for_ustat(f"the figure {figure.name!r} is no mean over pairs of cases")
    if analysis != "rrrc":
        raise _not_for_ustat(f"the analysis {analysis!r} is of the other method")
    if covariance not in (None, "unbiased"):
        raise _not_for_ustat(f"the covariance {covariance!r} is of the other method")
    if model is not None:
        raise _not_for_ustat("a stand-alone model is compared by the other method")
    choose_covariance("unbiased", figure, people)
    n_readers = np.any(people.read, axis=2).sum(axis=1)
    if (n_readers < MIN_READERS).any():
        alone = people.modalities[int(np.argmin(n_readers))]
        raise EvaluationError(
            f"modality {alone!r} was read by one reader, and random readers need two",
            code="one_reader",
        )
    pairs = _pairs(people, pair)
    values, sigma = figure_values(figure, people), figure_covariance("unbiased", figure, people)
    single = Analysis(people, values, sigma, analysis, level, pairs, margin)
    result = ustatistics(figure, people, level, margin)
    return ReaderStudy(
        figure=figure.name,
        analysis=analysis,
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


def _sizes(study: ReaderStudy, effect: float, level: float) -> SampleSizes:
    if not 0.0 < effect < 0.5:
        raise EvaluationError(
            f"effect is {effect}; give the difference that a further study should detect, such as "
            "0.05 (between 0 and 0.5)",
            code="out_of_range",
        )
    pilot = study.components
    if pilot is None or study.design != "crossed" or study.n.modalities != PILOT_MODALITIES:
        raise EvaluationError(
            "sample sizes need a crossed study with two modalities, analyzed by the method 'or'",
            code="no_sample_size",
        )
    return sample_sizes(Plan(pilot, study.n.cases, effect, study.analysis, level))


def _not_for_ustat(why: str) -> EvaluationError:
    return EvaluationError(
        f"the method 'ustat' cannot be used: {why}; choose the method 'or'", code="not_for_ustat"
    )


def _check_options(analysis: str, method: str, level: float, margin: float | None) -> None:
    if method not in ("or", "ustat"):
        raise EvaluationError(
            f"the method {method!r} does not exist; choose or (Obuchowski-Rockette) or ustat "
            "(U-statistics)",
            code="unknown_method",
        )
    if analysis not in ANALYSES:
        raise EvaluationError(
            f"the analysis {analysis!r} does not exist; choose one of "
            + ", ".join(f"{name} ({words})" for name, words in ANALYSES.items()),
            code="unknown_analysis",
        )
    check_level_and_margin(level, margin, figure="the figure")


def _check_study(ratings: Ratings, analysis: str, *, alone: bool) -> None:
    if len(ratings.readers) < 2 and analysis in RANDOM_READERS:
        raise EvaluationError(
            "the readers table has one reader, who cannot stand for all readers: use the analysis "
            "frrc (fixed readers), or add readers",
            code="one_reader",
        )
    if len(ratings.modalities) < 2 and not alone:
        raise EvaluationError(
            "the readers table has one modality, so there is nothing to compare: add the readings "
            "of the other arm, or name a stand-alone model (standalone=)",
            code="one_modality",
        )


def _check_no_empty(ratings: Ratings) -> None:
    empty = ~np.any(ratings.read, axis=2)
    if empty.any():
        modality, reader = np.argwhere(empty)[0]
        raise EvaluationError(
            f"reader {ratings.readers[reader]!r} read nothing in modality "
            f"{ratings.modalities[modality]!r}: every reader must have read cases in every "
            "modality; choose the method ustat, or leave out the reader or the modality",
            code="missing_cells",
        )


def _pairs(ratings: Ratings, pair: tuple[str, str] | None) -> tuple[tuple[int, int], ...]:
    if pair is None:
        return all_pairs(len(ratings.modalities))
    if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(ratings.modalities):
        raise EvaluationError(
            f"the pair {','.join(pair)!r} does not name two modalities; the table has "
            f"{', '.join(ratings.modalities)}",
            code="unknown_modality",
        )
    return ((ratings.modalities.index(pair[0]), ratings.modalities.index(pair[1])),)


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
    if not ratings.crossed:
        missing = int((~ratings.read).sum())
        notes.append(
            f"the study is not crossed: {missing} readings did not take place; each value is over "
            "the cases that the reader read, and covariances are over common cases"
        )
    if ratings.clustered:
        notes.append("some patients have several cases; whole patients are left out at a time")
    if figure.name.partition("@")[0] in ("sensitivity", "specificity"):
        notes.append("positive is a rating equal to or above the one in the figure's name")
    return notes


def _provenance(readers: Source, lesions: Source | None, level: float) -> Mapping[str, object]:
    made: dict[str, object] = {**made_now(), "level": level, "readers": source_of(readers)}
    return made if lesions is None else made | {"lesions": source_of(lesions)}

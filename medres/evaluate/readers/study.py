"""The analysis of a reader study from its tables, and its report on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data_pipelines.runtime.plain_text import json_text
from medres.errors import EvaluationError
from medres.evaluate.analyses.provenance import made_now
from medres.evaluate.readers.analysis import (
    ANALYSES,
    RANDOM_READERS,
    Analysis,
    all_pairs,
    design_of,
)
from medres.evaluate.readers.covariances import (
    choose_covariance,
    figure_covariance,
    figure_values,
)
from medres.evaluate.readers.figures import Figure, make_figure
from medres.evaluate.readers.outcome import ReaderStudy, ReaderStudyResult, StudyCounts
from medres.evaluate.readers.ratings import Ratings
from medres.evaluate.readers.reporting import study_methods, study_page, study_tables
from medres.evaluate.readers.standalone import compare_standalone, split_off
from medres.evaluate.readers.table import Source, load_ratings, source_of
from medres.evaluate.reporting.save import save_report
from medres.evaluate.serialization import JsonObject


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
    pair: tuple[str, str] | None = None,
    margin: float | None = None,
    standalone: str | None = None,
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
    jackknife or unbiased; default delong for the AUC of a crossed study, else jackknife. pair: the
    two modalities to compare, as a - b; default all pairs. margin: of non-inferiority and
    equivalence, in the figure; state it before you see the data. standalone: the reader in the
    table that is a model, which is compared with the others. finding: which value of a column
    `finding` to analyze. level: of confidence.

    Raises EvaluationError; its codes are those of `load_ratings`, `make_figure`,
    `choose_covariance` and `split_off`, and unknown_analysis, out_of_range, one_reader,
    one_modality, missing_cells, unknown_modality.
    """
    _check_options(analysis, level, margin)
    ratings = load_ratings(readers, lesions, finding=finding)
    name = figure or ("auc" if ratings.lesions is None else "wafroc")
    merit = make_figure(name, ratings)
    people, model = (ratings, None) if standalone is None else split_off(ratings, standalone)
    _check_study(people, analysis, alone=model is not None)
    method = choose_covariance(covariance, merit, ratings if model is None else people)
    result = Analysis(
        people,
        figure_values(merit, people),
        figure_covariance(method, merit, people),
        analysis,
        level,
        _pairs(people, pair),
        margin,
    )
    study = ReaderStudy(
        figure=name,
        analysis=analysis,
        covariance=method,
        method="or",
        design=design_of(people),
        n=_counts(people),
        values=result.reader_values(),
        modalities=result.modality_means(),
        contrasts=result.contrasts(),
        overall=result.overall(),
        per_reader=result.reader_contrasts(),
        components=result.components,
        standalone=None
        if model is None
        else compare_standalone(
            people,
            model,
            merit,
            analysis=analysis,
            covariance=method,
            level=level,
            margin=margin,
        ),
        notes=_notes(result, merit),
    )
    return ReaderStudyReport(
        ReaderStudyResult(
            title=title or "Reader study",
            reader_study=study,
            provenance=_provenance(readers, lesions, level),
            methods=study_methods(study, level, margin),
        )
    )


def _check_options(analysis: str, level: float, margin: float | None) -> None:
    if analysis not in ANALYSES:
        raise EvaluationError(
            f"the analysis {analysis!r} does not exist; choose one of "
            + ", ".join(f"{name} ({words})" for name, words in ANALYSES.items()),
            code="unknown_analysis",
        )
    if not 0.5 <= level < 1.0:
        raise EvaluationError(
            f"level is {level}; give a confidence level such as 0.95 (from 0.5 to below 1)",
            code="out_of_range",
        )
    if margin is not None and not 0.0 < margin < 0.5:
        raise EvaluationError(
            f"margin is {margin}; give the greatest loss of the figure that you accept, such as "
            "0.05 (between 0 and 0.5)",
            code="out_of_range",
        )


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
    empty = ~ratings.read.any(axis=2)
    if empty.any():
        modality, reader = np.argwhere(empty)[0]
        raise EvaluationError(
            f"reader {ratings.readers[reader]!r} read nothing in modality "
            f"{ratings.modalities[modality]!r}: every reader must have read cases in every "
            "modality; leave out the readers or the modality",
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


def _notes(result: Analysis, figure: Figure) -> list[str]:
    notes = list(result.ratings.notes)
    components = result.components
    if components.bounded and result.name != "rrfc" and len(result.ratings.modalities) > 1:
        notes.append("Cov2 is smaller than Cov3, and their difference counts as zero")
    if not result.ratings.crossed:
        missing = int((~result.ratings.read).sum())
        notes.append(
            f"the study is not crossed: {missing} readings did not take place; each value is over "
            "the cases that the reader read, and covariances are over common cases"
        )
    if result.ratings.clustered:
        notes.append("some patients have several cases; whole patients are left out at a time")
    if figure.name.partition("@")[0] in ("sensitivity", "specificity"):
        notes.append("positive is a rating equal to or above the one in the figure's name")
    return notes


def _provenance(readers: Source, lesions: Source | None, level: float) -> Mapping[str, object]:
    made: dict[str, object] = {**made_now(), "level": level, "readers": source_of(readers)}
    return made if lesions is None else made | {"lesions": source_of(lesions)}

"""What is asked of a reader study, and whether the table can answer it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.options import check_level_and_margin
from medres.evaluate.readers.analysis import ANALYSES, RANDOM_READERS, all_pairs
from medres.evaluate.readers.ratings import Ratings

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The options of `reader_study` that do not name tables or texts.

    Raises EvaluationError. Codes: unknown_method, unknown_analysis, out_of_range,
    threshold_without_model.
    """

    figure: str | None = None
    analysis: str = "rrrc"
    covariance: str | None = None
    method: str = "or"
    pair: tuple[str, str] | None = None
    margin: float | None = None
    standalone: str | None = None
    positive: float | None = None
    threshold: float | None = None
    effect: float | None = None
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.method not in ("or", "ustat"):
            raise EvaluationError(
                f"the method {self.method!r} does not exist; choose or (Obuchowski-Rockette) or "
                "ustat (U-statistics)",
                code="unknown_method",
            )
        if self.analysis not in ANALYSES:
            raise EvaluationError(
                f"the analysis {self.analysis!r} does not exist; choose one of "
                + ", ".join(f"{name} ({words})" for name, words in ANALYSES.items()),
                code="unknown_analysis",
            )
        check_level_and_margin(self.level, self.margin, figure="the figure")
        for name, value in (("positive", self.positive), ("threshold", self.threshold)):
            if value is not None and not np.isfinite(value):
                raise EvaluationError(
                    f"{name} is {value}; give a finite number", code="out_of_range"
                )
        if self.threshold is not None and self.standalone is None:
            raise EvaluationError(
                "a threshold is that of a stand-alone model, and none was named: give standalone= "
                "too; the rating from which readers are positive is positive=",
                code="threshold_without_model",
            )
        if self.effect is not None and not 0.0 < self.effect < 0.5:
            raise EvaluationError(
                f"effect is {self.effect}; give the difference that a further study should detect, "
                "such as 0.05 (between 0 and 0.5)",
                code="out_of_range",
            )


def check_study(ratings: Ratings, analysis: str, *, alone: bool) -> None:
    """Raises EvaluationError. Codes: one_reader, one_modality. alone: with a stand-alone model."""
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


def check_no_empty(ratings: Ratings) -> None:
    """Raises EvaluationError (missing_cells) if a reader read nothing in a modality."""
    empty = ~np.any(ratings.read, axis=2)
    if empty.any():
        modality, reader = np.argwhere(empty)[0]
        raise EvaluationError(
            f"reader {ratings.readers[reader]!r} read nothing in modality "
            f"{ratings.modalities[modality]!r}: every reader must have read cases in every "
            "modality; choose the method ustat, or leave out the reader or the modality",
            code="missing_cells",
        )


def pairs_of(ratings: Ratings, pair: tuple[str, str] | None) -> Pairs:
    """Numbers of the modalities to compare. Raises EvaluationError (unknown_modality)."""
    if pair is None:
        return all_pairs(len(ratings.modalities))
    if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(ratings.modalities):
        raise EvaluationError(
            f"the pair {','.join(pair)!r} does not name two modalities; the table has "
            f"{', '.join(ratings.modalities)}",
            code="unknown_modality",
        )
    return ((ratings.modalities.index(pair[0]), ratings.modalities.index(pair[1])),)

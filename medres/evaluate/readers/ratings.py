"""The ratings of a reader study as typed arrays: modalities x readers x cases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FalseMarks:
    """Every mark that hits no lesion: number of its modality, reader and case, and its rating; all
    (F,).
    """

    modality: IntArray
    reader: IntArray
    case: IntArray
    rating: FloatArray

    def select(self, modalities: list[int], readers: list[int]) -> FalseMarks:
        """The marks of some modalities and readers, numbered anew."""
        at = np.isin(self.modality, modalities) & np.isin(self.reader, readers)
        modality, reader = (
            np.array([chosen.index(k) for k in number[at]], dtype=np.int64)
            for chosen, number in ((modalities, self.modality), (readers, self.reader))
        )
        return FalseMarks(modality, reader, self.case[at], self.rating[at])


@dataclass(frozen=True)
class Readings:
    """What was noted beside the ratings. time: (modalities, readers, C) seconds, NaN where unknown.
    block: (modalities, readers, C) number of the session, -1 where unknown. blocks: their names.
    """

    time: FloatArray
    block: IntArray
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Lesions:
    """The lesions of L, sorted by case, and who marked them.

    case: (L,) index of the case. weight: (L,) of the lesion; the weights of a case sum to 1.
    rating: (modalities, readers, L), minus infinity for a lesion that is not marked. false_mark:
    (modalities, readers, cases) the highest mark that hits no lesion, else minus infinity.
    n_marks: (modalities, readers, cases) marks. all_false: every mark that hits no lesion.
    hit_rule: which mark hits a lesion.
    """

    case: IntArray
    weight: FloatArray
    rating: FloatArray
    false_mark: FloatArray
    n_marks: IntArray
    all_false: FalseMarks
    hit_rule: str


@dataclass(frozen=True)
class Ratings:
    """What the readers said. C cases.

    readers, modalities, cases: names, in order. truth: (C,) True for a diseased case. patient: (C,)
    number of the patient; one per case if the table names no patients. rating: (modalities,
    readers, C), NaN where a case was not read; with marks the highest one of the case, minus
    infinity without any. lesions: None for ratings of whole cases. readings: times and blocks, None
    if the table has no such columns. notes: what was settled while the table was read.
    """

    modalities: tuple[str, ...]
    readers: tuple[str, ...]
    cases: tuple[str, ...]
    truth: BoolArray
    patient: IntArray
    rating: FloatArray
    lesions: Lesions | None = None
    readings: Readings | None = None
    notes: tuple[str, ...] = ()

    @property
    def read(self) -> BoolArray:
        """(modalities, readers, C): which cases were read."""
        return np.logical_not(np.isnan(self.rating))

    @property
    def crossed(self) -> bool:
        """Whether every reader read every case in every modality."""
        return bool(self.read.all())

    @property
    def clustered(self) -> bool:
        """Whether a patient has several cases."""
        return bool(np.unique(self.patient).size < self.patient.size)

    def cells(self) -> Iterator[Cell]:
        """One cell for each modality and reader, the reader changing fastest."""
        for modality in range(len(self.modalities)):
            for reader in range(len(self.readers)):
                yield self.cell(modality, reader)

    def cell(self, modality: int, reader: int) -> Cell:
        """The cases that this reader read in this modality."""
        at = np.flatnonzero(self.read[modality, reader])
        truth, rating = self.truth[at], self.rating[modality, reader, at]
        if self.lesions is None:
            return Cell(truth, self.patient[at], rating, at)
        place = np.full(self.truth.size, -1)
        place[at] = np.arange(at.size)
        owner = place[self.lesions.case]
        there = owner >= 0
        return Cell(
            truth,
            self.patient[at],
            rating,
            at,
            lesion_case=owner[there],
            lesion_weight=self.lesions.weight[there],
            lesion_rating=self.lesions.rating[modality, reader, there],
            false_mark=self.lesions.false_mark[modality, reader, at],
        )

    def select(
        self, *, modalities: list[int] | None = None, readers: list[int] | None = None
    ) -> Ratings:
        """The study of some modalities and readers only."""
        m = list(range(len(self.modalities))) if modalities is None else modalities
        r = list(range(len(self.readers))) if readers is None else readers

        def part(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return values[np.ix_(m, r)]

        lesions = self.lesions and replace(
            self.lesions,
            rating=part(self.lesions.rating),
            false_mark=part(self.lesions.false_mark),
            n_marks=part(self.lesions.n_marks),
            all_false=self.lesions.all_false.select(m, r),
        )
        readings = self.readings and replace(
            self.readings, time=part(self.readings.time), block=part(self.readings.block)
        )
        return replace(
            self,
            modalities=tuple(self.modalities[i] for i in m),
            readers=tuple(self.readers[i] for i in r),
            rating=part(self.rating),
            lesions=lesions,
            readings=readings,
        )


@dataclass(frozen=True)
class Cell:
    """What one reader said in one modality, over the K cases that were read.

    truth, patient, rating: (K,). case: (K,) index in the study. The lesions of these cases, sorted
    by case: lesion_case (index within K), lesion_weight, lesion_rating. false_mark: (K,). The
    last four are empty for ratings of whole cases.
    """

    truth: BoolArray
    patient: IntArray
    rating: FloatArray
    case: IntArray
    lesion_case: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    lesion_weight: FloatArray = field(default_factory=lambda: np.empty(0))
    lesion_rating: FloatArray = field(default_factory=lambda: np.empty(0))
    false_mark: FloatArray = field(default_factory=lambda: np.empty(0))

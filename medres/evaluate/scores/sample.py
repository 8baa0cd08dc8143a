"""The labeled, scored units of one finding, and the counts that sorting them once gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Labeled, scored units of one finding.

    label (n,) bool. score (n,) float64: no NaN, infinities allowed. patient (n,) int64: codes from
    0, one per cluster. fold (n,) int64: codes; scores are only compared within a fold.
    """

    label: NDArray[np.bool_]
    score: Float64Array
    patient: Int64Array
    fold: Int64Array

    @cached_property
    def n_positive(self) -> int:
        return int(np.count_nonzero(self.label))

    @cached_property
    def n_negative(self) -> int:
        return self.label.size - self.n_positive

    @cached_property
    def n_patients(self) -> int:
        return int(np.count_nonzero(np.bincount(self.patient)))

    @cached_property
    def clustered(self) -> bool:
        """Whether a patient has more than one unit."""
        return self.n_patients < self.label.size

    @cached_property
    def ascending(self) -> Int64Array:
        """(n,) the rows in rising order of score; sorted once, since that takes long."""
        return np.argsort(self.score)

    @cached_property
    def counts(self) -> Counts:
        """Of all units, from the highest score down."""
        return _ranked(self.label, self.score, self.ascending[::-1])

    def with_patients(self, patient: Int64Array) -> Sample:
        """The same units with other patients (n,)."""
        out = Sample(self.label, self.score, patient, self.fold)
        vars(out)["ascending"] = self.ascending  # fills the cached property
        return out

    def patients_with(self, label: bool) -> int:
        """Patients with at least one unit of that label."""
        return int(np.count_nonzero(np.bincount(self.patient[self.label == label])))

    def units_per_patient(self, label: bool) -> Int64Array:
        """(k,) numbers of units of that label, one entry per patient who has any."""
        return self._units_per_patient[label]

    @cached_property
    def _units_per_patient(self) -> tuple[Int64Array, Int64Array]:
        counts = [np.bincount(self.patient[member]) for member in (~self.label, self.label)]
        without, with_finding = (count[count > 0] for count in counts)
        return without, with_finding

    def effective_patients(self, label: bool) -> float:
        """Kish's effective number of the patients with that label."""
        return effective_number(self.units_per_patient(label))

    @cached_property
    def unequal(self) -> bool:
        """Whether the patients of a class have different numbers of its units."""
        if not self.clustered:
            return False
        units = [self.units_per_patient(c) for c in (True, False)]
        return any(size.size > 0 and np.ptp(size) > 0 for size in units)

    def take(self, mask: NDArray[np.bool_]) -> Sample:
        """The units where `mask` (n,) is True."""
        return Sample(self.label[mask], self.score[mask], self.patient[mask], self.fold[mask])


@dataclass(frozen=True)
class Counts:
    """Cumulative counts at each distinct score, from the highest down; all arrays (k,)."""

    threshold: Float64Array
    tp: Int64Array
    fp: Int64Array
    n_positive: int
    n_negative: int


def effective_number(sizes: NDArray[Any]) -> float:
    """Kish 1965: the number of equal clusters that tell as much about a mean as these; 0 if there
    is none.

    >>> effective_number(np.array([3, 3, 3])), round(effective_number(np.array([60, 1, 1])), 2)
    (3.0, 1.07)
    """
    total = float(np.sum(sizes))
    return total * total / float(np.sum(sizes * sizes)) if total else 0.0


def compact_codes(codes: Int64Array) -> tuple[Int64Array, int]:
    """Codes (n,) without the gaps, in the same order, and how many different ones there are:
    `np.unique(codes, return_inverse=True)` for codes from 0, without sorting.

    >>> codes, groups = compact_codes(np.array([7, 0, 7, 3]))
    >>> codes.tolist(), groups
    ([2, 0, 2, 1], 3)
    """
    present = np.zeros(int(codes.max(initial=-1)) + 1, dtype=bool)
    present[codes] = True
    rank = np.cumsum(present, dtype=np.int64) - 1
    return rank[codes], int(np.count_nonzero(present))


def rank_counts(label: NDArray[np.bool_], score: Float64Array) -> Counts:
    """tp[i] and fp[i] count the units with score >= threshold[i]; one sort, O(n log n).

    >>> counts = rank_counts(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))
    >>> counts.threshold.tolist(), counts.tp.tolist(), counts.fp.tolist()
    ([0.9, 0.5], [1, 2], [0, 1])
    """
    return _ranked(label, score, np.argsort(-score, kind="stable"))


def _ranked(label: NDArray[np.bool_], score: Float64Array, order: Int64Array) -> Counts:
    """`rank_counts` with the rows in falling order of score."""
    sorted_score, sorted_label = score[order], label[order]
    last_of_tie = np.flatnonzero(np.append(sorted_score[1:] != sorted_score[:-1], True))
    tp = np.cumsum(sorted_label, dtype=np.int64)[last_of_tie]
    fp = (last_of_tie + 1 - tp).astype(np.int64)
    return Counts(sorted_score[last_of_tie], tp, fp, int(tp[-1]), int(fp[-1]))

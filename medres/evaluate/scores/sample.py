"""The labelled, scored units of one finding, and the counts that one sort of them gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]


Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Labelled, scored units of one finding.

    label (n,) bool; score (n,) float64, no NaN, infinities allowed; patient (n,) int64 codes from
    0, one a cluster;
    fold (n,) int64 codes: scores are compared inside a fold only.
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
        """Whether a patient holds more than one unit."""
        return self.n_patients < self.label.size

    def patients_with(self, label: bool) -> int:
        return int(np.count_nonzero(np.bincount(self.patient[self.label == label])))

    def take(self, mask: NDArray[np.bool_]) -> Sample:
        return Sample(self.label[mask], self.score[mask], self.patient[mask], self.fold[mask])


@dataclass(frozen=True)
class Counts:
    """Cumulative counts at each distinct score, from the highest down; all arrays (k,)."""

    threshold: Float64Array
    tp: Int64Array
    fp: Int64Array
    n_positive: int
    n_negative: int


def rank_counts(label: NDArray[np.bool_], score: Float64Array) -> Counts:
    """Sort once. tp[i] and fp[i] count the units with score >= threshold[i]. O(n log n)."""
    order = np.argsort(-score, kind="stable")
    sorted_score, sorted_label = score[order], label[order]
    last_of_tie = np.flatnonzero(np.append(sorted_score[1:] != sorted_score[:-1], True))
    tp = np.cumsum(sorted_label, dtype=np.int64)[last_of_tie]
    fp = (last_of_tie + 1 - tp).astype(np.int64)
    return Counts(sorted_score[last_of_tie], tp, fp, int(tp[-1]), int(fp[-1]))

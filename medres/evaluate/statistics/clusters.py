"""The variance and the quantile of a figure that is (nearly) a sum of parts of the patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medres.evaluate.scores.sample import Float64Array, Int64Array, effective_number

FEW_EFFECTIVE = 10  # patients; below it, an interval from unequal clusters is flagged
UNEQUAL_SHARE = 1 / 3  # effective patients / patients of a class; below it, some are flagged too
MIN_DF = 0.1  # of Student's t; below it the quantile overflows
MIN_EFFECTIVE = 1.5  # patients of a class; below it there is no interval from unequal patients
WHY_TOO_FEW = "one patient holds nearly all units of a class: no interval"


@dataclass(frozen=True)
class ClusteredVariance:
    """variance: None with the reason in `why`. df: degrees of freedom of Student's t.
    effective_patients: Kish's number of the smaller class, if patients have different numbers of
    units. effective_share: the smallest ratio of that number to the patients of a class; 1 where
    all are equal. flag: why the interval is to be read with care."""

    variance: float | None
    df: float
    effective_patients: float | None = None
    flag: str | None = None
    why: str | None = None
    effective_share: float = 1.0

    def quantile(self, level: float) -> float:
        return t_quantile(level, self.df)

    def flag_if_unequal(self, coverage: int | None) -> str | None:
        """`flag`, or that of a figure whose 95% intervals covered as little as `coverage` percent
        in simulations of very unequal patients; None: they covered as often as stated."""
        if self.flag or coverage is None or self.effective_share >= UNEQUAL_SHARE:
            return self.flag
        return (
            f"very unequal patients: in simulations of such data, as few as {coverage}% of the "
            "95% intervals of this figure held the true value"
        )


def clustered_variance(
    parts: Sequence[Float64Array], sizes: Sequence[NDArray[Any]], *, of_all: bool = False
) -> ClusteredVariance:
    """Variance of the sum of all parts. parts, sizes: for each class (g,) what the units of a
    patient add to the figure, and how many they are. of_all: the figure is a mean over the units of
    all classes, so patients are equal if their numbers of all units are.

    The usual sandwich with patients / (patients - 1), and patients - 1 degrees of freedom. If the
    patients of a class have different numbers of units, a patient's squared part is divided by 1 -
    its share of the class (Bell & McCaffrey 2002), and the degrees of freedom are Satterthwaite's
    with Kish's effective number - 1 for each class, as for the AUC, but patients - 1 at most. Needs
    two patients.
    """
    return Clusters(sizes, of_all=of_all).variance(parts)


class Clusters:
    """Patients with their numbers of units: what `clustered_variance` needs, for several figures of
    the same units. Its parameters are those of `clustered_variance`.
    """

    def __init__(self, sizes: Sequence[NDArray[Any]], *, of_all: bool = False) -> None:
        every = np.sum(sizes, axis=0)
        self.patients = int(np.count_nonzero(every))
        self.fewest = fewest_effective(sizes)
        if self.fewest is not None and of_all and fewest_effective([every]) is None:
            self.fewest = None
        if self.fewest is not None and self.fewest >= MIN_EFFECTIVE:
            self._used = [i for i, size in enumerate(sizes) if size.any()]
            self._share = min(effective_share(sizes[i]) for i in self._used)
            self._degrees = [degrees(effective_number(sizes[i])) for i in self._used]
            self._leverage = [1.0 / (1.0 - sizes[i] / sizes[i].sum()) for i in self._used]

    def variance(self, parts: Sequence[Float64Array]) -> ClusteredVariance:
        """Of the sum of the parts, for each class (g,)."""
        total = sum(parts[1:], start=parts[0])
        factor = self.patients / (self.patients - 1)
        squares = float(total @ total)
        if self.fewest is None:
            return ClusteredVariance(factor * squares, self.patients - 1.0)
        if self.fewest < MIN_EFFECTIVE:
            return ClusteredVariance(None, 1.0, self.fewest, why=WHY_TOO_FEW)
        own = [
            float((parts[i] * parts[i]) @ leverage)
            for i, leverage in zip(self._used, self._leverage, strict=True)
        ]
        cross = squares - sum(float(part @ part) for part in parts)
        spread = sum(v * v / df for v, df in zip(own, self._degrees, strict=True))
        df = sum(own) ** 2 / spread if spread > 0.0 else min(self._degrees)
        return ClusteredVariance(
            max(0.0, sum(own) + factor * cross),
            min(df, self.patients - 1.0),
            self.fewest,
            few_effective(self.fewest),
            effective_share=self._share,
        )


def fewest_effective(sizes: Sequence[NDArray[Any]]) -> float | None:
    """Kish's effective number of the patients of the smaller class; None if the patients of each
    class have equal numbers of units. sizes: for each class the units of every patient.

    >>> fewest_effective([np.array([2, 2, 0]), np.array([3, 1])]), fewest_effective([np.ones(5)])
    (1.6, None)
    """
    if not any(size.any() and np.ptp(size[size > 0]) > 0 for size in sizes):
        return None
    return min(effective_number(size) for size in sizes if size.any())


def effective_share(size: NDArray[Any]) -> float:
    """Kish's effective number of patients divided by their number. size: the units of each."""
    return effective_number(size) / int(np.count_nonzero(size))


def by_class_and_patient(
    label: NDArray[np.bool_], cluster: Int64Array, value: Float64Array
) -> tuple[list[Float64Array], list[Int64Array]]:
    """(parts, sizes) of `clustered_variance` for values (n,) of units: with the finding, then
    without it."""
    groups = int(cluster.max(initial=-1)) + 1
    members = (label, ~label)
    parts = [
        np.asarray(np.bincount(cluster, np.where(m, value, 0.0), groups), np.float64)
        for m in members
    ]
    sizes = [np.asarray(np.bincount(cluster[m], minlength=groups), np.int64) for m in members]
    return parts, sizes


def t_quantile(level: float, df: float) -> float:
    return float(stats.t.ppf(0.5 + level / 2.0, df))


def few_effective(patients: float) -> str | None:
    """The flag of an interval from so few effective patients that its coverage is not assured."""
    return f"fewer than {FEW_EFFECTIVE} effective patients" if patients < FEW_EFFECTIVE else None


def degrees(patients: float) -> float:
    """Degrees of freedom of Student's t for this (effective) number of patients."""
    return max(patients - 1.0, MIN_DF)

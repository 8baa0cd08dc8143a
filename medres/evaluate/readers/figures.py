"""Figures of merit of one reader in one modality, and their values when each patient is left out.

Most figures compare each diseased case with each non-diseased one (`PairFigure`): the share of
pairs in which a signal (the rating of the diseased case, or its lesions by weight) is above the
noise (the highest rating or false mark of the non-diseased case), ties one half.

Chakraborty & Berbaum 2004 (AFROC), Chakraborty & Zhai 2016 (weighted AFROC), Swensson 1996 (LROC).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.metrics.partial_auc import partial_auc
from medres.evaluate.readers.lroc_figures import LrocFigure
from medres.evaluate.readers.ratings import BoolArray, Cell, FloatArray, IntArray, Lesions, Ratings
from medres.evaluate.scores.sample import rank_counts

PARTIAL = ("specificity", 0.8, 1.0)
CURVE_POINTS = 2_000_000  # of all curves held at a time
UP_TO = ("pcl", "alroc")  # figures from the LROC curve up to a false-positive rate
NAMES = "auc, pauc, sensitivity@R, specificity@R, wafroc, afroc, hrauc, lroc, pcl@F, alroc@F"


class Figure(Protocol):
    """u_statistic: whether it is the mean of a kernel over pairs of a diseased and a non-diseased
    case, so that DeLong's and the unbiased covariance hold.
    """

    @property
    def name(self) -> str:
        """As it was asked for."""

    @property
    def u_statistic(self) -> bool:
        """See above."""

    def value(self, cell: Cell) -> float:
        """Between 0 and 1."""

    def leave_one_out(self, cell: Cell) -> tuple[IntArray, FloatArray]:
        """The patients on whom the value depends, and the value without each of them."""


@dataclass(frozen=True)
class Pairs:
    """What a PairFigure compares. Signals are sorted by case.

    signal, weight: (S,). owner: (S,) number among the D diseased cases. total: (D,) the weight that
    a case contributes to the denominator. noise: (N,).
    """

    signal: FloatArray
    weight: FloatArray
    owner: IntArray
    total: FloatArray
    noise: FloatArray

    def kernel(self, cases: slice = slice(None)) -> FloatArray:
        """(D, N): by how much each diseased case (or a range of them) wins over each other."""
        first, stop, _ = cases.indices(self.total.size)
        at = (self.owner >= first) & (self.owner < stop)
        signal = self.signal[at, None]
        above = (signal > self.noise) + 0.5 * (signal == self.noise)
        starts = np.searchsorted(self.owner[at], np.arange(first, stop))
        return np.add.reduceat(above * self.weight[at, None], starts, axis=0)

    def sums(self) -> tuple[FloatArray, FloatArray]:
        """Row sums (D,) and column sums (N,) of `kernel`, by sorting."""
        order = np.sort(self.noise)
        twice = np.searchsorted(order, self.signal, "left") + np.searchsorted(
            order, self.signal, "right"
        )
        size = self.total.size
        won = np.asarray(self.weight * twice / 2.0, dtype=np.float64)
        rows = np.bincount(self.owner, won, minlength=size).astype(np.float64)
        by_signal = np.argsort(self.signal)
        upto = np.concatenate([[0.0], np.cumsum(self.weight[by_signal])])
        signal = self.signal[by_signal]
        below = upto[np.searchsorted(signal, self.noise, "left")]
        not_above = upto[np.searchsorted(signal, self.noise, "right")]
        return rows, upto[-1] - (below + not_above) / 2.0


@dataclass(frozen=True)
class PairFigure:
    """A figure over pairs of cases. pairs: what is compared in a cell."""

    name: str
    pairs: Callable[[Cell], Pairs]
    u_statistic: bool = True

    def value(self, cell: Cell) -> float:
        """Weighted share of pairs in which the signal is above the noise."""
        pairs = self.pairs(cell)
        rows, _ = pairs.sums()
        return float(rows.sum() / (pairs.total.sum() * pairs.noise.size))

    def leave_one_out(self, cell: Cell) -> tuple[IntArray, FloatArray]:
        """The value without each patient."""
        pairs = self.pairs(cell)
        rows, columns = pairs.sums()
        patients, patient = np.unique(cell.patient, return_inverse=True)
        n = int(patient.max()) + 1
        diseased, healthy = patient[cell.truth], patient[~cell.truth]
        both = np.intersect1d(diseased, healthy)
        lost = np.bincount(diseased, rows, n) + np.bincount(healthy, columns, n)
        if both.size:
            kernel = pairs.kernel()
            for p in both:
                lost[p] -= kernel[np.ix_(diseased == p, healthy == p)].sum()
        total = pairs.total.sum() - np.bincount(diseased, pairs.total, n)
        noise = pairs.noise.size - np.bincount(healthy, minlength=n)
        return patients, (rows.sum() - lost) / (total * noise)


@dataclass(frozen=True)
class RateFigure:
    """Share of the diseased cases with a rating of at least `at`, or of the others below it."""

    name: str
    diseased: bool
    at: float
    u_statistic: bool = False

    def hits(self, cell: Cell) -> tuple[BoolArray, IntArray]:
        """Whether each case of the class is called rightly, and its patient."""
        positive = cell.rating >= self.at
        of_class = cell.truth == self.diseased
        return (positive == self.diseased)[of_class], cell.patient[of_class]

    def value(self, cell: Cell) -> float:
        """Sensitivity or specificity."""
        return float(self.hits(cell)[0].mean())

    def leave_one_out(self, cell: Cell) -> tuple[IntArray, FloatArray]:
        """The rate without each patient who has a case of the class."""
        hit, patient = self.hits(cell)
        patients, number = np.unique(patient, return_inverse=True)
        left = hit.sum() - np.bincount(number, hit)
        return patients, left / (hit.size - np.bincount(number))


@dataclass(frozen=True)
class PartialAreaFigure:
    """Area under the ROC curve over a range of specificity, or to its right over one of
    sensitivity, not divided by the width of the range.
    """

    name: str
    axis: str
    low: float
    high: float
    u_statistic: bool = False

    def value(self, cell: Cell) -> float:
        """The area, from 0 to high - low."""
        counts = rank_counts(cell.truth, cell.rating)
        return partial_auc(counts, self.axis, self.low, self.high)

    def leave_one_out(self, cell: Cell) -> tuple[IntArray, FloatArray]:
        """The area without each patient, from counts that are sorted once."""
        counts = rank_counts(cell.truth, cell.rating)
        step = np.searchsorted(-counts.threshold, -cell.rating)
        patients, number = np.unique(cell.patient, return_inverse=True)
        k, rows = counts.tp.size, max(1, CURVE_POINTS // counts.tp.size)
        values = []
        for first in range(0, patients.size, rows):
            size = min(rows, patients.size - first)
            here = (number >= first) & (number < first + size)
            cumulative = []
            for total, of_class in ((counts.tp, cell.truth), (counts.fp, ~cell.truth)):
                at = here & of_class
                place = (number[at] - first) * k + step[at]
                lost = np.bincount(place, minlength=size * k).reshape(size, k)
                cumulative.append(total - np.cumsum(lost, axis=1))
            values.append(self._areas(*cumulative))
        return patients, np.concatenate(values)

    def _areas(self, tp: IntArray, fp: IntArray) -> FloatArray:
        """Areas (P,) of the curves of cumulative counts (P, k)."""
        x, y = (np.pad(part / part[:, -1:], ((0, 0), (1, 0))) for part in (fp, tp))
        if self.axis == "specificity":
            return _area_between(x, y, 1.0 - self.high, 1.0 - self.low)
        return (self.high - self.low) - _area_between(y, x, self.low, self.high)


def _area_between(x: FloatArray, y: FloatArray, low: float, high: float) -> FloatArray:
    """Trapezoids under y (P, k) over the part of x (P, k), which ascends, within low and high."""
    inside = np.flatnonzero((x[:, :-1].min(axis=0) < high) & (x[:, 1:].max(axis=0) > low))
    part = slice(inside[0], inside[-1] + 2)
    x, y = x[:, part], y[:, part]
    start, stop = np.clip(x[:, :-1], low, high), np.clip(x[:, 1:], low, high)
    width = np.diff(x, axis=1)
    slope = np.divide(np.diff(y, axis=1), width, out=np.zeros_like(width), where=width > 0)
    middle = y[:, :-1] + slope * ((start + stop) / 2.0 - x[:, :-1])
    return np.sum((stop - start) * middle, axis=1)


def default_figure(ratings: Ratings) -> str:
    """The AUC of ratings of whole cases, wAFROC of marks."""
    return "auc" if ratings.lesions is None else "wafroc"


def make_figure(name: str, ratings: Ratings) -> Figure:
    """The figure of this name, checked against the study.

    name: auc; pauc, with a range if wanted (pauc@specificity:0.8-1); sensitivity@R, specificity@R
    (positive is a rating of at least R); with lesions wafroc, afroc, hrauc, lroc, pcl@F
    (share of lesions in the right place at a false-positive rate of F) or alroc@F (area under the
    LROC curve up to F).

    Raises EvaluationError. Codes: unknown_figure, out_of_range, no_lesions_table, needs_hrauc,
    not_lroc.
    """
    kind, _, argument = name.partition("@")
    if kind in ("sensitivity", "specificity"):
        return RateFigure(name, kind == "sensitivity", _number(argument, name))
    if kind == "pauc":
        return PartialAreaFigure(name, *_range(argument, name))
    if name not in PAIRS and kind not in UP_TO:
        raise EvaluationError(
            f"the figure of merit {name!r} does not exist; choose one of {NAMES}",
            code="unknown_figure",
        )
    if name != "auc" and ratings.lesions is None:
        raise EvaluationError(
            f"the figure {name!r} needs marks: a column 'lesion' in the readers table, and the "
            "lesions table",
            code="no_lesions_table",
        )
    if name == "auc" and ratings.lesions is not None:
        raise EvaluationError(
            "the readers table holds marks, so a case has no rating of its own: choose hrauc "
            "(the highest mark of the case), wafroc, afroc or lroc",
            code="needs_hrauc",
        )
    if (name == "lroc" or kind in UP_TO) and ratings.lesions is not None:
        _check_lroc(ratings, ratings.lesions)
    if kind in UP_TO:
        return LrocFigure(name, _rate(argument, name), area=kind == "alroc")
    return PAIRS[name]


def _whole(cell: Cell) -> Pairs:
    diseased = cell.rating[cell.truth]
    one = np.ones(diseased.size)
    return Pairs(diseased, one, np.arange(diseased.size), one, cell.rating[~cell.truth])


def _lesions(cell: Cell) -> Pairs:
    owner = (np.cumsum(cell.truth) - 1)[cell.lesion_case]
    total = np.ones(int(cell.truth.sum()))
    return Pairs(cell.lesion_rating, cell.lesion_weight, owner, total, cell.false_mark[~cell.truth])


def _equal_lesions(cell: Cell) -> Pairs:
    pairs = _lesions(cell)
    count = np.bincount(pairs.owner, minlength=pairs.total.size).astype(float)
    return replace(pairs, weight=np.ones(pairs.signal.size), total=count)


PAIRS: dict[str, PairFigure] = {
    "auc": PairFigure("auc", _whole),
    "hrauc": PairFigure("hrauc", _whole),
    "wafroc": PairFigure("wafroc", _lesions),
    "afroc": PairFigure("afroc", _equal_lesions, u_statistic=False),
    "lroc": PairFigure("lroc", _lesions),
}


def _check_lroc(ratings: Ratings, lesions: Lesions) -> None:
    several = lesions.case.size > int(ratings.truth.sum())
    marks = lesions.n_marks[ratings.read]
    if several or (marks != 1).any():
        what = (
            "some diseased cases have several lesions"
            if several
            else f"{int((marks != 1).sum())} readings have no mark or several"
        )
        raise EvaluationError(
            "LROC needs exactly one located mark in each case and one lesion in each diseased "
            f"case; {what}: choose wafroc or afroc",
            code="not_lroc",
        )


def _rate(text: str, name: str) -> float:
    match = re.fullmatch(r"\d*\.?\d+", text)
    if match is None:
        raise EvaluationError(
            f"the figure {name!r} needs a false-positive rate, such as pcl@0.2 or alroc@0.2",
            code="unknown_figure",
        )
    if not 0.0 < float(text) <= 1.0:
        raise EvaluationError(
            f"the figure {name!r} needs a false-positive rate above 0 and up to 1",
            code="out_of_range",
        )
    return float(text)


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise EvaluationError(
            f"the figure {name!r} needs the rating from which a case is called positive, such as "
            "sensitivity@3",
            code="unknown_figure",
        )
    return value


def _range(text: str, name: str) -> tuple[str, float, float]:
    if not text:
        return PARTIAL
    match = re.fullmatch(r"(?:(specificity|sensitivity):)?(\d*\.?\d+)-(\d*\.?\d+)", text)
    if match is None:
        raise EvaluationError(
            f"the figure {name!r} cannot be read: write pauc@specificity:0.8-1",
            code="unknown_figure",
        )
    low, high = float(match[2]), float(match[3])
    if not 0.0 <= low < high <= 1.0:
        raise EvaluationError(
            f"the figure {name!r} needs a range between 0 and 1 that ascends", code="out_of_range"
        )
    return match[1] or "specificity", low, high

"""Covariances between the figures of all readers and modalities, over patients.

DeLong 1988, the jackknife (Efron 1982), and the unbiased estimator of Gallas, Pennello & Myers
2007. DeLong's needs a crossed study.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.readers.figures import Figure, PairFigure
from medres.evaluate.readers.ratings import Cell, FloatArray, IntArray, Ratings

METHODS = ("delong", "jackknife", "unbiased")
KERNEL_CELLS = 8_000_000  # numbers of all kernels held at a time


def choose_covariance(
    name: str | None, figure: Figure, ratings: Ratings, model: Ratings | None = None
) -> str:
    """The name that was asked for, checked; else DeLong's for the AUC of cases of one patient each,
    and the jackknife for everything else. model: stands alone, and is compared with the readers
    of the same cases.

    Raises EvaluationError. Codes: unknown_covariance, covariance_not_for_figure,
    covariance_not_for_clusters, covariance_needs_crossed.
    """
    crossed = ratings.crossed and (model is None or model.crossed)
    if name is None:
        simple = figure.name == "auc" and crossed and not ratings.clustered
        return "delong" if simple else "jackknife"
    if name not in METHODS:
        raise EvaluationError(
            f"the covariance {name!r} does not exist; choose {', '.join(METHODS)}",
            code="unknown_covariance",
        )
    if name != "jackknife" and not figure.u_statistic:
        raise EvaluationError(
            f"the covariance {name!r} holds for means over pairs of a diseased and a non-diseased "
            f"case, which {figure.name!r} is not: choose jackknife",
            code="covariance_not_for_figure",
        )
    if name != "jackknife" and ratings.clustered:
        raise EvaluationError(
            f"the covariance {name!r} takes cases as independent, and some patients have several: "
            "choose jackknife, which leaves out whole patients",
            code="covariance_not_for_clusters",
        )
    if name == "delong" and not crossed:
        raise EvaluationError(
            "the covariance 'delong' needs every reader (and the model) to have read every case "
            "in every modality: choose jackknife or unbiased",
            code="covariance_needs_crossed",
        )
    return name


def figure_values(figure: Figure, ratings: Ratings) -> FloatArray:
    """(modalities, readers); NaN where a reader read nothing."""
    values = [figure.value(cell) if cell.case.size else np.nan for cell in ratings.cells()]
    return np.reshape(values, (len(ratings.modalities), len(ratings.readers)))


def figure_covariance(method: str, figure: Figure, ratings: Ratings) -> FloatArray:
    """(modalities x readers, the same): covariance matrix of the values, in the order of
    `Ratings.cells`. method: of METHODS, as `choose_covariance` allows it.
    """
    if method == "jackknife" or not isinstance(figure, PairFigure):
        return _jackknife(figure, ratings)
    return _delong(figure, ratings) if method == "delong" else _unbiased(figure, ratings)


def _jackknife(figure: Figure, ratings: Ratings) -> FloatArray:
    """Leaves out each patient on whom any value depends; a value of a reader who did not see the
    patient stays as it is. Values without a common patient are not correlated.
    """
    parts = [(figure.value(cell), *figure.leave_one_out(cell)) for cell in ratings.cells()]
    patients = np.unique(np.concatenate([part[1] for part in parts]))
    left_out = np.empty((len(parts), patients.size))
    seen = np.zeros(left_out.shape)
    for number, (value, of_cell, values) in enumerate(parts):
        at = np.searchsorted(patients, of_cell)
        left_out[number] = value
        left_out[number, at] = values
        seen[number, at] = 1.0
    n = patients.size
    centered = left_out - left_out.mean(axis=1, keepdims=True)
    return np.where(seen @ seen.T > 0, (n - 1) / n * centered @ centered.T, 0.0)


def _delong(figure: PairFigure, ratings: Ratings) -> FloatArray:
    sums = [figure.pairs(cell).sums() for cell in ratings.cells()]
    rows, columns = (np.stack(part) for part in zip(*sums, strict=True))
    m, n = rows.shape[1], columns.shape[1]
    diseased, healthy = np.cov(rows / n), np.cov(columns / m)
    return np.atleast_2d(diseased) / m + np.atleast_2d(healthy) / n


def _unbiased(figure: PairFigure, ratings: Ratings) -> FloatArray:
    """The product of two values minus the mean product of two kernels that share no case."""
    sums, counts = pair_moments(figure, ratings)
    with np.errstate(invalid="ignore"):
        return sums.everything / counts.everything - sums.apart / counts.apart


@dataclass(frozen=True)
class Moments:
    """Sums of products of two kernels (or numbers of such products), by which cases the two share.

    All are (cells, cells). both: the same diseased and the same healthy case. diseased, healthy:
    that one is the same, the other any. everything: any cases.
    """

    both: FloatArray
    diseased: FloatArray
    healthy: FloatArray
    everything: FloatArray

    @property
    def apart(self) -> FloatArray:
        """Products of kernels that share no case."""
        return self.everything - self.diseased - self.healthy + self.both


def pair_moments(figure: PairFigure, ratings: Ratings) -> tuple[Moments, Moments]:
    """Sums of products of kernels over all pairs of cells, and their numbers."""
    diseased, healthy = np.flatnonzero(ratings.truth), np.flatnonzero(~ratings.truth)
    cells = list(ratings.cells())
    read = ratings.read.reshape(len(cells), -1).astype(float)
    m, n = read[:, diseased], read[:, healthy]
    rows, columns = np.zeros(m.shape), np.zeros(n.shape)
    both = np.zeros((len(cells), len(cells)))
    step = max(1, KERNEL_CELLS // (len(cells) * healthy.size))
    for first in range(0, diseased.size, step):
        part = diseased[first : first + step]
        kernels = np.stack([_kernel(figure, cell, part, healthy) for cell in cells])
        rows[:, first : first + step] = kernels.sum(axis=2)
        columns += kernels.sum(axis=1)
        flat = kernels.reshape(len(cells), -1)
        both += flat @ flat.T
    total = rows.sum(axis=1)
    sums = Moments(both, rows @ rows.T, columns @ columns.T, np.outer(total, total))
    m_both, n_both = m @ m.T, n @ n.T
    m_all, n_all = (np.outer(k.sum(axis=1), k.sum(axis=1)) for k in (m, n))
    return sums, Moments(m_both * n_both, m_both * n_all, n_both * m_all, m_all * n_all)


def _kernel(figure: PairFigure, cell: Cell, diseased: IntArray, healthy: IntArray) -> FloatArray:
    """(diseased, healthy) cases of the study; zero for those that the reader did not see."""
    kernel = np.zeros((diseased.size, healthy.size))
    case_d, case_h = cell.case[cell.truth], cell.case[~cell.truth]
    first, stop = np.searchsorted(case_d, [diseased[0], diseased[-1] + 1])
    if stop > first:
        rows = np.searchsorted(diseased, case_d[first:stop])
        part = figure.pairs(cell).kernel(slice(int(first), int(stop)))
        kernel[np.ix_(rows, np.searchsorted(healthy, case_h))] = part
    return kernel

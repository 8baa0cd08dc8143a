"""Covariances between the figures of all readers and modalities, over patients.

DeLong 1988, the jackknife (Efron 1982), and the unbiased estimator of Gallas, Pennello & Myers
2007. All need a crossed study.
"""

from __future__ import annotations

import numpy as np

from medres.errors import EvaluationError
from medres.evaluate.readers.figures import Figure, PairFigure
from medres.evaluate.readers.ratings import FloatArray, Ratings

METHODS = ("delong", "jackknife", "unbiased")
KERNEL_CELLS = 8_000_000  # numbers of all kernels held at a time


def choose_covariance(name: str | None, figure: Figure, ratings: Ratings) -> str:
    """The name that was asked for, checked; else DeLong's for the AUC of cases of one patient each,
    and the jackknife for everything else.

    Raises EvaluationError. Codes: unknown_covariance, covariance_not_for_figure,
    covariance_not_for_clusters.
    """
    if name is None:
        return "delong" if figure.name == "auc" and not ratings.clustered else "jackknife"
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
    return name


def figure_values(figure: Figure, ratings: Ratings) -> FloatArray:
    """(modalities, readers)."""
    values = [figure.value(cell) for cell in ratings.cells()]
    return np.reshape(values, (len(ratings.modalities), len(ratings.readers)))


def figure_covariance(method: str, figure: Figure, ratings: Ratings) -> FloatArray:
    """(modalities x readers, the same): covariance matrix of the values, in the order of
    `Ratings.cells`. method: of METHODS, as `choose_covariance` allows it.
    """
    if method == "jackknife":
        return _jackknife(figure, ratings)
    assert isinstance(figure, PairFigure)
    return _delong(figure, ratings) if method == "delong" else _unbiased(figure, ratings)


def _jackknife(figure: Figure, ratings: Ratings) -> FloatArray:
    left_out = np.stack([figure.leave_one_out(cell) for cell in ratings.cells()])
    n = left_out.shape[1]
    centered = left_out - left_out.mean(axis=1, keepdims=True)
    return (n - 1) / n * centered @ centered.T


def _delong(figure: PairFigure, ratings: Ratings) -> FloatArray:
    sums = [figure.pairs(cell).sums() for cell in ratings.cells()]
    rows, columns = (np.stack(part) for part in zip(*sums, strict=True))
    m, n = rows.shape[1], columns.shape[1]
    diseased, healthy = np.cov(rows / n), np.cov(columns / m)
    return np.atleast_2d(diseased) / m + np.atleast_2d(healthy) / n


def _unbiased(figure: PairFigure, ratings: Ratings) -> FloatArray:
    """cov = E(product of two values) minus the mean of products of kernels that share no case."""
    pairs = [figure.pairs(cell) for cell in ratings.cells()]
    sums = [part.sums() for part in pairs]
    rows, columns = (np.stack(part) for part in zip(*sums, strict=True))
    m, n = rows.shape[1], columns.shape[1]
    step = max(1, KERNEL_CELLS // (len(pairs) * n))
    same_both = np.zeros((len(pairs), len(pairs)))
    for first in range(0, m, step):
        part = slice(first, first + step)
        flat = np.stack([pair.kernel(part).ravel() for pair in pairs])
        same_both += flat @ flat.T
    total = rows.sum(axis=1)
    product = np.outer(total, total)
    apart = product - rows @ rows.T - columns @ columns.T + same_both
    return product / (m * n) ** 2 - apart / (m * (m - 1) * n * (n - 1))

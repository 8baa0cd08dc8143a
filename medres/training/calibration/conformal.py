"""Class-conditional split-conformal quantiles with patients as clusters. Pure NumPy."""

from __future__ import annotations

import numpy as np


def conformal_quantile(scores: np.ndarray, patient: np.ndarray, alpha: float) -> float | None:
    """The quantile q of nonconformity scores: a new patient's unit of this class has a score <= q
    with a probability of at least 1 - alpha.

    scores (n,), patient (n,): units of one class; a patient may have several. One unit per patient
    is drawn repeatedly and the conformal p-values are averaged (Dunn, Wasserman & Ramdas 2023,
    repeated subsampling). This function computes the limit of infinitely many draws, where each
    unit of a patient with m units has weight 1/m:

        p(s) = (1 + sum over patients of the share of their scores >= s) / (patients + 1),
        q = the largest score with p > alpha

    For an average of p-values the coverage is proven only up to a factor of 2: it is at least
    1 - 2 alpha where patients have several units, and near 1 - alpha in practice. With one unit per
    patient the coverage is exact, and q is the ceil((n + 1)(1 - alpha))-th smallest score. None for
    fewer than ceil(1 / alpha) - 1 patients, since no finite quantile then has the coverage.

    >>> conformal_quantile(np.linspace(0.1, 0.9, 9), np.arange(9), 0.1)
    0.9
    """
    _, code = np.unique(patient, return_inverse=True)
    share = 1.0 / np.bincount(code)[code]
    patients = int(code.max(initial=-1)) + 1
    if (patients + 1) * alpha < 1.0 - 1e-9:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, at_least = scores[order], np.cumsum(share[order])
    p = (1.0 + at_least) / (patients + 1)
    return float(ranked[p > alpha + 1e-12][0])

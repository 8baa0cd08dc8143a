"""Class-conditional split-conformal quantiles with patients as clusters. Pure numpy."""

from __future__ import annotations

import numpy as np


def conformal_quantile(scores: np.ndarray, patient: np.ndarray, alpha: float) -> float | None:
    """Quantile q of nonconformity scores: a new patient's unit of this class has a score <= q with
    probability 1 - alpha or more.

    scores (n,), patient (n,): units of one class, several of one patient allowed. One unit a
    patient is drawn again and again and the conformal p-values are averaged (Dunn, Wasserman &
    Ramdas 2023, repeated subsampling); here in the limit of infinitely many draws, where a unit of
    a patient with m units counts 1/m:

        p(s) = (1 + sum over patients of the share of their scores >= s) / (patients + 1),
        q = the greatest score with p > alpha

    An average of p-values is proven only up to a factor of 2: 1 - 2 alpha where patients have
    several units, and near 1 - alpha in practice. With one unit a patient the coverage is exact,
    and q is the ceil((n + 1)(1 - alpha))-th smallest score. None where fewer than ceil(1 / alpha) -
    1 patients are given: no finite quantile then has the coverage.
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

"""Chance-corrected agreement on categories: Cohen's kappa, weighted kappa, Fleiss' kappa and
Gwet's AC1.

Every coefficient is (observed - expected) / (1 - expected). Its interval comes from the influence
of each case on it (Fleiss, Cohen & Everitt 1969; Gwet 2008), summed within patients, with
Student's t over patients.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import stdtrit

from medres.evaluate.readers.ratings import FloatArray, IntArray
from medres.evaluate.statistics.estimate import Estimate, undefined

MIN_CASES = 2
FEW_CASES = "fewer than two patients were read by all of these readers"
ONE_CATEGORY = "all ratings are in one category, so agreement by chance is complete"
NO_INTERVAL = "no case differs in its agreement, so there is no variance"


def unweighted(categories: int) -> FloatArray:
    """Weights (categories, categories): only equal categories agree."""
    return np.eye(categories)


def linear(categories: int) -> FloatArray:
    """Weights that fall with the distance of the categories in their order.

    >>> linear(3)[0].tolist()
    [1.0, 0.5, 0.0]
    """
    return 1.0 - _distance(categories)


def quadratic(categories: int) -> FloatArray:
    """Weights that fall with the squared distance."""
    return 1.0 - _distance(categories) ** 2


def cohen_kappa(
    codes: IntArray, weights: FloatArray, patient: IntArray, level: float, method: str
) -> Estimate:
    """Of two readers. codes: (2, cases) numbers of categories; weights: (categories, categories)
    with a diagonal of ones; patient: (cases,).
    """
    if np.unique(patient).size < MIN_CASES:
        return undefined(FEW_CASES, n=codes.shape[1])
    share_a, share_b = (np.bincount(c, minlength=len(weights)) / c.size for c in codes)
    of_a, of_b = weights @ share_b, share_a @ weights
    observed = weights[codes[0], codes[1]]
    expected = float(share_a @ of_a)
    return _chance_corrected(
        observed, expected, of_a[codes[0]] + of_b[codes[1]] - 2 * expected, patient, level, method
    )


def fleiss_kappa(
    codes: IntArray, categories: int, patient: IntArray, level: float, method: str
) -> Estimate:
    """Of several readers. codes: (readers, cases)."""
    if np.unique(patient).size < MIN_CASES:
        return undefined(FEW_CASES, n=codes.shape[1])
    counts, observed = _counts(codes, categories)
    share = counts.mean(axis=0) / len(codes)
    expected = float(np.sum(share**2))
    change = 2.0 * (counts @ share / len(codes) - expected)
    return _chance_corrected(observed, expected, change, patient, level, method)


def gwet_ac1(
    codes: IntArray, categories: int, patient: IntArray, level: float, method: str
) -> Estimate:
    """Of two or more readers. codes: (readers, cases); categories: of the scale, at least two."""
    if np.unique(patient).size < MIN_CASES:
        return undefined(FEW_CASES, n=codes.shape[1])
    counts, observed = _counts(codes, categories)
    share = counts.mean(axis=0) / len(codes)
    expected = float(np.sum(share * (1.0 - share))) / (categories - 1)
    change = (counts / len(codes) - share) @ (1.0 - 2.0 * share) / (categories - 1)
    return _chance_corrected(observed, expected, change, patient, level, method)


def symmetric_interval(
    value: float, influence: FloatArray, patient: IntArray, level: float, method: str
) -> Estimate:
    """value and its interval from the influence (cases,) of each case, whose sum is zero."""
    _, number = np.unique(patient, return_inverse=True)
    of_patient = np.bincount(number, influence)
    groups = of_patient.size
    variance = groups / (groups - 1) * float(np.sum(of_patient**2))
    null = Estimate(value, level=level, n=influence.size, n_clusters=groups, why=NO_INTERVAL)
    if variance <= np.finfo(float).eps ** 2:
        return null
    half = float(stdtrit(groups - 1, 0.5 + level / 2.0)) * np.sqrt(variance)
    low, high = max(value - half, -1.0), min(value + half, 1.0)
    return replace(
        null, ci_low=float(low), ci_high=float(high), sided="two", method=method, why=None
    )


def _chance_corrected(
    observed: FloatArray,
    expected: float,
    change_of_expected: FloatArray,
    patient: IntArray,
    level: float,
    method: str,
) -> Estimate:
    """observed: (cases,) agreement of each; change_of_expected: (cases,) influence on it."""
    rest = 1.0 - expected
    if rest <= np.finfo(float).eps:
        return undefined(ONE_CATEGORY, n=observed.size)
    mean = float(observed.mean())
    change = (observed - mean) / rest - (1.0 - mean) / rest**2 * change_of_expected
    value = (mean - expected) / rest
    return symmetric_interval(value, change / observed.size, patient, level, method)


def _counts(codes: IntArray, categories: int) -> tuple[FloatArray, FloatArray]:
    """Readers in each category (cases, categories), and the share of agreeing pairs (cases,)."""
    counts = (codes[:, :, None] == np.arange(categories)).sum(axis=0).astype(float)
    r = len(codes)
    return counts, (np.sum(counts**2, axis=1) - r) / (r * (r - 1))


def _distance(categories: int) -> FloatArray:
    at = np.arange(categories)
    return np.abs(at[:, None] - at) / max(categories - 1, 1)

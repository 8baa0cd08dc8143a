"""Intraclass correlations of ratings that are numbers: ICC(2,1) and ICC(3,1) of Shrout & Fleiss
1979.

Intervals are those of McGraw & Wong 1996 (F distribution) if every case is of another patient, else
from the jackknife over patients.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from medres.evaluate.readers.measures.kappa import FEW_CASES, MIN_CASES, symmetric_interval
from medres.evaluate.readers.ratings import FloatArray, IntArray
from medres.evaluate.statistics.estimate import Estimate, undefined

NO_SPREAD = "the ratings do not differ between cases"
NO_ERROR = "the readers agree without error, so there is no interval"
MCGRAW_WONG = "McGraw and Wong (F distribution), over cases"
JACKKNIFE = "jackknife over patients, t"
MAX_EXPONENT = 100  # of ratings: their squares are finite


def icc_agreement(ratings: FloatArray, patient: IntArray, level: float) -> Estimate:
    """ICC(2,1): absolute agreement of one reader, readers random. ratings: (readers, cases)."""
    return _icc(ratings, patient, level, absolute=True)


def icc_consistency(ratings: FloatArray, patient: IntArray, level: float) -> Estimate:
    """ICC(3,1): consistency of one reader, these readers only. ratings: (readers, cases)."""
    return _icc(ratings, patient, level, absolute=False)


def _icc(ratings: FloatArray, patient: IntArray, level: float, *, absolute: bool) -> Estimate:
    n = ratings.shape[1]
    if np.unique(patient).size < MIN_CASES:
        return undefined(FEW_CASES, n=n)
    largest = float(np.abs(ratings).max())
    if largest > 0.0 and abs(np.log10(largest)) > MAX_EXPONENT:
        ratings = ratings / largest  # the scale does not matter to an ICC
    value = _value(ratings, absolute)
    if value is None:
        return undefined(NO_SPREAD, n=n)
    if np.unique(patient).size < n:
        return _jackknife(ratings, value, patient, level, absolute)
    of_cases, of_readers, error = _mean_squares(ratings)
    if error <= 1e-12 * of_cases:
        return Estimate(value, level=level, n=n, why=NO_ERROR)
    k, tail = len(ratings), (1.0 - level) / 2.0
    f = of_cases / error
    df, low_df, high_df = float((n - 1) * (k - 1)), float(n - 1), float(n - 1)
    if absolute:
        a = k * value / (n * (1.0 - value))
        b = 1.0 + a * (n - 1)
        top = (a * of_readers + b * error) ** 2
        df = top / ((a * of_readers) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1)))
        below, above = stats.f.isf(tail, low_df, df), stats.f.isf(tail, df, high_df)
        rest = k * of_readers + (k * n - k - n) * error
        low = n * (of_cases - below * error) / (below * rest + n * of_cases)
        high = n * (above * of_cases - error) / (rest + n * above * of_cases)
    else:
        lower = f / stats.f.isf(tail, low_df, df)
        upper = f * stats.f.isf(tail, df, high_df)
        low, high = (lower - 1) / (lower + k - 1), (upper - 1) / (upper + k - 1)
    return Estimate(
        value, float(low), float(high), level=level, sided="two", method=MCGRAW_WONG, n=n
    )


def _mean_squares(ratings: FloatArray) -> tuple[float, float, float]:
    """Of cases, readers and error. ratings: (readers, cases)."""
    k, n = ratings.shape
    of_case, of_reader, mean = ratings.mean(axis=0), ratings.mean(axis=1), ratings.mean()
    rest = ratings - of_case - of_reader[:, None] + mean
    return (
        float(k * np.sum((of_case - mean) ** 2)) / (n - 1),
        float(n * np.sum((of_reader - mean) ** 2)) / (k - 1),
        float(np.sum(rest**2)) / ((n - 1) * (k - 1)),
    )


def _value(ratings: FloatArray, absolute: bool) -> float | None:
    of_cases, of_readers, error = _mean_squares(ratings)
    k, n = ratings.shape
    total = of_cases + (k - 1) * error
    if absolute:
        total += k * (of_readers - error) / n
    return None if total <= 0.0 else (of_cases - error) / total


def _jackknife(
    ratings: FloatArray, value: float, patient: IntArray, level: float, absolute: bool
) -> Estimate:
    names, number = np.unique(patient, return_inverse=True)
    left_out = []
    for p in range(names.size):
        part = ratings[:, number != p]
        without = _value(part, absolute) if part.shape[1] > 1 else None
        if without is None:
            return Estimate(value, level=level, n=number.size, why=NO_SPREAD)
        left_out.append(without)
    values = np.array(left_out)
    groups = names.size
    influence = (groups - 1) / groups * (values.mean() - values)
    found = symmetric_interval(value, influence, np.arange(groups), level, JACKKNIFE)
    return replace(found, n=number.size)

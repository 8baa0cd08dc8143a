"""BCa intervals: against scipy's, on exact cases, and where there is nothing to resample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.statistics.bca import FEW_PATIENTS, bca_estimate, draw


def weighted_mean(values: np.ndarray):
    return lambda weight: np.array([weight @ values / weight.sum()])


def test_close_to_scipy() -> None:
    values = np.random.default_rng(0).exponential(1.0, 60)
    found = bca_estimate(draw(weighted_mean(values), 60, replicates=8000), 0, 0.95)
    theirs = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=8000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.bounds == pytest.approx((theirs.low, theirs.high), abs=0.04)
    assert found.estimate == pytest.approx(values.mean())


def test_few_patients_are_flagged_and_equal_ones_have_no_interval() -> None:
    values = np.arange(12.0)
    assert bca_estimate(draw(weighted_mean(values), 12), 0, 0.95).flag == FEW_PATIENTS
    equal = bca_estimate(draw(weighted_mean(np.ones(12)), 12), 0, 0.95)
    assert (equal.estimate, equal.bounds) == (1.0, None)


def test_undefined_statistics() -> None:
    nothing = draw(lambda weight: np.array([np.nan]), 12, replicates=50)
    assert bca_estimate(nothing, 0, 0.95, why="no lesion").why == "no lesion"
    rare = np.zeros(12)
    rare[0] = 1.0
    half = draw(
        lambda w: np.array([1.0 if w[0] else np.nan]), 12, replicates=200
    )  # without the only positive patient there is no value
    found = bca_estimate(half, 0, 0.95)
    assert found.bounds is None
    assert found.replicates_undefined > 20


def test_the_jackknife_leaves_out_groups_of_many_patients() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    draws = draw(weighted_mean(values), 1000, replicates=50)
    assert draws.jackknife.shape == (400, 1)

"""BCa intervals: against scipy's, on exact cases, and where there is nothing to resample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.statistics.bca import FEW_PATIENTS, bca_estimate, bca_limits, draw


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


@pytest.mark.parametrize(
    "outlier", [0.0, 9.0]
)  # with one, the kurtosis sets the degrees of freedom
def test_limits_equal_a_slow_version(outlier: float) -> None:
    rng = np.random.default_rng(3)
    replicates, influence = np.round(rng.exponential(1.0, 400), 1), rng.exponential(1.0, 8)
    influence[0] += outlier
    influence -= influence.mean()
    value, n = 0.9, 8
    below = sum(one < value - 1e-12 for one in replicates)
    equal = sum(abs(one - value) <= 1e-12 for one in replicates)
    assert equal > 5  # ties count one half
    bias = stats.norm.ppf((below + 0.5 * equal) / 400)
    squares = sum(d * d for d in influence)
    acceleration = sum(d * d * d for d in influence) / (6 * squares * squares**0.5)
    kurtosis = n * sum(d**4 for d in influence) / squares / squares
    df = min(n - 1, 2 * n / (kurtosis - 1))
    assert (df < n - 1) == (outlier > 0)
    limits = []
    for level in (0.05, 0.95):
        z = bias + stats.t.ppf(level, df) * (n / (n - 1)) ** 0.5
        limits.append(np.quantile(replicates, stats.norm.cdf(bias + z / (1 - acceleration * z))))
    assert bca_limits(value, replicates, influence, 0.9) == pytest.approx(limits, rel=1e-9)


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

"""The mean over patients and its bootstrap interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.statistics.bca import FEW_PATIENTS
from medres.evaluate.statistics.patient_means import (
    mean_limits,
    mean_over_patients,
    patient_means,
)


def test_within_the_patient_first() -> None:
    value, patient = np.array([1.0, 0.8, 0.6, np.nan, 0.0]), np.array(["b", "b", "b", "b", "a"])
    assert patient_means(value, patient).tolist() == pytest.approx([0.0, 0.8])
    found = mean_over_patients(value, patient, 0.95)
    assert found.estimate == pytest.approx(0.4)
    assert (found.n, found.n_clusters, found.ci_low) == (4, 2, None)


def test_interval_is_scipys_bca_for_many_patients() -> None:
    """With many patients the widening of the levels is slight."""
    values = np.sort(np.random.default_rng(0).beta(14, 1.2, 400))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=5_000, rng=np.random.default_rng(1), method="BCa"
    ).confidence_interval
    low, high = mean_limits(values, 0.95, 5_000)
    width = high - low
    assert low == pytest.approx(theirs.low, abs=0.08 * width)
    assert high == pytest.approx(theirs.high, abs=0.08 * width)
    assert width > theirs.high - theirs.low - 0.05 * width


def test_order_of_patients_does_not_matter() -> None:
    values = np.random.default_rng(2).beta(8, 2, 40)
    one = mean_over_patients(values, np.arange(40), 0.95)
    other = mean_over_patients(values[::-1], np.arange(40) + 7, 0.95)
    assert one.to_dict() == other.to_dict()
    assert one.flag is None


def test_few_patients_are_flagged_and_very_few_have_no_interval() -> None:
    values = np.linspace(0.5, 0.9, 29)
    assert mean_over_patients(values, np.arange(29), 0.95).flag == FEW_PATIENTS
    assert mean_over_patients(values[:4], np.arange(4), 0.95).bounds is None
    assert mean_over_patients(np.ones(50), np.arange(50), 0.95).bounds is None
    assert mean_over_patients(np.full(3, np.nan), np.arange(3), 0.95, why="none").why == "none"


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_coverage_with_skewed_dice(share: float) -> None:
    """A small simulation; benchmarks/segmentation_coverage.py has the large one."""
    rng = np.random.default_rng(4)
    truth = 14 / 15.2 * (1 - share)
    held = 0
    for _ in range(300):
        values = rng.beta(14, 1.2, 40) * (rng.random(40) >= share)
        low, high = mean_limits(np.sort(values), 0.95, 2000)
        held += low <= truth <= high
    assert 0.90 <= held / 300 <= 0.99

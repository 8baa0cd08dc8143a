from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medres.training.calibration.conformal import conformal_quantile


@given(st.integers(9, 60), st.sampled_from([0.1, 0.2, 0.25, 0.5]), st.integers(0, 2**32 - 1))
def test_one_unit_a_patient_is_split_conformal(n: int, alpha: float, seed: int) -> None:
    scores = np.random.default_rng(seed).random(n)
    want = np.sort(scores)[math.ceil(round((n + 1) * (1 - alpha), 9)) - 1]
    assert conformal_quantile(scores, np.arange(n), alpha) == want


def test_fewer_patients_than_the_level_needs_give_none() -> None:
    for alpha, needed in ((0.1, 9), (0.05, 19), (0.3, 3), (0.5, 1)):
        scores = np.append(np.linspace(0, 0.5, needed - 1), 1.0)
        assert conformal_quantile(scores, np.arange(needed), alpha) == 1.0
        assert conformal_quantile(scores[1:], np.arange(needed - 1), alpha) is None
    many_units = np.random.default_rng(0).random(80)
    assert (
        conformal_quantile(many_units, np.repeat(np.arange(8), 10), 0.1) is None
    )  # units are not patients
    assert conformal_quantile(np.zeros(0), np.zeros(0, int), 0.1) is None


def test_it_is_the_limit_of_drawing_one_unit_a_patient_again_and_again() -> None:
    """Monte Carlo of the definition: draw, take the p-value, average; the set is where the average
    is above alpha.
    """
    rng, alpha = np.random.default_rng(7), 0.2
    sizes = rng.integers(1, 6, 14)
    patient = np.repeat(np.arange(14), sizes)
    scores = np.round(rng.random(len(patient)), 3)
    candidates = np.unique(scores)
    total = np.zeros(len(candidates))
    starts = np.append(0, np.cumsum(sizes)[:-1])
    for _ in range(4000):
        drawn = scores[starts + rng.integers(0, sizes)]
        total += (1 + (drawn[:, None] >= candidates).sum(axis=0)) / 15
    average = total / 4000
    found = conformal_quantile(scores, patient, alpha)
    near = np.abs(average - alpha) < 0.01  # where chance decides
    assert ((candidates <= found) == (average > alpha))[~near].all()
    assert near.sum() < 3


def test_coverage_of_new_patients() -> None:
    """Patients with one to four units that resemble each other: the share of covered units of new
    patients.
    """
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        sizes = rng.integers(1, 5, 41)
        patient = np.repeat(np.arange(41), sizes)
        scores = rng.normal(size=41)[patient] + 0.5 * rng.normal(size=len(patient))
        new = patient == 40
        found = conformal_quantile(scores[~new], patient[~new], 0.2)
        covered.append(np.mean(scores[new] <= found))
    assert np.mean(covered) == pytest.approx(0.8, abs=0.05)
    assert np.mean(covered) > 0.77


def test_ties_count_together() -> None:
    assert conformal_quantile(np.array([0.1] * 5 + [0.9] * 5), np.arange(10), 0.5) == 0.9
    assert conformal_quantile(np.array([0.1] * 9 + [0.9]), np.arange(10), 0.2) == 0.1

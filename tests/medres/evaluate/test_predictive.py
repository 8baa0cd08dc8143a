from __future__ import annotations

import numpy as np
import pytest

from medres.evaluate.predictive import predictive_values


def table(tp: int, n1: int, tn: int, n0: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label = np.repeat([True, False], [n1, n0])
    called = np.concatenate([np.arange(n1) < tp, np.arange(n0) >= tn])
    return called, label, np.arange(n1 + n0)


def test_published_logit_intervals() -> None:
    """31/34, 32/44, prevalence .07: Mercaldo, Lau & Zhou 2007, Statistics in Medicine 26:2170."""
    called, label, patient = table(31, 34, 32, 44)
    ppv, npv = predictive_values(called, label, patient, 0.07, 0.95)
    assert (ppv.ci_low, ppv.ci_high) == pytest.approx((0.1331384, 0.2919216), abs=5e-8)
    assert (npv.ci_low, npv.ci_high) == pytest.approx((0.9734141, 0.9969560), abs=5e-8)


def test_point_values_follow_bayes() -> None:
    called, label, patient = table(40, 50, 90, 100)
    ppv, npv = predictive_values(called, label, patient, 0.2, 0.95)
    assert ppv.estimate == pytest.approx(0.8 * 0.2 / (0.8 * 0.2 + 0.1 * 0.8))
    assert npv.estimate == pytest.approx(0.9 * 0.8 / (0.9 * 0.8 + 0.2 * 0.2))


@pytest.mark.parametrize(("tp", "tn"), [(10, 20), (10, 18), (8, 20), (0, 20), (10, 0)])
def test_empty_cells_still_give_an_interval_with_the_estimate_in_it(tp: int, tn: int) -> None:
    called, label, patient = table(tp, 10, tn, 20)
    for e in predictive_values(called, label, patient, 0.1, 0.95):
        if e.estimate is None:
            assert "no unit is called" in e.why
        else:
            assert 0 <= e.ci_low <= e.estimate <= e.ci_high <= 1
            assert e.ci_high - e.ci_low > 0.001


def test_doubling_every_patient_changes_nothing_when_clustered() -> None:
    called, label, patient = table(31, 34, 32, 44)
    single = predictive_values(called, label, patient, 0.07, 0.95)[0]
    double = predictive_values(np.tile(called, 2), np.tile(label, 2), np.tile(patient, 2), 0.07, 0.95)[0]
    assert double.n_clusters == 78
    assert double.ci_low == pytest.approx(single.ci_low, abs=0.005)
    assert double.ci_low != single.ci_low  # t on 77 degrees of freedom instead of z


def test_clustered_empty_cells_count_patients() -> None:
    called, label, patient = table(10, 10, 20, 20)
    single = predictive_values(called, label, patient, 0.1, 0.95)[0]
    many = predictive_values(np.tile(called, 9), np.tile(label, 9), np.tile(patient, 9), 0.1, 0.95)[0]
    assert many.ci_low == pytest.approx(single.ci_low, abs=0.03)


def test_one_class_has_a_reason() -> None:
    ones = np.ones(3, dtype=bool)
    assert all(e.estimate is None for e in predictive_values(ones, ones, np.arange(3), 0.1, 0.95))


def test_patients_that_are_all_alike_leave_no_interval_rather_than_a_point() -> None:
    called, label = np.array([True, False, True, False]), np.array([True, True, False, False])
    ppv, npv = predictive_values(called, label, np.array([0, 1, 0, 1]), 0.2, 0.95)
    for e in (ppv, npv):
        assert e.estimate is not None
        assert e.ci_low is None or e.ci_low < e.ci_high

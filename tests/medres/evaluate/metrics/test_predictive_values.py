from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from medres.evaluate.metrics.predictive_values import predictive_values

Z = float(stats.norm.ppf(0.975))


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
    for side, e in zip(
        ("positive", "negative"), predictive_values(called, label, patient, 0.1, 0.95), strict=True
    ):
        if e.estimate is None:
            assert e.why == f"no unit is classified as {side}"
        else:
            assert 0 <= e.ci_low <= e.estimate <= e.ci_high <= 1
            assert e.ci_high - e.ci_low > 0.001


def adjusted(
    k1: int, n1: int, k0: int, n0: int, odds: float, quantile: float
) -> tuple[float, float]:
    """z^2/2 added to each of the four cells, then the logit interval."""
    shift = Z * Z / 2
    (a, m), (b, n) = (k1 + shift, n1 + 2 * shift), (k0 + shift, n0 + 2 * shift)
    centre, error = math.log(a / m / (b / n) * odds), math.sqrt(1 / a - 1 / m + 1 / b - 1 / n)
    return expit(centre - quantile * error), expit(centre + quantile * error)


@pytest.mark.parametrize(("tp", "tn"), [(10, 18), (9, 20), (10, 20), (1, 20), (10, 19)])
@pytest.mark.parametrize("copies", [1, 3])
def test_the_interval_of_an_empty_cell_by_hand(tp: int, tn: int, copies: int) -> None:
    """Where patients repeat, a class counts its patients, and t stands for z."""
    called, label, patient = (np.tile(part, copies) for part in table(tp, 10, tn, 20))
    quantile = Z if copies == 1 else stats.t.ppf(0.975, 29)
    ppv, npv = predictive_values(called, label, patient, 0.1, 0.95)
    for e, limits in (
        (ppv, adjusted(tp, 10, 20 - tn, 20, 1 / 9, quantile)),
        (npv, adjusted(tn, 20, 10 - tp, 10, 9, quantile)),
    ):
        assert (e.ci_low, e.ci_high) == pytest.approx(
            (min(limits[0], e.estimate), max(limits[1], e.estimate)), rel=1e-12
        )
        assert (e.level, e.sided, e.n) == (0.95, "two", 30 * copies)
        assert e.method == "adjusted logit (Mercaldo 2007)" + ", patients as clusters" * (
            copies > 1
        )


def test_repeated_patients_by_hand() -> None:
    called, label, patient = table(31, 34, 32, 44)
    alone = predictive_values(called, label, patient, 0.07, 0.95)
    many = predictive_values(np.tile(called, 3), np.tile(label, 3), np.tile(patient, 3), 0.07, 0.95)
    variance = 1 / 31 - 1 / 34 + 1 / 12 - 1 / 44
    half = stats.t.ppf(0.975, 77) * math.sqrt(78 / 77 * variance)
    assert (many[0].ci_low, many[0].ci_high) == pytest.approx(
        (expit(logit(many[0].estimate) - half), expit(logit(many[0].estimate) + half)), rel=1e-12
    )
    for e, (method, n, clusters) in zip(
        (alone[0], many[0]),
        [
            ("logit (Mercaldo 2007)", 78, None),
            ("logit (Mercaldo 2007), patients as clusters", 234, 78),
        ],
        strict=True,
    ):
        assert (e.method, e.n, e.n_clusters, e.level, e.sided) == (method, n, clusters, 0.95, "two")


def test_patients_with_both_labels_against_the_jackknife() -> None:
    """Calls that go by patient cancel out between the classes; a sandwich with the wrong sign would
    add them up.
    """
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(300), 6)
    label = rng.random(1800) < 0.4
    called = rng.random(1800) < expit(rng.normal(scale=2.0, size=300)[patient] + label - 0.5)

    def log_ratio(use: np.ndarray) -> float:
        return math.log(called[use & label].mean() / called[use & ~label].mean())

    without = np.array([log_ratio(patient != one) for one in range(300)])
    error = math.sqrt(299 / 300 * ((without - without.mean()) ** 2).sum())
    ppv = predictive_values(called, label, patient, 0.2, 0.9)[0]
    half = (logit(ppv.ci_high) - logit(ppv.ci_low)) / 2
    assert half == pytest.approx(stats.t.ppf(0.95, 299) * error, rel=0.02)


def test_doubling_every_patient_changes_nothing_when_clustered() -> None:
    called, label, patient = table(31, 34, 32, 44)
    single = predictive_values(called, label, patient, 0.07, 0.95)[0]
    double = predictive_values(
        np.tile(called, 2), np.tile(label, 2), np.tile(patient, 2), 0.07, 0.95
    )[0]
    assert double.n_clusters == 78
    assert double.ci_low == pytest.approx(single.ci_low, abs=0.005)
    assert double.ci_low != single.ci_low  # t on 77 degrees of freedom instead of z


def test_clustered_empty_cells_count_patients() -> None:
    called, label, patient = table(10, 10, 20, 20)
    single = predictive_values(called, label, patient, 0.1, 0.95)[0]
    many = predictive_values(np.tile(called, 9), np.tile(label, 9), np.tile(patient, 9), 0.1, 0.95)[
        0
    ]
    assert many.ci_low == pytest.approx(single.ci_low, abs=0.03)


def test_one_class_has_a_reason() -> None:
    ones = np.ones(3, dtype=bool)
    assert all(e.estimate is None for e in predictive_values(ones, ones, np.arange(3), 0.1, 0.95))
    assert [e.why for e in predictive_values(ones, ~ones, np.arange(3), 0.1, 0.95)] == [
        "predictive values need both classes"
    ] * 2


def test_one_diseased_unit_and_two_patients_are_enough() -> None:
    called, label, patient = (
        np.array([True, False, True]),
        np.array([True, False, False]),
        np.array([0, 1, 1]),
    )
    ppv = predictive_values(called, label, patient, 0.5, 0.95)[0]
    assert ppv.estimate == pytest.approx(1 / 1.5)
    assert ppv.ci_low is not None


def test_one_patient_has_an_estimate_and_a_reason() -> None:
    called, label = np.array([True, False, True, False]), np.array([True, True, False, False])
    for e in predictive_values(called, label, np.zeros(4, dtype=int), 0.2, 0.95):
        assert (e.ci_low, e.n_clusters, e.why) == (
            None,
            1,
            "all units come from one patient: no interval",
        )
        assert e.estimate in (pytest.approx(0.2), pytest.approx(0.8))


def test_patients_that_are_all_alike_leave_no_interval_rather_than_a_point() -> None:
    called, label = np.array([True, False, True, False]), np.array([True, True, False, False])
    ppv, npv = predictive_values(called, label, np.array([0, 1, 0, 1]), 0.2, 0.95)
    for e in (ppv, npv):
        assert e.estimate in (pytest.approx(0.2), pytest.approx(0.8))
        assert (e.ci_low, e.n) == (None, 4)
        assert e.why == "the estimated variance is zero: no interval of this kind"

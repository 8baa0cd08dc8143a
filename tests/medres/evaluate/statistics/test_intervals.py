from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from medres.evaluate.statistics.clusters import t_quantile
from medres.evaluate.statistics.intervals import (
    clopper_pearson,
    design_effect,
    likelihood_ratio,
    logit_interval,
    mean_in_unit_range,
    normal_quantile,
    proportion_estimate,
    wilson,
)

Z = normal_quantile(0.95)


# Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (score without continuity
# correction)
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n, Z) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # the same table, method 5 (Clopper-Pearson)
    [
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_clopper_pearson_published(k: int, n: int, low: float, high: float) -> None:
    assert clopper_pearson(k, n, 0.95) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400), st.data())
def test_wilson_limits_solve_the_score_equation(n: int, data) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n, Z)
    assert 0.0 <= low <= k / n <= high <= 1.0
    for limit in {low, high} - {0.0, 1.0}:
        assert abs(k / n - limit) == pytest.approx(
            Z * math.sqrt(limit * (1 - limit) / n), rel=1e-6, abs=1e-9
        )


def test_proportion_of_single_patients_is_plain_wilson_and_counts() -> None:
    hit = np.array([True] * 15 + [False] * 133)
    e = proportion_estimate(hit, np.arange(148), 0.95)
    assert (e.ci_low, e.ci_high) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert (e.numerator, e.denominator, e.method, e.n_clusters) == (15, 148, "Wilson", None)
    exact = proportion_estimate(hit, np.arange(148), 0.95, exact=True)
    assert (exact.ci_low, exact.ci_high) == pytest.approx((0.0578, 0.1617), abs=5e-5)


def test_what_a_proportion_says() -> None:
    hit, single = np.array([1, 1, 0, 1], bool), np.arange(4)
    counts = {"estimate": 0.75, "level": 0.9, "n": 4, "numerator": 3, "denominator": 4}

    def said(e) -> dict:
        return {key: value for key, value in e.to_dict().items() if not key.startswith("ci_")}

    assert said(proportion_estimate(hit, single, 0.9)) == {
        **counts,
        "sided": "two",
        "method": "Wilson",
    }
    exact = proportion_estimate(hit, single, 0.9, exact=True)
    assert said(exact) == {**counts, "sided": "two", "method": "Clopper-Pearson"}
    assert (exact.ci_low, exact.ci_high) == clopper_pearson(3, 4, 0.9)
    pairs = proportion_estimate(hit, np.array([0, 0, 1, 2]), 0.9)
    effect = {
        "n_clusters": 3,
        "design_effect": pairs.design_effect,
        "n_effective": 4 / pairs.design_effect,
        "effective_patients": 16 / 6,
        "flag": "fewer than 10 effective patients",
    }
    method = "Wilson on n / design effect, patients as clusters, t"
    assert said(pairs) == {**counts, **effect, "sided": "two", "method": method}
    why = "all units come from one patient: no interval"
    assert said(proportion_estimate(hit, np.zeros(4, int), 0.9)) == {
        **counts,
        "n_clusters": 1,
        "why": why,
    }
    none = proportion_estimate(np.zeros(0, bool), np.zeros(0, int), 0.9)
    assert none.to_dict() == {
        "estimate": None, "ci_low": None, "ci_high": None, "n": 0, "numerator": 0, "denominator": 0,
        "why": "no unit in the denominator",
    }  # fmt: skip


def test_logit_limits_do_not_overflow() -> None:
    assert logit_interval(0.5, 1000.0, Z) == (0.0, 1.0)


def test_clustered_proportion_worked_by_hand() -> None:
    # patients: 2 of 2, 2 of 2, 0 of 2, 1 of 2, 0 of 2; p = .5, deviations 1, 1, -1, 0, -1
    hit = np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0], dtype=bool)
    patient = np.repeat(np.arange(5), 2)
    variance = 5 / 4 * 4 / 100
    effect = variance / (0.25 / 10)
    assert design_effect(hit.astype(float), patient) == pytest.approx(effect)
    e = proportion_estimate(hit, patient, 0.95)
    effective = 10 / effect
    assert e.n_effective == pytest.approx(effective)
    t = t_quantile(0.95, 4)
    for limit in (e.ci_low, e.ci_high):
        assert abs(0.5 - limit) == pytest.approx(
            t * math.sqrt(limit * (1 - limit) / effective), rel=1e-9
        )


def test_design_effect_is_never_under_one() -> None:
    hit = np.tile([1.0, 0.0], 6)
    assert design_effect(hit, np.repeat(np.arange(6), 2)) == 1.0


@pytest.mark.parametrize("all_hit", [True, False])
def test_at_the_edge_the_number_of_patients_counts(all_hit: bool) -> None:
    hit = np.full(40, all_hit)
    e = proportion_estimate(hit, np.repeat(np.arange(20), 2), 0.95)
    assert e.n_effective == 20
    t2 = t_quantile(0.95, 19) ** 2
    assert abs(e.estimate - (e.ci_low if all_hit else e.ci_high)) == pytest.approx(t2 / (20 + t2))
    assert (e.ci_high if all_hit else e.ci_low) == float(all_hit)


def test_proportion_without_units_or_with_one_patient_has_a_reason() -> None:
    assert (
        proportion_estimate(np.zeros(0, dtype=bool), np.zeros(0, dtype=int), 0.95).why
        == "no unit in the denominator"
    )
    one = proportion_estimate(np.array([True, False]), np.array([7, 7]), 0.95)
    assert one.estimate == 0.5
    assert one.ci_low is None
    assert "one patient" in one.why


def test_likelihood_ratio_worked_by_hand() -> None:
    # 40/50 against 10/100: LR+ 8; SE(log) = sqrt(1/40 - 1/50 + 1/10 - 1/100)
    label = np.repeat([True, False], [50, 100])
    hit = np.concatenate([np.arange(50) < 40, np.arange(100) < 10])
    e = likelihood_ratio(hit, label, np.arange(150), 0.95, "LR+")
    half = Z * math.sqrt(1 / 40 - 1 / 50 + 1 / 10 - 1 / 100)
    assert e.estimate == pytest.approx(8.0)
    assert (e.ci_low, e.ci_high) == pytest.approx((8 * math.exp(-half), 8 * math.exp(half)))


def test_clustered_likelihood_ratio_of_near_singletons_is_close_to_the_plain_one() -> None:
    rng = np.random.default_rng(4)
    label = rng.random(2000) < 0.4
    hit = rng.random(2000) < np.where(label, 0.8, 0.2)
    patient = np.arange(2000)
    plain = likelihood_ratio(hit, label, patient, 0.95, "LR+")
    patient[1] = 0
    clustered = likelihood_ratio(hit, label, patient, 0.95, "LR+")
    assert clustered.method == "log method, patients as clusters"
    assert clustered.ci_low == pytest.approx(plain.ci_low, rel=5e-3)


def test_clustered_likelihood_ratio_by_loops_over_patients() -> None:
    """Influence of each patient on log(k1 / n1) - log(k0 / n0), whose patients hold units of both
    classes.
    """
    rng = np.random.default_rng(6)
    patient, label = np.repeat(np.arange(9), 4), np.tile([True, False, True, False], 9)
    hit = rng.random(36) < np.where(label, 0.7, 0.3) + 0.2 * (patient % 2)
    k1, n1 = (hit & label).sum(), label.sum()
    k0, n0 = (hit & ~label).sum(), (~label).sum()
    variance = both = 0.0
    for one in range(9):
        own = patient == one
        up = ((hit & label & own).sum() - k1 / n1 * (label & own).sum()) / k1
        down = ((hit & ~label & own).sum() - k0 / n0 * (~label & own).sum()) / k0
        variance += (up - down) ** 2 * 9 / 8
        both += up * down
    assert abs(both) > 0.002  # so that the sign of the second part matters
    e = likelihood_ratio(hit, label, patient, 0.9, "LR+")
    half = stats.t.ppf(0.95, 8) * math.sqrt(variance)
    assert (math.log(e.ci_low), math.log(e.ci_high)) == pytest.approx(
        (math.log(e.estimate) - half, math.log(e.estimate) + half)
    )
    said = (e.level, e.sided, e.method, e.n, e.n_clusters)
    assert said == (0.9, "two", "log method, patients as clusters", 36, 9)


def test_what_a_likelihood_ratio_says() -> None:
    label, hit = np.repeat([True, False], [5, 3]), np.array([1, 1, 1, 0, 0, 1, 0, 0], bool)
    plain = likelihood_ratio(hit, label, np.arange(8), 0.95, "LR+")
    assert (plain.level, plain.sided, plain.method, plain.n, plain.n_clusters) == (
        0.95, "two", "log method (Simel 1991)", 8, None,
    )  # fmt: skip
    missed = likelihood_ratio(~label, label, np.arange(8), 0.95, "LR+")
    assert missed.to_dict() == {
        "estimate": 0.0,
        "ci_low": None,
        "ci_high": None,
        "method": "log method (Simel 1991)",
        "n": 8,
        "why": "the log method needs a count above zero",
    }
    one = likelihood_ratio(hit, label, np.zeros(8, int), 0.95, "LR+")
    why = "all units come from one patient: no interval"
    assert (one.estimate, one.why, one.n, one.n_clusters) == (pytest.approx(9 / 5), why, 8, 1)
    two = likelihood_ratio(hit, label, np.arange(8) % 2, 0.95, "LR+")
    assert (two.n_clusters, two.ci_low is None) == (2, False)
    every = likelihood_ratio(np.ones(8, bool), label, np.arange(8), 0.95, "LR+")
    why = "the estimated variance is zero: every unit is on the same side of the threshold"
    assert (every.estimate, every.why, every.n) == (1.0, why, 8)
    single = likelihood_ratio(
        np.array([1, 1, 0], bool), np.array([1, 0, 0], bool), np.arange(3), 0.95, "LR+"
    )
    assert single.estimate == 2.0  # one positive unit is a class


def test_exact_limits_at_the_edges() -> None:
    assert clopper_pearson(0, 7, 0.95) == (0.0, pytest.approx(1 - 0.025 ** (1 / 7)))
    assert clopper_pearson(7, 7, 0.95) == (pytest.approx(0.025 ** (1 / 7)), 1.0)


def test_what_a_mean_in_unit_range_says() -> None:
    value, patient = np.array([0.1, 0.2, 0.4, 0.3]), np.array([0, 0, 1, 1])
    e = mean_in_unit_range(value, patient, 0.9, "its name")
    assert (e.estimate, e.level, e.sided, e.method, e.n, e.n_clusters) == (
        0.25,
        0.9,
        "two",
        "its name",
        4,
        2,
    )
    assert e.ci_low < 0.25 < e.ci_high
    for value, patient, why in (
        ([0.1, 0.2], [0, 0], "only one patient: no interval"),
        ([0.2, 0.2], [0, 1], "the patients do not differ: no interval"),
        ([0.0, 0.0], [0, 1], "the patients do not differ: no interval"),
        ([1.0, 1.0], [0, 1], "the patients do not differ: no interval"),
    ):
        e = mean_in_unit_range(np.array(value), np.array(patient), 0.95, "m")
        assert (e.estimate, e.ci_low, e.why, e.n) == (pytest.approx(np.mean(value)), None, why, 2)
        assert e.n_clusters == len(set(patient))


def test_likelihood_ratio_edges_are_reasons_not_infinities() -> None:
    label = np.array([True, True, False, False])
    nobody, all_positive = np.zeros(4, dtype=bool), label.copy()
    assert (
        "division by zero" in likelihood_ratio(all_positive, label, np.arange(4), 0.95, "LR+").why
    )
    assert "division by zero" in likelihood_ratio(nobody, label, np.arange(4), 0.95, "LR+").why
    missed = likelihood_ratio(~label, label, np.arange(4), 0.95, "LR+")
    assert missed.estimate == 0.0
    assert missed.ci_low is None
    assert (
        "both classes"
        in likelihood_ratio(label, np.ones(4, dtype=bool), np.arange(4), 0.95, "LR+").why
    )
    assert (
        "variance is zero"
        in likelihood_ratio(np.ones(4, dtype=bool), label, np.arange(4), 0.95, "LR+").why
    )


def test_mean_in_unit_range_matches_the_delta_method() -> None:
    value = np.random.default_rng(0).random(60) * 0.3
    e = mean_in_unit_range(value, np.arange(60), 0.95, "m")
    error = value.std(ddof=1) / math.sqrt(60)
    centre = stats.logistic.ppf(value.mean())
    half = t_quantile(0.95, 59) * error / value.mean() / (1 - value.mean())
    assert e.ci_low == pytest.approx(stats.logistic.cdf(centre - half))
    assert mean_in_unit_range(np.zeros(5), np.arange(5), 0.95, "m").why
    assert mean_in_unit_range(np.array([0.1, 0.2]), np.zeros(2, dtype=int), 0.95, "m").why


def test_logit_interval_stays_inside_and_inverts() -> None:
    low, high = logit_interval(0.99, 0.02, Z)
    assert 0 < low < 0.99 < high < 1
    root = optimize.brentq(
        lambda x: stats.logistic.ppf(0.99) - stats.logistic.ppf(x) - Z * 0.02 / 0.0099, 1e-9, 0.99
    )
    assert low == pytest.approx(root)


@pytest.mark.parametrize("hits", [1, 5])
def test_clustered_limits_next_to_the_ends_stay_off_them(hits: int) -> None:
    e = proportion_estimate(np.arange(6) < hits, np.array([0, 0, 1, 1, 2, 2]), 0.95)
    assert (e.ci_low, e.ci_high) == pytest.approx(
        wilson(hits / 6 * e.n_effective, e.n_effective, t_quantile(0.95, 2)), abs=1e-12
    )
    assert 0 < e.ci_low < e.ci_high < 1

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from medres.evaluate.metrics.calibration import (
    CLIP,
    brier_decomposition,
    brier_estimate,
    calibration_estimates,
    clipped_logit,
    coefficient_influence,
    expected_calibration_error,
    logistic,
    n_clipped,
    reliability,
)
from medres.evaluate.results import ReliabilityBin
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.clusters import t_quantile
from medres.evaluate.statistics.estimate import Estimate
from medres.evaluate.statistics.intervals import (
    mean_in_unit_range,
    normal_quantile,
    proportion_estimate,
)


def sample_of(label, score, patient=None) -> Sample:
    label = np.asarray(label, dtype=bool)
    n = label.size
    return Sample(
        label,
        np.asarray(score, dtype=float),
        np.arange(n) if patient is None else np.asarray(patient),
        np.zeros(n, dtype=np.int64),
    )


def drawn(seed: int = 0, n: int = 400, slope: float = 0.6, intercept: float = -0.3) -> Sample:
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) * 1.5
    label = rng.random(n) < 1 / (1 + np.exp(-(intercept + slope * logit)))
    return sample_of(label, 1 / (1 + np.exp(-logit)))


def test_slope_and_intercept_match_scikit_learn_without_penalty() -> None:
    s = drawn()
    out = calibration_estimates(s, 0.95)
    fit = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(
        clipped_logit(s.score)[:, None], s.label
    )
    assert out.slope.estimate == pytest.approx(fit.coef_[0, 0], abs=1e-5)
    assert out.intercept.estimate == pytest.approx(fit.intercept_[0], abs=1e-5)
    assert out.slope.ci_low < 0.6 < out.slope.ci_high


@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-8])
def test_a_model_whose_probabilities_hardly_differ_has_a_slope_with_its_interval(
    spread: float,
) -> None:
    """Its classes are not separated. A logit spread a thousand times less gives limits a thousand
    times as large.
    """
    rng = np.random.default_rng(8)
    logit, label = rng.normal(size=80), rng.random(80) < 0.4
    wide = calibration_estimates(sample_of(label, special.expit(2 + logit)), 0.95).slope
    narrow = calibration_estimates(sample_of(label, special.expit(2 + spread * logit)), 0.95).slope
    wanted = np.array([wide.estimate, wide.ci_low, wide.ci_high]) / spread
    np.testing.assert_allclose([narrow.estimate, narrow.ci_low, narrow.ci_high], wanted, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(-4, 1), st.integers(2, 40))
def test_separated_classes_are_found_at_any_scale(seed: int, power: float, n: int) -> None:
    x = np.random.default_rng(seed).normal(size=n) * 10**power
    label = x > np.median(x)
    if label.any():
        assert logistic(np.column_stack([np.ones(n), x]), label, np.zeros(n)) is None


@pytest.mark.parametrize("shift", [0.0, 9.0, -9.0])
def test_in_the_large_solves_its_score_equation(shift: float) -> None:
    """Also where every probability is nearly 0 or nearly 1, and a whole step of Newton's method
    would run away.
    """
    s = drawn()
    s = sample_of(s.label, 1 / (1 + np.exp(-(clipped_logit(s.score) + shift))))
    logit = clipped_logit(s.score)
    root = optimize.brentq(lambda a: np.sum(s.label - 1 / (1 + np.exp(-(logit + a)))), -20, 20)
    assert calibration_estimates(s, 0.95).in_the_large.estimate == pytest.approx(root, abs=1e-8)


def test_logits_and_how_many_are_clipped() -> None:
    score = np.array([0.0, 1e-7, CLIP, 0.2, 0.5, 0.9, 1 - CLIP, 1.0])
    np.testing.assert_allclose(
        clipped_logit(score), special.logit(np.clip(score, 1e-6, 1 - 1e-6)), rtol=1e-12
    )
    assert n_clipped(score) == 3


@pytest.mark.parametrize("shift", [0.0, 1.3])
def test_sandwich_matches_a_loop_over_patients(shift: float) -> None:
    s = drawn(n=60)
    groups = np.arange(60) // 3
    design = np.column_stack([np.ones(60), clipped_logit(s.score)])
    offset = np.full(60, shift)
    beta = logistic(design, s.label, offset)
    mean = 1 / (1 + np.exp(-(design @ beta + offset)))
    bread = np.linalg.inv(
        sum(m * (1 - m) * np.outer(x, x) for m, x in zip(mean, design, strict=True))
    )
    meat = np.zeros((2, 2))
    for g in range(20):
        score = sum(
            ((s.label - mean)[i] * design[i] for i in np.flatnonzero(groups == g)), np.zeros(2)
        )
        meat += np.outer(score, score)
    expected = bread @ meat @ bread * 20 / 19
    influence = coefficient_influence(design, s.label, offset, beta)
    by_patient = np.stack([influence[groups == g].sum(axis=0) for g in range(20)])
    np.testing.assert_allclose(by_patient.T @ by_patient * 20 / 19, expected, rtol=1e-9)


def test_oe_ratio_and_brier_by_hand() -> None:
    s = sample_of([1, 0, 1, 0], [0.9, 0.2, 0.4, 0.1])
    out = calibration_estimates(s, 0.95).oe_ratio
    assert out.estimate == pytest.approx(2 / 1.6)
    assert (out.numerator, out.denominator) == (2, pytest.approx(1.6))
    brier = brier_estimate(s, 0.95)
    assert brier.estimate == pytest.approx((0.01 + 0.04 + 0.36 + 0.01) / 4)
    assert brier.estimate == pytest.approx(brier_score_loss(s.label, s.score))
    repeated = sample_of([1, 0, 1, 0], [0.9, 0.2, 0.4, 0.1], [0, 0, 1, 2])
    squared = (repeated.score - repeated.label) ** 2
    method = "mean, sandwich variance clustered by patient, logit"
    assert brier_estimate(repeated, 0.9) == mean_in_unit_range(
        squared, repeated.patient, 0.9, method, repeated.label
    )
    assert brier_estimate(repeated, 0.9).method == method


@pytest.mark.parametrize("repeat", [1, 3])
def test_the_interval_of_observed_over_expected_by_a_loop_over_patients(repeat: int) -> None:
    drawing = drawn(n=90)
    s = sample_of(drawing.label, drawing.score, np.arange(90) // repeat)
    ratio = s.label.sum() / s.score.sum()
    squares = 0.0
    for one in range(90 // repeat):
        rows = np.flatnonzero(s.patient == one)
        squares += sum(s.label[i] - ratio * s.score[i] for i in rows) ** 2
    g = 90 // repeat
    error = np.sqrt(g / (g - 1) * squares) / s.label.sum()
    half = (t_quantile(0.9, g - 1) if repeat > 1 else normal_quantile(0.9)) * error
    e = calibration_estimates(s, 0.9).oe_ratio
    assert (e.estimate, e.ci_low, e.ci_high) == pytest.approx(
        (ratio, ratio * np.exp(-half), ratio * np.exp(half)), rel=1e-12
    )
    assert (e.level, e.sided, e.method, e.n, e.n_clusters) == (
        0.9,
        "two",
        "log method by patient",
        90,
        g,
    )


def test_observed_over_expected_without_an_interval_has_a_reason() -> None:
    for label, score, patient, level, value, why in (
        ([0, 1], [0.0, 0.0], None, 0.95, None, "the probabilities add up to nearly zero"),
        (
            [0, 0],
            [0.5, 0.5],
            None,
            0.95,
            0.0,
            "the log method needs a positive unit and two patients",
        ),
        (
            [0, 1],
            [0.5, 0.5],
            [7, 7],
            0.95,
            1.0,
            "the log method needs a positive unit and two patients",
        ),
        (
            [1, 1],
            [0.5, 0.5],
            None,
            0.95,
            2.0,
            "the estimated variance is zero: no interval of this kind",
        ),
        (
            [1, 0, 0],
            [0.5, 0.5, 0.5],
            [0, 0, 1],
            0.999,
            2 / 3,
            "the interval is too wide to be meaningful",
        ),
    ):
        e = calibration_estimates(sample_of(label, score, patient), level).oe_ratio
        assert e == Estimate(
            None if value is None else pytest.approx(value),
            why=why,
            n=len(label),
            numerator=sum(label),
            denominator=sum(score),
        )
    two = calibration_estimates(sample_of([1, 0], [0.5, 0.4]), 0.95).oe_ratio
    assert two.ci_low is not None


def test_what_the_regressions_say_of_themselves() -> None:
    s = drawn(n=60)
    s = sample_of(s.label, s.score, np.arange(60) // 2)
    out = calibration_estimates(s, 0.9)
    for key, name in (
        ("slope", "Cox slope"),
        ("intercept", "Cox intercept"),
        ("in_the_large", "intercept with the slope fixed at 1"),
    ):
        e = getattr(out, key)
        expected = (f"{name}, sandwich variance clustered by patient, t", 0.9, "two", 60, 30)
        assert (e.method, e.level, e.sided, e.n, e.n_clusters) == expected
        assert e.estimate - e.ci_low == pytest.approx(e.ci_high - e.estimate)


def test_as_few_as_one_of_a_class_and_three_patients_are_enough() -> None:
    label, score = [1, 1, 0, 1, 1], [0.4, 0.6, 0.5, 0.45, 0.55]
    few = calibration_estimates(sample_of(label, score, [0, 1, 2, 0, 1]), 0.95)
    assert few.slope.ci_low is not None
    two = calibration_estimates(sample_of(label, score, [0, 1, 1, 0, 1]), 0.95)
    for key in ("slope", "intercept", "in_the_large"):
        why = "fewer than three patients: no interval"
        assert getattr(two, key) == Estimate(
            pytest.approx(getattr(few, key).estimate), why=why, n=5
        )


def test_copies_of_each_patient_leave_the_intervals_of_clustered_figures() -> None:
    s = drawn(n=150)
    twice = sample_of(np.tile(s.label, 2), np.tile(s.score, 2), np.tile(s.patient, 2))
    once, copied = calibration_estimates(s, 0.95), calibration_estimates(twice, 0.95)
    for key in ("slope", "intercept", "in_the_large"):
        assert getattr(copied, key).ci_low == pytest.approx(getattr(once, key).ci_low, abs=1e-9)
    assert brier_estimate(twice, 0.95).ci_high == pytest.approx(
        brier_estimate(s, 0.95).ci_high, abs=1e-12
    )


def test_separation_constant_scores_and_one_class_are_reasons() -> None:
    separated = calibration_estimates(sample_of([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]), 0.95)
    assert separated.slope.estimate is None
    assert (
        separated.slope.why
        == "the classes are perfectly separated: no maximum-likelihood estimate exists"
    )
    assert separated.in_the_large.estimate is not None
    constant = calibration_estimates(sample_of([0, 1, 0, 1], [0.3] * 4), 0.95)
    assert constant.slope.why == "all probabilities are equal: the slope is undefined"
    one_class = calibration_estimates(sample_of([0, 0, 0], [0.1, 0.2, 0.3]), 0.95)
    assert one_class.slope.why == "one class only"
    assert one_class.oe_ratio.estimate == 0.0
    assert calibration_estimates(sample_of([0, 1], [0.0, 0.0]), 0.95).oe_ratio.estimate is None


def test_perfect_probabilities_of_zero_and_one_do_not_crash() -> None:
    out = calibration_estimates(sample_of([0, 1, 0, 1], [0.0, 1.0, 0.0, 1.0]), 0.95)
    assert out.slope.estimate is None
    assert n_clipped(np.array([0.0, 1.0, 0.5, 1e-9])) == 3


def test_ece_puts_zero_and_one_into_real_bins() -> None:
    # bins [0,.1) and [.9,1]: |1 - 0| and |0 - 1| of one unit each
    assert expected_calibration_error(np.array([True, False]), np.array([0.0, 1.0])) == 1.0
    # .95 and 1.0 share the last bin: observed 1, expected 1.95 of 2
    assert expected_calibration_error(
        np.array([True, False]), np.array([0.95, 1.0])
    ) == pytest.approx(0.95 / 2)
    # .85 and .95 do not: .15 and .95
    assert expected_calibration_error(
        np.array([True, False]), np.array([0.85, 0.95])
    ) == pytest.approx(1.1 / 2)


def test_ece_has_no_interval_and_says_why() -> None:
    s = drawn()
    assert calibration_estimates(s, 0.95).ece == Estimate(
        expected_calibration_error(s.label, s.score), method="10 bins of equal width", n=400,
        why="no interval: the resampled error is biased away from zero",
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_corp_adds_up_and_matches_isotonic_regression(seed: int) -> None:
    s = drawn(seed, n=200)
    s = sample_of(s.label, np.round(s.score, 1))
    parts = brier_decomposition(s)
    total = parts.miscalibration - parts.discrimination + parts.uncertainty
    assert total == pytest.approx(brier_score_loss(s.label, s.score), abs=1e-12)
    fitted = IsotonicRegression().fit_transform(s.score, s.label.astype(float))
    assert parts.miscalibration == pytest.approx(
        brier_score_loss(s.label, s.score) - np.mean((fitted - s.label) ** 2), abs=1e-10
    )
    assert min(vars(parts).values()) >= -1e-12
    share = s.n_positive / 200
    assert parts.uncertainty == pytest.approx(share * (1 - share))


def test_reliability_bins_hold_everyone_once_and_keep_ties_together() -> None:
    s = sample_of(np.arange(100) % 3 == 0, np.round(np.linspace(0, 1, 100), 1))
    bins = reliability(s, 0.95)
    assert sum(b.observed.denominator for b in bins) == 100
    assert sum(b.observed.numerator for b in bins) == s.n_positive
    predicted = [b.predicted for b in bins]
    assert predicted == sorted(predicted)
    assert len(reliability(sample_of([0, 1], [0.5, 0.5]), 0.95)) == 1


def test_reliability_bins_are_equal_parts_of_the_sorted_units() -> None:
    rng = np.random.default_rng(6)
    s = sample_of(rng.random(43) < 0.4, rng.permutation(43) / 43, rng.integers(0, 20, 43))
    order = np.argsort(s.score)
    parts = np.split(order, [43 // 4, 2 * 43 // 4, 3 * 43 // 4])
    assert reliability(s, 0.9, bins=4) == [
        ReliabilityBin(
            pytest.approx(s.score[rows].mean()),
            proportion_estimate(s.label[np.sort(rows)], s.patient[np.sort(rows)], 0.9),
        )
        for rows in parts
    ]
    assert len(reliability(s, 0.9)) == 10


def test_intervals_use_t_on_patients() -> None:
    s = drawn(n=30)
    e = calibration_estimates(s, 0.95).in_the_large
    design = np.ones((30, 1))
    beta = logistic(design, s.label, clipped_logit(s.score))
    influence = coefficient_influence(design, s.label, clipped_logit(s.score), beta)
    error = np.sqrt(30 / 29 * np.sum(influence**2))
    assert e.ci_high - e.estimate == pytest.approx(t_quantile(0.95, 29) * error)

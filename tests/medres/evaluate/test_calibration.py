from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from medres.evaluate.calibration import (
    brier_decomposition,
    brier_estimate,
    calibration_estimates,
    clipped_logit,
    expected_calibration_error,
    logistic,
    n_clipped,
    reliability,
    sandwich,
)
from medres.evaluate.intervals import t_quantile
from medres.evaluate.roc import Sample


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
    fit = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(clipped_logit(s.score)[:, None], s.label)
    assert out["slope"].estimate == pytest.approx(fit.coef_[0, 0], abs=1e-5)
    assert out["intercept"].estimate == pytest.approx(fit.intercept_[0], abs=1e-5)
    assert out["slope"].ci_low < 0.6 < out["slope"].ci_high


def test_in_the_large_solves_its_score_equation() -> None:
    s = drawn()
    logit = clipped_logit(s.score)
    root = optimize.brentq(lambda a: np.sum(s.label - 1 / (1 + np.exp(-(logit + a)))), -5, 5)
    assert calibration_estimates(s, 0.95)["in_the_large"].estimate == pytest.approx(root, abs=1e-8)


def test_sandwich_matches_a_loop_over_patients() -> None:
    s = drawn(n=60)
    groups = np.arange(60) // 3
    design = np.column_stack([np.ones(60), clipped_logit(s.score)])
    beta = logistic(design, s.label, np.zeros(60))
    mean = 1 / (1 + np.exp(-design @ beta))
    bread = np.linalg.inv(sum(m * (1 - m) * np.outer(x, x) for m, x in zip(mean, design, strict=True)))
    meat = np.zeros((2, 2))
    for g in range(20):
        score = sum(((s.label - mean)[i] * design[i] for i in np.flatnonzero(groups == g)), np.zeros(2))
        meat += np.outer(score, score)
    expected = bread @ meat @ bread * 20 / 19
    np.testing.assert_allclose(sandwich(design, s.label, np.zeros(60), beta, groups), expected, rtol=1e-9)


def test_oe_ratio_and_brier_by_hand() -> None:
    s = sample_of([1, 0, 1, 0], [0.9, 0.2, 0.4, 0.1])
    out = calibration_estimates(s, 0.95)["oe_ratio"]
    assert out.estimate == pytest.approx(2 / 1.6)
    assert (out.numerator, out.denominator) == (2, pytest.approx(1.6))
    brier = brier_estimate(s, 0.95)
    assert brier.estimate == pytest.approx((0.01 + 0.04 + 0.36 + 0.01) / 4)
    assert brier.estimate == pytest.approx(brier_score_loss(s.label, s.score))


def test_copies_of_each_patient_leave_the_intervals_of_clustered_figures() -> None:
    s = drawn(n=150)
    twice = sample_of(np.tile(s.label, 2), np.tile(s.score, 2), np.tile(s.patient, 2))
    once, copied = calibration_estimates(s, 0.95), calibration_estimates(twice, 0.95)
    for key in ("slope", "intercept", "in_the_large"):
        assert copied[key].ci_low == pytest.approx(once[key].ci_low, abs=1e-9)
    assert brier_estimate(twice, 0.95).ci_high == pytest.approx(brier_estimate(s, 0.95).ci_high, abs=1e-12)


def test_separation_constant_scores_and_one_class_are_reasons() -> None:
    separated = calibration_estimates(sample_of([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]), 0.95)
    assert separated["slope"].estimate is None
    assert "separated" in separated["slope"].why
    assert separated["in_the_large"].estimate is not None
    constant = calibration_estimates(sample_of([0, 1, 0, 1], [0.3] * 4), 0.95)
    assert "the same" in constant["slope"].why
    one_class = calibration_estimates(sample_of([0, 0, 0], [0.1, 0.2, 0.3]), 0.95)
    assert one_class["slope"].why == "one class only"
    assert one_class["oe_ratio"].estimate == 0.0
    assert calibration_estimates(sample_of([0, 1], [0.0, 0.0]), 0.95)["oe_ratio"].estimate is None


def test_perfect_probabilities_of_zero_and_one_do_not_crash() -> None:
    out = calibration_estimates(sample_of([0, 1, 0, 1], [0.0, 1.0, 0.0, 1.0]), 0.95)
    assert out["slope"].estimate is None
    assert n_clipped(np.array([0.0, 1.0, 0.5, 1e-9])) == 3


def test_ece_puts_zero_and_one_into_real_bins() -> None:
    # bins [0,.1) and [.9,1]: |1 - 0| and |0 - 1| of one unit each
    assert expected_calibration_error(np.array([True, False]), np.array([0.0, 1.0])) == 1.0
    # .95 and 1.0 share the last bin: observed 1, expected 1.95 of 2
    assert expected_calibration_error(np.array([True, False]), np.array([0.95, 1.0])) == pytest.approx(0.95 / 2)


def test_ece_has_no_interval_and_says_why() -> None:
    ece = calibration_estimates(drawn(), 0.95)["ece"]
    assert ece.ci_low is None
    assert "biased" in ece.why


@pytest.mark.parametrize("seed", range(4))
def test_corp_adds_up_and_matches_isotonic_regression(seed: int) -> None:
    s = drawn(seed, n=200)
    s = sample_of(s.label, np.round(s.score, 1))
    parts = brier_decomposition(s)
    total = parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"]
    assert total == pytest.approx(brier_score_loss(s.label, s.score), abs=1e-12)
    fitted = IsotonicRegression().fit_transform(s.score, s.label.astype(float))
    assert parts["miscalibration"] == pytest.approx(
        brier_score_loss(s.label, s.score) - np.mean((fitted - s.label) ** 2), abs=1e-10
    )
    assert min(parts.values()) >= -1e-12


def test_reliability_bins_hold_everyone_once_and_keep_ties_together() -> None:
    s = sample_of(np.arange(100) % 3 == 0, np.round(np.linspace(0, 1, 100), 1))
    bins = reliability(s, 0.95)
    assert sum(b["observed"].denominator for b in bins) == 100
    assert sum(b["observed"].numerator for b in bins) == s.n_positive
    predicted = [b["predicted"] for b in bins]
    assert predicted == sorted(predicted)
    assert len(reliability(sample_of([0, 1], [0.5, 0.5]), 0.95)) == 1


def test_intervals_use_t_on_patients() -> None:
    s = drawn(n=30)
    e = calibration_estimates(s, 0.95)["in_the_large"]
    design = np.ones((30, 1))
    beta = logistic(design, s.label, clipped_logit(s.score))
    error = np.sqrt(sandwich(design, s.label, clipped_logit(s.score), beta, np.arange(30))[0, 0])
    assert e.ci_high - e.estimate == pytest.approx(t_quantile(0.95, 29) * error)

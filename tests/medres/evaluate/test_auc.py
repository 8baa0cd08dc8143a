from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medres.evaluate.auc import auc_estimates, newcombe_limits
from medres.evaluate.intervals import normal_quantile
from medres.evaluate.roc import Sample, auc_covariance, placements

Z = normal_quantile(0.95)


def sample_of(label, score, patient=None) -> Sample:
    label = np.asarray(label, dtype=bool)
    patient = np.arange(label.size) if patient is None else np.asarray(patient)
    return Sample(label, np.asarray(score, dtype=float), patient, np.zeros(label.size, dtype=np.int64))


def normal_sample(n1: int, n0: int, shift: float, seed: int = 0, copies: int = 1) -> Sample:
    rng = np.random.default_rng(seed)
    label = np.repeat([True, False], [n1, n0])
    score = rng.normal(size=n1 + n0) + shift * label
    patient = np.arange(n1 + n0)
    noise = rng.normal(size=(copies, n1 + n0)) * 0.5 if copies > 1 else 0.0
    return sample_of(np.tile(label, copies), (score + noise).ravel(), np.tile(patient, copies))


def test_wald_and_logit_from_the_variance() -> None:
    sample = normal_sample(40, 60, 1.2)
    base = placements(sample)
    error = math.sqrt(auc_covariance([base])[0, 0])
    out = auc_estimates(sample, 0.95)
    assert (out["auc_wald"].ci_low, out["auc_wald"].ci_high) == pytest.approx(
        (base.auc - Z * error, base.auc + Z * error)
    )
    logit = stats.logistic.ppf(base.auc)
    half = Z * error / base.auc / (1 - base.auc)
    assert (out["auc_logit"].ci_low, out["auc_logit"].ci_high) == pytest.approx(
        (stats.logistic.cdf(logit - half), stats.logistic.cdf(logit + half))
    )


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1))
def test_newcombe_limits_solve_their_equation(m: int, n: int, auc: float) -> None:
    low, high = newcombe_limits(auc, m, n, Z)
    assert 0 <= low <= auc <= high <= 1
    s = (m + n) / 2 - 1
    for t in (low, high):
        spread = t * (1 - t) / (m * n) * (1 + s * (1 - t) / (2 - t) + s * t / (1 + t))
        assert (auc - t) ** 2 == pytest.approx(Z * Z * spread, abs=1e-9)
    mirrored = newcombe_limits(1 - auc, m, n, Z)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_headline_is_newcombe_for_small_classes_or_high_auc_and_logit_otherwise() -> None:
    small = auc_estimates(normal_sample(99, 400, 1.0), 0.95)
    assert small["auc"] == small["auc_newcombe"]
    large = auc_estimates(normal_sample(150, 150, 1.0), 0.95)
    assert large["auc"] == large["auc_logit"]
    high = auc_estimates(normal_sample(150, 150, 3.5), 0.95)
    assert high["auc"] == high["auc_newcombe"]
    # 300 images but 75 patients a class
    clustered = auc_estimates(normal_sample(75, 75, 1.0, copies=2), 0.95)
    assert clustered["auc"] == clustered["auc_newcombe"]


def test_perfect_separation_gives_a_one_sided_exact_bound() -> None:
    out = auc_estimates(sample_of([1] * 15 + [0] * 15, range(30, 0, -1)), 0.95)
    assert out["auc"].estimate == 1.0
    assert out["auc"].ci_low == pytest.approx(0.025 ** (1 / 15))
    assert out["auc"].ci_low == pytest.approx(0.78, abs=0.005)
    assert (out["auc"].ci_high, out["auc"].sided) == (1.0, "one")
    assert out["auc_wald"].ci_low is None
    assert "zero" in out["auc_wald"].why
    assert 0.5 < out["auc_newcombe"].ci_low < 1.0
    reverse = auc_estimates(sample_of([0] * 15 + [1] * 15, range(30, 0, -1)), 0.95)["auc"]
    assert (reverse.estimate, reverse.ci_low) == (0.0, 0.0)
    assert reverse.ci_high == pytest.approx(1 - 0.025 ** (1 / 15))


def test_perfect_separation_counts_patients_not_images() -> None:
    label, patient = np.repeat([True, False], [30, 30]), np.repeat(np.arange(20), 3)
    out = auc_estimates(sample_of(label, label.astype(float), patient), 0.95)
    assert out["auc"].ci_low == pytest.approx(0.025 ** (1 / 10))


def test_one_class_or_one_positive() -> None:
    one_class = auc_estimates(sample_of([0, 0, 0], [1, 2, 3]), 0.95)
    assert all(e.estimate is None and "no positive" in e.why for e in one_class.values())
    one_positive = auc_estimates(sample_of([1, 0, 0, 0], [2.5, 1, 2, 3]), 0.95)
    assert one_positive["auc"].estimate == pytest.approx(2 / 3)
    assert one_positive["auc_wald"].ci_low is None
    assert "two patients" in one_positive["auc_wald"].why
    assert one_positive["auc"].ci_low < 0.3
    one_patient = auc_estimates(sample_of([1, 0], [2, 1], [0, 0]), 0.95)
    assert one_patient["auc"].estimate == 1.0
    assert one_patient["auc"].ci_low is None


def test_all_ties_is_a_half_with_an_interval_that_is_not_a_point() -> None:
    out = auc_estimates(sample_of([1] * 10 + [0] * 10, [0.5] * 20), 0.95)
    assert out["auc"].estimate == 0.5
    assert out["auc"].ci_low < 0.4 < 0.6 < out["auc"].ci_high


def test_ignoring_clusters_is_undone_by_the_design_effect() -> None:
    single = auc_estimates(normal_sample(40, 60, 1.0), 0.95)
    sample = normal_sample(40, 60, 1.0)
    copied = sample_of(np.tile(sample.label, 3), np.tile(sample.score, 3), np.tile(sample.patient, 3))
    tripled = auc_estimates(copied, 0.95)
    for key in ("auc_wald", "auc_logit"):
        assert tripled[key].ci_low == pytest.approx(single[key].ci_low, abs=1e-12)
    assert tripled["auc_newcombe"].design_effect == pytest.approx(3.0, rel=0.02)
    assert tripled["auc_newcombe"].ci_low == pytest.approx(single["auc_newcombe"].ci_low, abs=0.003)
    assert tripled["auc_patient_weighted"].estimate == pytest.approx(single["auc"].estimate, abs=1e-12)
    assert "auc_patient_weighted" not in single


def test_published_rating_data() -> None:
    """Hanley & McNeil 1982, Radiology 143:29, table I (58 normal and 51 abnormal CT images, five categories):
    area .893; standard error .032 by their formula, and by the pairwise oracle of test_roc within it."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    score = np.concatenate([np.repeat(range(5), normal), np.repeat(range(5), abnormal)]).astype(float)
    sample = sample_of(np.repeat([False, True], [58, 51]), score)
    base = placements(sample)
    assert base.auc == pytest.approx(0.893, abs=5e-4)
    q1, q2 = base.auc / (2 - base.auc), 2 * base.auc**2 / (1 + base.auc)
    hanley = (base.auc * (1 - base.auc) + 50 * (q1 - base.auc**2) + 57 * (q2 - base.auc**2)) / (58 * 51)
    assert math.sqrt(hanley) == pytest.approx(0.032, abs=5e-4)
    assert math.sqrt(auc_covariance([base])[0, 0]) == pytest.approx(math.sqrt(hanley), rel=0.1)

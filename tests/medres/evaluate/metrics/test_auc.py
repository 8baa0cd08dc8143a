from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medres.evaluate.metrics.auc import auc_estimates, newcombe_limits
from medres.evaluate.metrics.roc import auc_covariance, placements
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.intervals import normal_quantile

Z = normal_quantile(0.95)


def sample_of(label, score, patient=None) -> Sample:
    label = np.asarray(label, dtype=bool)
    patient = np.arange(label.size) if patient is None else np.asarray(patient)
    return Sample(
        label, np.asarray(score, dtype=float), patient, np.zeros(label.size, dtype=np.int64)
    )


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
    assert (out.auc_wald.ci_low, out.auc_wald.ci_high) == pytest.approx(
        (base.auc - Z * error, base.auc + Z * error)
    )
    logit = stats.logistic.ppf(base.auc)
    half = Z * error / base.auc / (1 - base.auc)
    assert (out.auc_logit.ci_low, out.auc_logit.ci_high) == pytest.approx(
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
    assert small.auc == small.auc_newcombe
    large = auc_estimates(normal_sample(150, 150, 1.0), 0.95)
    assert large.auc == large.auc_logit
    high = auc_estimates(normal_sample(150, 150, 3.5), 0.95)
    assert high.auc == high.auc_newcombe
    # 300 images but 75 patients a class
    clustered = auc_estimates(normal_sample(75, 75, 1.0, copies=2), 0.95)
    assert clustered.auc == clustered.auc_newcombe


def test_perfect_separation_gives_a_one_sided_exact_bound() -> None:
    out = auc_estimates(sample_of([1] * 15 + [0] * 15, range(30, 0, -1)), 0.95)
    assert out.auc.estimate == 1.0
    assert out.auc.ci_low == pytest.approx(0.025 ** (1 / 15))
    assert out.auc.ci_low == pytest.approx(0.78, abs=0.005)
    assert (out.auc.ci_high, out.auc.sided) == (1.0, "one")
    assert out.auc_wald.ci_low is None
    assert "zero" in out.auc_wald.why
    assert 0.5 < out.auc_newcombe.ci_low < 1.0
    reverse = auc_estimates(sample_of([0] * 15 + [1] * 15, range(30, 0, -1)), 0.95).auc
    assert (reverse.estimate, reverse.ci_low) == (0.0, 0.0)
    assert reverse.ci_high == pytest.approx(1 - 0.025 ** (1 / 15))


def test_perfect_separation_counts_patients_not_images() -> None:
    label, patient = np.repeat([True, False], [30, 30]), np.repeat(np.arange(20), 3)
    out = auc_estimates(sample_of(label, label.astype(float), patient), 0.95)
    assert out.auc.ci_low == pytest.approx(0.025 ** (1 / 10))


def test_one_class_or_one_positive() -> None:
    one_class = auc_estimates(sample_of([0, 0, 0], [1, 2, 3]), 0.95)
    assert all(e.estimate is None and "no positive" in e.why for e in vars(one_class).values() if e)
    one_positive = auc_estimates(sample_of([1, 0, 0, 0], [2.5, 1, 2, 3]), 0.95)
    assert one_positive.auc.estimate == pytest.approx(2 / 3)
    assert one_positive.auc_wald.ci_low is None
    assert "two patients" in one_positive.auc_wald.why
    assert one_positive.auc.ci_low < 0.3
    one_patient = auc_estimates(sample_of([1, 0], [2, 1], [0, 0]), 0.95)
    assert one_patient.auc.estimate == 1.0
    assert one_patient.auc.ci_low is None


def test_all_ties_is_a_half_with_an_interval_that_is_not_a_point() -> None:
    out = auc_estimates(sample_of([1] * 10 + [0] * 10, [0.5] * 20), 0.95)
    assert out.auc.estimate == 0.5
    assert out.auc.ci_low < 0.4 < 0.6 < out.auc.ci_high


def test_ignoring_clusters_is_undone_by_the_design_effect() -> None:
    single = auc_estimates(normal_sample(40, 60, 1.0), 0.95)
    sample = normal_sample(40, 60, 1.0)
    copied = sample_of(
        np.tile(sample.label, 3), np.tile(sample.score, 3), np.tile(sample.patient, 3)
    )
    tripled = auc_estimates(copied, 0.95)
    for key in ("auc_wald", "auc_logit"):
        assert getattr(tripled, key).ci_low == pytest.approx(getattr(single, key).ci_low, abs=1e-12)
    assert tripled.auc_newcombe.design_effect == pytest.approx(3.0, rel=0.02)
    assert tripled.auc_newcombe.ci_low == pytest.approx(single.auc_newcombe.ci_low, abs=0.003)
    assert tripled.auc_patient_weighted.estimate == pytest.approx(single.auc.estimate, abs=1e-12)
    assert single.auc_patient_weighted is None


def said(estimate) -> dict:
    """What an estimate says beside its numbers."""
    return {
        k: v
        for k, v in estimate.to_dict().items()
        if k not in ("estimate", "ci_low", "ci_high", "design_effect")
    }


def test_what_the_estimates_say_of_single_units() -> None:
    out = auc_estimates(normal_sample(40, 60, 1.2), 0.9)
    known = {"level": 0.9, "sided": "two", "n": 100}
    assert said(out.auc_wald) == {**known, "method": "DeLong 1988, Wald, truncated to 0..1"}
    assert said(out.auc_logit) == {**known, "method": "DeLong 1988, logit"}
    assert said(out.auc_newcombe) == {**known, "method": "Newcombe 2006, method 5"}
    assert out.auc_wald.design_effect is None


def test_what_the_estimates_say_of_patients_with_several_units() -> None:
    sample = normal_sample(40, 60, 1.2, copies=2)
    out = auc_estimates(sample, 0.95)
    known = {"level": 0.95, "sided": "two", "n": 200, "n_clusters": 100}
    by = "Obuchowski 1997, patients as clusters"
    assert said(out.auc_wald) == {**known, "method": f"{by}, Wald, truncated to 0..1"}
    assert said(out.auc_logit) == {**known, "method": f"{by}, logit"}
    assert said(out.auc_patient_weighted) == {
        **known,
        "method": f"{by}, logit, equal weight per patient",
    }
    effect = out.auc_newcombe.design_effect
    assert effect == out.auc_wald.design_effect == out.auc_logit.design_effect
    sizes = {"n_effective": pytest.approx(200 / effect)}
    assert said(out.auc_newcombe) == {
        **known, **sizes, "method": "Newcombe 2006, method 5, on class sizes / design effect",
    }  # fmt: skip
    expected = newcombe_limits(out.auc.estimate, 80 / effect, 120 / effect, Z)
    assert (out.auc_newcombe.ci_low, out.auc_newcombe.ci_high) == pytest.approx(expected)


def test_the_patient_weighted_auc_differs_where_patients_have_unequal_numbers_of_units() -> None:
    rng = np.random.default_rng(2)
    label, patient = (
        np.repeat([True, False], [30, 30]),
        np.concatenate([np.arange(30) // 5, 6 + np.arange(30) % 9]),
    )
    patient[:4] = [20, 21, 22, 23]
    sample = sample_of(label, rng.normal(size=60) + label, patient)
    weighted = auc_estimates(sample, 0.95).auc_patient_weighted
    assert (
        weighted.estimate == placements(sample, patient_weighted=True).auc != placements(sample).auc
    )


def test_a_design_effect_under_one_does_not_narrow_newcombes_interval() -> None:
    # each patient holds one unit of both classes, and their scores rise together: the pairing helps
    rng = np.random.default_rng(1)
    level = rng.normal(size=60)
    score = np.concatenate([level + 0.3, level])
    sample = sample_of(np.repeat([True, False], 60), score, np.tile(np.arange(60), 2))
    newcombe = auc_estimates(sample, 0.95).auc_newcombe
    assert newcombe.design_effect < 1
    assert newcombe.n_effective == 120
    assert (newcombe.ci_low, newcombe.ci_high) == pytest.approx(
        newcombe_limits(newcombe.estimate, 60, 60, Z)
    )


def test_newcombe_counts_patients_where_there_is_no_design_effect() -> None:
    sample = sample_of([1, 1, 0, 0, 0], [1.5, 2.5, 1, 2, 3], [0, 0, 1, 2, 3])
    newcombe = auc_estimates(sample, 0.95).auc_newcombe
    assert newcombe.design_effect is None
    assert (newcombe.ci_low, newcombe.ci_high) == pytest.approx(
        newcombe_limits(newcombe.estimate, 1, 3, Z)
    )
    assert said(newcombe) == {
        "level": 0.95, "sided": "two", "n": 5, "n_clusters": 4, "n_effective": 4.0,
        "method": "Newcombe 2006, method 5, on the numbers of patients",
    }  # fmt: skip


def test_two_patients_of_a_class_are_enough_for_a_design_effect() -> None:
    label, patient = [1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 2, 2, 3, 3]
    out = auc_estimates(sample_of(label, [3, 1, 4, 2, 0.5, 3.5, 0], patient), 0.95)
    assert out.auc_newcombe.design_effect > 0
    assert out.auc_wald.ci_low is not None


def test_folds_are_named_in_the_method() -> None:
    sample = normal_sample(40, 60, 1.0)
    folded = Sample(sample.label, sample.score, sample.patient, np.arange(100) % 2)
    out = auc_estimates(folded, 0.95)
    assert out.auc_wald.method == "DeLong 1988, Wald, truncated to 0..1, mean over folds"
    assert out.auc_logit.method == "DeLong 1988, logit, mean over folds"


@pytest.mark.parametrize(("positives", "key"), [(99, "auc_newcombe"), (100, "auc_logit")])
def test_a_class_is_small_below_a_hundred_patients(positives: int, key: str) -> None:
    for sizes in ((positives, 140), (140, positives)):
        out = auc_estimates(normal_sample(*sizes, 0.8), 0.95)
        assert out.auc == getattr(out, key)


def test_an_auc_of_exactly_the_bound_is_not_beyond_it() -> None:
    for miss, key in ((5, "auc_logit"), (4, "auc_newcombe")):
        label = np.repeat([True, False], 100)
        score = np.where(label, 1.0, np.where(np.arange(200) % 100 < miss, 2.0, 0.0))
        for out in (
            auc_estimates(sample_of(label, score), 0.95),
            auc_estimates(sample_of(label, -score), 0.95),
        ):
            assert abs(out.auc.estimate - 0.5) == pytest.approx(0.5 - miss / 100)
            assert out.auc == getattr(out, key)


def test_wald_limits_are_cut_at_zero_and_one() -> None:
    label, score = [1] * 6 + [0] * 6, [9, 8, 7, 6, 5, 3.5, 4, 3, 2, 1, 0, -1]
    wald = auc_estimates(sample_of(label, score), 0.95).auc_wald
    assert (wald.ci_high, wald.ci_low < 1) == (1.0, True)
    wald = auc_estimates(sample_of(label, [-x for x in score]), 0.95).auc_wald
    assert (wald.ci_low, wald.ci_high > 0) == (0.0, True)


def test_what_is_said_where_there_is_no_interval() -> None:
    for label, missing in (([1, 1], "negative"), ([0, 0], "positive")):
        out = auc_estimates(sample_of(label, [1, 2]), 0.95)
        assert out.auc_patient_weighted is None
        assert {(e.why, e.n) for e in vars(out).values() if e} == {
            (f"one class only: no {missing} unit", 2)
        }
    apart = Sample(np.array([True, False]), np.array([1.0, 2.0]), np.arange(2), np.arange(2))
    out = auc_estimates(apart, 0.95)
    assert out.auc_patient_weighted is None
    assert {(e.estimate, e.why, e.n) for e in vars(out).values() if e} == {
        (None, "no fold holds both classes", 2)
    }
    perfect = auc_estimates(sample_of([1, 1, 1, 0, 0, 0], [4, 5, 6, 1, 2, 3]), 0.9)
    assert said(perfect.auc_wald) == {
        "n": 6,
        "why": "the estimated variance is zero: no interval of this kind",
    }
    assert perfect.auc_wald.estimate == 1.0
    method = "exact one-sided 95% bound on 3 disjoint patient pairs"
    assert said(perfect.auc) == {
        "level": 0.9,
        "sided": "one",
        "n": 6,
        "n_clusters": 6,
        "method": method,
    }
    alone = auc_estimates(sample_of([1, 0], [2, 1], [0, 0]), 0.95).auc
    assert said(alone) == {"n": 2, "n_clusters": 1, "why": "only one patient: no bound"}
    one = auc_estimates(sample_of([1, 0, 0, 0], [2.5, 1, 2, 3]), 0.95).auc_wald
    assert said(one) == {"n": 4, "why": "the variance of an AUC needs two patients with each class"}
    assert one.estimate == pytest.approx(2 / 3)


def test_published_rating_data() -> None:
    """Hanley & McNeil 1982, Radiology 143:29, table I (58 normal and 51 abnormal CT images, five
    categories): area .893; standard error .032 by their formula, and by the pairwise oracle of
    test_roc within it.
    """
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    score = np.concatenate([np.repeat(range(5), normal), np.repeat(range(5), abnormal)]).astype(
        float
    )
    sample = sample_of(np.repeat([False, True], [58, 51]), score)
    base = placements(sample)
    assert base.auc == pytest.approx(0.893, abs=5e-4)
    q1, q2 = base.auc / (2 - base.auc), 2 * base.auc**2 / (1 + base.auc)
    hanley = (base.auc * (1 - base.auc) + 50 * (q1 - base.auc**2) + 57 * (q2 - base.auc**2)) / (
        58 * 51
    )
    assert math.sqrt(hanley) == pytest.approx(0.032, abs=5e-4)
    assert math.sqrt(auc_covariance([base])[0, 0]) == pytest.approx(math.sqrt(hanley), rel=0.1)


def test_patients_that_cancel_out_leave_no_variance_and_no_design_effect() -> None:
    """Each patient's placements sum to the mean: the clustered variance is 0, the one of the units
    is not.
    """
    sample = sample_of([1, 1, 1, 1, 0, 0, 0, 0], [1, 4, 1, 4, 2, 3, 0, 5], [0, 0, 1, 1, 2, 2, 3, 3])
    out = auc_estimates(sample, 0.95)
    for key in ("auc_wald", "auc_logit"):
        e = getattr(out, key)
        assert (e.estimate, e.ci_low, e.ci_high, e.design_effect) == (
            0.5,
            None,
            None,
            None,
        )
    newcombe = out.auc_newcombe
    assert (newcombe.design_effect, newcombe.n_effective) == (None, 4)
    assert (newcombe.ci_low, newcombe.ci_high) == pytest.approx(newcombe_limits(0.5, 2, 2, Z))


@pytest.mark.parametrize("flip", [False, True])
def test_a_class_is_divided_by_the_design_effect_down_to_less_than_two_units(flip: bool) -> None:
    patient = np.repeat(np.arange(5), [7, 2, 6, 6, 6])
    label = (patient < 2) ^ flip
    score = np.array([0.9, 0.2, 0.1, 0.5, 0.8])[patient] + 0.001 * np.arange(patient.size)
    sample = sample_of(label, -score if flip else score, patient)
    newcombe = auc_estimates(sample, 0.95).auc_newcombe
    base = placements(sample)
    by_class = [
        (base.positive, 81 / 53),
        (base.negative, 3.0),
    ]  # Kish's numbers of 7, 2 and 6, 6, 6
    if flip:
        by_class = [(base.positive, 3.0), (base.negative, 81 / 53)]
    shares = [base.share_positive, base.share_negative]
    parts = [
        (float(part @ (part / (1 - share))), kish - 1)
        for (part, kish), share in zip(by_class, shares, strict=True)
    ]
    df = sum(v for v, _ in parts) ** 2 / sum(v * v / f for v, f in parts)
    t = float(stats.t.ppf(0.975, df))
    small, large = 9 / newcombe.design_effect, 18 / newcombe.design_effect
    assert 1 < small < 2 < large
    expected = newcombe_limits(newcombe.estimate, *((large, small) if flip else (small, large)), t)
    assert (newcombe.ci_low, newcombe.ci_high) == pytest.approx(expected)

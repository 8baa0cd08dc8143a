from __future__ import annotations

import math

import numpy as np
import pytest

from medres.evaluate.metrics.decision_curve import (
    GRID,
    at_prevalence,
    decision_curve_report,
    net_benefit,
)
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.clusters import t_quantile


def sample_of(label, score, patient=None) -> Sample:
    n = len(label)
    patient = np.arange(n) if patient is None else patient
    return Sample(
        np.asarray(label, dtype=bool),
        np.asarray(score, dtype=float),
        patient,
        np.zeros(n, dtype=np.int64),
    )


def test_published_example() -> None:
    """dcurves (MIT), dca.csv, model cancerpredmarker, threshold .25: 105 of 750 positive; all
    -.1466667, model .064, avoided .632. Any table with TP - FP / 3 = 48 has that net benefit; 80
    true and 96 false positives is one.
    """
    label = np.repeat([True, False], [105, 645])
    acted = np.concatenate([np.arange(105) < 80, np.arange(645) < 96])
    s = sample_of(label, np.where(acted, 0.9, 0.1))
    model, everyone = (
        net_benefit(s, a, 1 / 3, None, 0.95).estimate for a in (acted, np.ones(750, dtype=bool))
    )
    assert everyone == pytest.approx(-0.1466667, abs=5e-8)
    assert model == pytest.approx(0.064)
    assert (model - everyone) * 3 == pytest.approx(0.632)


def test_interval_is_that_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    label = rng.random(80) < 0.3
    s = sample_of(label, rng.random(80))
    acted = s.score >= 0.2
    per_unit = acted * np.where(label, 1.0, -0.25)
    e = net_benefit(s, acted, 0.25, None, 0.95)
    half = t_quantile(0.95, 79) * per_unit.std(ddof=1) / math.sqrt(80)
    assert (e.estimate, e.ci_high - e.estimate) == pytest.approx((per_unit.mean(), half))


def test_stated_prevalence_equals_the_own_one_when_they_agree_and_bayes_otherwise() -> None:
    rng = np.random.default_rng(1)
    label = np.arange(100) < 40
    s = sample_of(label, rng.random(100))
    acted = s.score >= 0.3
    assert net_benefit(s, acted, 0.5, 0.4, 0.95).estimate == pytest.approx(
        net_benefit(s, acted, 0.5, None, 0.95).estimate
    )
    e = net_benefit(s, acted, 0.5, 0.1, 0.95)
    assert e.estimate == pytest.approx(acted[label].mean() * 0.1 - acted[~label].mean() * 0.9 * 0.5)
    se, fp = acted[label].mean(), acted[~label].mean()
    variance = (0.1**2 * se * (1 - se) / 40 + 0.45**2 * fp * (1 - fp) / 60) * 100 / 99
    assert e.ci_high - e.estimate == pytest.approx(t_quantile(0.95, 99) * math.sqrt(variance))


def test_patients_with_both_labels_against_the_jackknife() -> None:
    """Calls that go by patient: what a patient gains by true and loses by false alarms is one
    deviation, not two.
    """
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(250), 6)
    label = rng.random(1500) < 0.4
    acted = rng.random(1500) < 1 / (1 + np.exp(-rng.normal(scale=2.0, size=250)[patient]))
    s = sample_of(label, np.zeros(1500), patient)

    def slow(use: np.ndarray) -> float:
        return 0.3 * acted[use & label].mean() - 0.7 * 0.8 * acted[use & ~label].mean()

    without = np.array([slow(patient != one) for one in range(250)])
    error = math.sqrt(249 / 250 * ((without - without.mean()) ** 2).sum())
    e = net_benefit(s, acted, 0.8, 0.3, 0.95)
    assert (e.ci_high - e.ci_low) / 2 == pytest.approx(t_quantile(0.95, 249) * error, rel=0.02)
    assert e.estimate - e.ci_low == pytest.approx(e.ci_high - e.estimate)
    assert (e.level, e.sided, e.method, e.n) == (
        0.95,
        "two",
        "net benefit, sandwich variance clustered by patient, t",
        1500,
    )


def test_a_probability_at_the_threshold_is_acted_upon_and_a_prevalence_reweighs_the_curve() -> None:
    label = np.arange(100) < 40
    s = sample_of(label, np.where(np.arange(100) % 3, GRID[10], GRID[30]))
    own, stated = decision_curve_report(s, None, 0.95), decision_curve_report(s, 0.1, 0.95)
    everyone = np.ones(100, dtype=bool)
    weight = GRID[10] / (1 - GRID[10])
    assert own.model[10] == net_benefit(s, everyone, weight, None, 0.95)
    assert stated.model[10] == stated.all[10] == net_benefit(s, everyone, weight, 0.1, 0.95)
    assert stated.model[11] == net_benefit(
        s, s.score >= GRID[30], GRID[11] / (1 - GRID[11]), 0.1, 0.95
    )
    assert (own.prevalence, stated.prevalence) == (0.4, 0.1)
    assert own.interventions_avoided[10] == 0.0


def test_one_or_two_patients() -> None:
    label, acted = np.array([True, False, True]), np.array([True, True, False])
    for weight in (1.0, 3.0):
        e = net_benefit(sample_of(label, acted, np.zeros(3, dtype=int)), acted, weight, None, 0.95)
        assert (e.ci_low, e.n) == (None, 3)
        assert e.why == "the estimated variance is zero: no interval of this kind"
    assert (
        net_benefit(sample_of(label, acted, np.array([0, 1, 1])), acted, 1.0, None, 0.95).ci_low
        is not None
    )


def test_curve_ends_and_avoided_are_consistent() -> None:
    rng = np.random.default_rng(2)
    label = rng.random(60) < 0.4
    s = sample_of(label, np.clip(label * 0.3 + rng.random(60) * 0.7, 0, 1))
    out = decision_curve_report(s, None, 0.95)
    assert out.threshold == list(GRID)
    assert out.prevalence == pytest.approx(label.mean())
    for t, model, everyone, avoided in zip(
        GRID, out.model, out.all, out.interventions_avoided, strict=True
    ):
        assert avoided * t / (1 - t) == pytest.approx(model.estimate - everyone.estimate)
        assert everyone.estimate == pytest.approx(label.mean() - (1 - label.mean()) * t / (1 - t))


def test_patients_are_clusters() -> None:
    rng = np.random.default_rng(3)
    label, score = rng.random(50) < 0.5, rng.random(50)
    once = net_benefit(sample_of(label, score), score >= 0.5, 1.0, None, 0.95)
    twice = net_benefit(
        sample_of(np.tile(label, 2), np.tile(score, 2), np.tile(np.arange(50), 2)),
        np.tile(score >= 0.5, 2),
        1.0,
        None,
        0.95,
    )
    assert twice.ci_low == pytest.approx(once.ci_low)
    nobody = net_benefit(sample_of(label, score), np.zeros(50, dtype=bool), 1.0, None, 0.95)
    assert nobody.estimate == 0.0
    assert (nobody.why, nobody.n) == (
        "the estimated variance is zero: no interval of this kind",
        50,
    )


def test_risks_are_recalibrated_by_the_ratio_of_the_prior_odds() -> None:
    """Bayes' rule by hand: 40 % with the finding in the sample, 10 % where the model is used."""
    label = np.arange(100) < 40
    risk = np.where(np.arange(100) % 3, 0.2, 0.8)
    moved = at_prevalence(np.array([0.2, 0.8]), 0.4, 0.1)
    ratio = (0.1 / 0.9) / (0.4 / 0.6)
    odds = ratio * np.array([0.25, 4.0])
    np.testing.assert_allclose(moved, odds / (1 + odds))  # .04 and .4
    s = sample_of(label, risk)
    curve, plain = decision_curve_report(s, 0.1, 0.95, 0.4), decision_curve_report(s, 0.1, 0.95)
    assert curve.model == plain.model
    assert plain.recalibrated is None
    same = decision_curve_report(sample_of(label, np.where(risk > 0.5, 0.4, 1 / 25)), 0.1, 0.95)
    for mine, reference, t in zip(curve.recalibrated, same.model, GRID, strict=True):
        assert mine.estimate == pytest.approx(reference.estimate), t

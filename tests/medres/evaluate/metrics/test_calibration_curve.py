from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from scipy.interpolate import CubicSpline

from medres.evaluate.metrics.calibration import clipped_logit, expit, logistic
from medres.evaluate.metrics.calibration_curve import (
    CURVE_POINTS,
    KNOTS,
    SEED,
    SEPARATED,
    TOO_FEW_VALUES,
    curve_or_why,
    flexible_curve,
    grouped_spline,
    ici_estimate,
    spline,
)
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.estimate import Estimate


def sample_of(label, score, patient=None) -> Sample:
    n = len(label)
    patient = np.arange(n) if patient is None else patient
    return Sample(
        np.asarray(label, dtype=bool),
        np.asarray(score, dtype=float),
        patient,
        np.zeros(n, dtype=np.int64),
    )


def drawn(seed: int, n: int = 600, off: float = 0.0, slope: float = 1.0) -> Sample:
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) * 1.3
    return sample_of(rng.random(n) < expit(off + slope * logit), expit(logit))


def test_spline_is_linear_outside_and_smooth_inside() -> None:
    knots = np.array([-2.0, -0.5, 0.7, 2.0])
    x = np.array([-5.0, -4.0, -3.0, 3.0, 4.0, 5.0])
    basis = spline(x, knots)
    np.testing.assert_allclose(np.diff(basis[:3], n=2, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(basis[3:], n=2, axis=0), 0, atol=1e-9)
    step = 1e-4
    for knot in knots:
        around = spline(knot + step * np.arange(-2, 3), knots)
        assert np.abs(np.diff(around, n=3, axis=0)).max() < 50 * step**3


def test_the_spline_spans_the_natural_cubic_splines() -> None:
    """Oracle: any values at the four knots, interpolated by scipy's natural spline."""
    knots = np.array([-2.0, -0.5, 0.7, 2.0])
    inside = np.linspace(-2, 2, 81)
    for values in np.eye(4):
        wanted = CubicSpline(knots, values, bc_type="natural")(inside)
        basis = spline(inside, knots)
        np.testing.assert_allclose(basis @ np.linalg.lstsq(basis, wanted)[0], wanted, atol=1e-10)


def test_the_terms_are_scaled_as_in_harrell() -> None:
    # at 3, knots 0 to 3: (3^3 - 1 * 3 / 1) / 3^2 and (2^3 - 1 * 2 / 1) / 3^2
    np.testing.assert_allclose(spline(np.array([3.0]), np.arange(4.0)), [[1, 3, 24 / 9, 6 / 9]])


@pytest.mark.parametrize("digits", [9, 2])
def test_ici_matches_a_general_optimiser(digits: int) -> None:
    s = drawn(0, n=300, off=0.5, slope=0.7)
    s = replace(s, score=np.round(s.score, digits))
    basis = spline(clipped_logit(s.score), grouped_spline(s.score).knots)
    loss = lambda b: np.sum(np.logaddexp(0, basis @ b) - s.label * (basis @ b))  # noqa: E731
    beta = optimize.minimize(
        loss, np.zeros(4), jac=lambda b: basis.T @ (expit(basis @ b) - s.label), tol=1e-10
    ).x
    expected = np.mean(np.abs(expit(basis @ beta) - s.score))
    e = ici_estimate(s, 0.95)
    assert e.estimate == pytest.approx(expected, abs=1e-5)
    assert e.ci_high > e.estimate
    assert e == Estimate(
        e.estimate,
        0.0,
        e.ci_high,
        0.95,
        "one",
        "spline of four knots; upper bound by bootstrap of patients",
        n=300,
        n_clusters=300,
        replicates=200,
        replicates_undefined=0,
    )


def test_the_upper_bound_is_the_slow_bootstrap_of_patients(monkeypatch) -> None:
    """Patients drawn with their rows repeated, and a fit of unit by unit."""
    monkeypatch.setattr("medres.evaluate.metrics.calibration_curve.ICI_REPLICATES", 25)
    s = drawn(5, n=240, off=0.5)
    s = replace(s, patient=np.arange(240) // 3)
    knots = np.quantile(clipped_logit(s.score), KNOTS)
    rng, values = np.random.default_rng(SEED), []
    for _ in range(25):
        rows = np.concatenate([np.flatnonzero(s.patient == one) for one in rng.integers(0, 80, 80)])
        basis = spline(clipped_logit(s.score[rows]), knots)
        beta = logistic(basis, s.label[rows], np.zeros(rows.size))
        values.append(np.mean(np.abs(expit(basis @ beta) - s.score[rows])))
    assert ici_estimate(s, 0.9).ci_high == pytest.approx(np.quantile(values, 0.95), abs=1e-9)
    assert ici_estimate(s, 0.9).n_clusters == 80


def test_a_curve_that_often_does_not_exist_has_no_bound() -> None:
    """Two units with the finding: some replicates hold neither, and there is no curve for them."""
    score = np.linspace(0.05, 0.95, 40)
    e = ici_estimate(sample_of(np.isin(np.arange(40), (12, 30)), score), 0.95)
    assert e.why == "in more than 10% of the bootstrap samples the curve does not exist: no bound"
    assert e.estimate > 0
    assert (e.ci_high, e.n, e.replicates) == (None, 40, 200)
    assert 20 < e.replicates_undefined < 200


def test_grouping_a_large_sample_changes_almost_nothing(monkeypatch) -> None:
    s = drawn(1, n=3000, off=0.4)
    monkeypatch.setattr("medres.evaluate.metrics.calibration_curve.ICI_REPLICATES", 20)
    grouped = ici_estimate(s, 0.95).estimate
    monkeypatch.setattr("medres.evaluate.metrics.calibration_curve.MAX_GROUPS", 10**9)
    assert grouped == pytest.approx(ici_estimate(s, 0.95).estimate, abs=2e-4)


def test_good_and_bad_calibration_differ() -> None:
    assert ici_estimate(drawn(2, n=3000), 0.95).estimate < 0.03
    assert ici_estimate(drawn(2, n=3000, off=1.0), 0.95).estimate > 0.12


def test_the_curve_is_hidden_below_200_of_either_class() -> None:
    assert flexible_curve(drawn(3, n=390)) is None
    curve = flexible_curve(drawn(3, n=1000))
    assert np.all(np.diff(curve.predicted) > 0)
    assert len(curve.predicted) == len(curve.observed) == CURVE_POINTS
    score = drawn(3, n=1000).score
    assert curve.predicted[0] == pytest.approx(np.quantile(score, 0.005))
    assert curve.predicted[-1] == pytest.approx(np.quantile(score, 0.995))
    assert np.abs(np.array(curve.predicted) - curve.observed).max() < 0.2


def test_edges_have_reasons() -> None:
    for label in (0, 1):
        found = ici_estimate(sample_of([label] * 2, [0.2, 0.4]), 0.95)
        assert found == Estimate(None, why="one class only", n=2)
    few = ici_estimate(sample_of([0, 1, 0, 1], [0.2, 0.2, 0.3, 0.3]), 0.95)
    assert few == Estimate(None, why="too few different probabilities for a curve", n=4)
    narrow = ici_estimate(sample_of(np.arange(40) % 3 == 0, 0.5 + 1e-6 * np.arange(40)), 0.95)
    assert narrow.why == "too few different probabilities for a curve"
    separated = sample_of(np.arange(40) >= 20, np.linspace(0.01, 0.99, 40))
    found = ici_estimate(separated, 0.95)
    assert found == Estimate(
        None, why="the classes are perfectly separated: the curve does not exist", n=40
    )


def test_the_curve_needs_200_of_each_class_and_enough_different_probabilities() -> None:
    rng = np.random.default_rng(7)
    label, score = np.arange(400) < 200, rng.random(400)
    assert flexible_curve(sample_of(label, score)) is not None
    assert flexible_curve(sample_of(label, np.where(score < 0.5, 0.2, 0.8))) is None
    assert flexible_curve(sample_of(score > 0.5, score)) is None


def test_a_missing_curve_has_its_reason() -> None:
    few = curve_or_why(drawn(3, n=390))
    assert isinstance(few, str)
    assert "200" in few
    score = np.linspace(0.01, 0.99, 1000)
    assert curve_or_why(sample_of(score > 0.5, score)) == SEPARATED
    label = np.arange(1000) % 2 == 0
    assert curve_or_why(sample_of(label, np.where(score < 0.5, 0.2, 0.8))) == TOO_FEW_VALUES


def test_a_bound_from_few_effective_patients_is_flagged() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(90)
    one_with_most = np.maximum(np.arange(90) - 60, 0)  # 61 + 29 units: Kish's n is 2.2
    flagged = ici_estimate(sample_of(rng.random(90) < score, score, one_with_most), 0.95)
    assert flagged.flag == "fewer than 10 effective patients"
    pairs = ici_estimate(sample_of(rng.random(90) < score, score, np.arange(90) // 2), 0.95)
    assert pairs.flag is None

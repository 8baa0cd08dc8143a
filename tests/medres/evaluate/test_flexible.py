from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from medres.evaluate.calibration import clipped_logit, expit
from medres.evaluate.flexible import flexible_curve, grouped_spline, ici_estimate, spline
from medres.evaluate.roc import Sample


def sample_of(label, score, patient=None) -> Sample:
    n = len(label)
    patient = np.arange(n) if patient is None else patient
    return Sample(np.asarray(label, dtype=bool), np.asarray(score, dtype=float), patient, np.zeros(n, dtype=np.int64))


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


def test_ici_matches_a_general_optimiser() -> None:
    s = drawn(0, n=300, off=0.5, slope=0.7)
    basis = spline(clipped_logit(s.score), grouped_spline(s.score).knots)
    loss = lambda b: np.sum(np.logaddexp(0, basis @ b) - s.label * (basis @ b))  # noqa: E731
    beta = optimize.minimize(loss, np.zeros(4), jac=lambda b: basis.T @ (expit(basis @ b) - s.label), tol=1e-10).x
    expected = np.mean(np.abs(expit(basis @ beta) - s.score))
    e = ici_estimate(s, 0.95)
    assert e.estimate == pytest.approx(expected, abs=1e-5)
    assert (e.sided, e.ci_low) == ("one", 0.0)
    assert e.ci_high > e.estimate


def test_grouping_a_large_sample_changes_almost_nothing(monkeypatch) -> None:
    s = drawn(1, n=3000, off=0.4)
    monkeypatch.setattr("medres.evaluate.flexible.ICI_REPLICATES", 20)
    grouped = ici_estimate(s, 0.95).estimate
    monkeypatch.setattr("medres.evaluate.flexible.MOST_GROUPS", 10**9)
    assert grouped == pytest.approx(ici_estimate(s, 0.95).estimate, abs=2e-4)


def test_good_and_bad_calibration_differ() -> None:
    assert ici_estimate(drawn(2, n=3000), 0.95).estimate < 0.03
    assert ici_estimate(drawn(2, n=3000, off=1.0), 0.95).estimate > 0.12


def test_the_curve_is_hidden_below_200_of_either_class() -> None:
    assert flexible_curve(drawn(3, n=390)) is None
    curve = flexible_curve(drawn(3, n=1000))
    assert np.all(np.diff(curve["predicted"]) > 0)
    assert np.abs(np.array(curve["predicted"]) - curve["observed"]).max() < 0.2


def test_edges_have_reasons() -> None:
    assert ici_estimate(sample_of([1, 1], [0.2, 0.4]), 0.95).why == "one class only"
    assert "too few" in ici_estimate(sample_of([0, 1, 0, 1], [0.2, 0.2, 0.3, 0.3]), 0.95).why
    separated = sample_of(np.arange(40) >= 20, np.linspace(0.01, 0.99, 40))
    assert "separated" in ici_estimate(separated, 0.95).why

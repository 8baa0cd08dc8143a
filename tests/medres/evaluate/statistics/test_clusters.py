from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.analyses.paired_rates import paired_difference_of_rates
from medres.evaluate.metrics.average_precision import average_precision_estimate
from medres.evaluate.metrics.calibration import brier_estimate, calibration_estimates
from medres.evaluate.metrics.decision_curve import net_benefit
from medres.evaluate.metrics.predictive_values import predictive_values
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.clusters import (
    WHY_TOO_FEW,
    by_class_and_patient,
    clustered_variance,
    effective_share,
)
from medres.evaluate.statistics.estimate import Estimate
from medres.evaluate.statistics.intervals import likelihood_ratio


def test_equal_patients_have_the_usual_sandwich() -> None:
    parts = [np.array([0.1, -0.3, 0.2, 0.0]), np.array([0.0, 0.1, 0.1, -0.2])]
    total = parts[0] + parts[1]
    found = clustered_variance(parts, [np.full(4, 2), np.full(4, 3)])
    assert found.variance == pytest.approx(4 / 3 * total @ total)
    assert (found.df, found.effective_patients, found.flag) == (3.0, None, None)
    unequal = [np.array([1, 2, 3, 3]), np.array([4, 3, 2, 2])]
    assert clustered_variance(parts, unequal, of_all=True) == found
    assert clustered_variance(parts, unequal).df == 3.0  # a patient counts once in both classes
    assert clustered_variance(parts, unequal).flag == "fewer than 10 effective patients"
    apart = [np.array([2, 2, 0, 0]), np.array([0, 0, 1, 1])]
    assert clustered_variance(parts, apart).df == 3.0


def test_unequal_patients_by_hand() -> None:
    parts = [np.array([0.1, -0.3, 0.2, 0.0]), np.array([0.0, 0.1, 0.1, -0.2])]
    sizes = [np.array([6, 1, 3, 0]), np.array([0, 2, 2, 2])]
    own = [
        0.01 / (1 - 0.6) + 0.09 / (1 - 0.1) + 0.04 / (1 - 0.3),
        0.01 / (1 - 1 / 3) + 0.01 / (1 - 1 / 3) + 0.04 / (1 - 1 / 3),
    ]
    cross = 2 * (-0.03 + 0.02) * 4 / 3
    kish = [100 / 46, 3.0]
    found = clustered_variance(parts, sizes)
    assert found.variance == pytest.approx(sum(own) + cross)
    assert found.df == pytest.approx(
        sum(own) ** 2 / sum(v**2 / (k - 1) for v, k in zip(own, kish, strict=False))
    )
    assert found.effective_patients == pytest.approx(kish[0])
    assert found.flag == "fewer than 10 effective patients"
    assert found.quantile(0.9) == pytest.approx(stats.t.ppf(0.95, found.df))


def test_without_variance_or_with_one_class() -> None:
    nothing = clustered_variance([np.zeros(3), np.zeros(3)], [np.array([3, 1, 1]), np.ones(3)])
    assert nothing.variance == 0.0
    assert nothing.df == pytest.approx(25 / 11 - 1)
    alone = clustered_variance([np.array([0.5, -0.5])], [np.array([2, 1])])
    assert alone.variance == pytest.approx(0.25 / (1 / 3) + 0.25 / (2 / 3))
    absent = clustered_variance(
        [np.array([0.5, -0.5]), np.zeros(2)], [np.array([2, 1]), np.zeros(2)]
    )
    assert absent == alone
    opposed = [np.array([0.5, 0.5]), np.array([-0.5, -0.5])]
    assert clustered_variance(opposed, [np.array([2, 1]), np.ones(2)]).variance == pytest.approx(
        0.25 * (3 + 1.5 + 2 + 2) - 2 * 0.5 * 2
    )


def test_values_of_units_by_class_and_patient() -> None:
    label = np.array([True, False, True, True])
    parts, sizes = by_class_and_patient(
        label, np.array([0, 0, 2, 0]), np.array([1.0, 2.0, 4.0, 8.0])
    )
    assert [part.tolist() for part in parts] == [[9.0, 0.0, 4.0], [2.0, 0.0, 0.0]]
    assert [size.tolist() for size in sizes] == [[2, 0, 1], [1, 0, 0]]


def giant(images: int, seed: int = 3) -> Sample:
    """Thirty patients of either class, of whom one has many images."""
    rng = np.random.default_rng(seed)
    patient = np.append(np.arange(60), np.zeros(images - 1, dtype=np.int64))
    label = patient < 30
    latent = rng.normal(size=60)[patient] + 0.5 * rng.normal(size=patient.size) + 1.2 * label
    return Sample(label, 1 / (1 + np.exp(-latent)), patient, np.zeros_like(patient))


def figures(s: Sample) -> dict[str, Estimate]:
    called = s.score >= 0.6
    other = s.score >= 0.7
    fitted = calibration_estimates(s, 0.95)
    ppv, npv = predictive_values(called, s.label, s.patient, 0.1, 0.95)
    return {
        "ppv": ppv,
        "npv": npv,
        "ap": average_precision_estimate(s, 0.95),
        "brier": brier_estimate(s, 0.95),
        "slope": fitted.slope,
        "in the large": fitted.in_the_large,
        "oe": fitted.oe_ratio,
        "net benefit": net_benefit(s, called, 0.5, None, 0.95),
        "net benefit at": net_benefit(s, called, 0.5, 0.2, 0.95),
        "lr": likelihood_ratio(called, s.label, s.patient, 0.95, "LR+"),
        "paired": paired_difference_of_rates(
            called[s.label] == s.label[s.label], other[s.label], s.patient[s.label], 0.95
        )[0],
    }


def test_every_figure_of_unequal_patients_says_how_many_count() -> None:
    for name, e in figures(giant(10)).items():
        assert e.effective_patients == pytest.approx(39**2 / 129), name
        assert e.flag is None, name
        assert e.bounds is not None, name
    for name, e in figures(giant(14)).items():
        assert e.flag == "fewer than 10 effective patients", name
    for name, e in figures(giant(1)).items():
        assert (e.effective_patients, e.flag) == (None, None), name


def long_tailed(patients: int = 100, most: int = 20) -> Sample:
    """Patients of either class of whom the one of rank r has most / r images."""
    sizes = np.maximum(1, np.round(most / np.tile(np.arange(1, patients + 1), 2))).astype(int)
    patient = np.repeat(np.arange(2 * patients), sizes)
    label = patient < patients
    rng = np.random.default_rng(4)
    latent = rng.normal(size=2 * patients)[patient] + rng.normal(size=patient.size) + label
    return Sample(label, 1 / (1 + np.exp(-latent)), patient, np.zeros_like(patient))


def test_figures_that_cover_too_little_from_very_unequal_patients_are_flagged() -> None:
    s = long_tailed()
    assert 10 < s.effective_patients(True) < 100 / 3
    flags = {name: e.flag for name, e in figures(s).items() if e.flag}
    assert set(flags) == {"slope", "lr"}
    assert "92% of the 95% intervals" in flags["lr"]
    assert "88% of the 95% intervals" in flags["slope"]
    assert calibration_estimates(s, 0.95).intercept.flag is None
    milder = long_tailed(100, 12)
    assert 100 / 3 < milder.effective_patients(True) < 60
    assert not any(e.flag for e in figures(milder).values())
    assert effective_share(np.array([3, 1, 0])) == pytest.approx(1.6 / 2)


def test_no_interval_where_one_patient_is_nearly_everything() -> None:
    for name, e in figures(giant(300)).items():
        assert (e.bounds, e.why) == (None, WHY_TOO_FEW), name
        assert e.estimate is not None, name


def test_average_precision_of_unequal_patients_covers_the_true_value() -> None:
    """Twenty patients of either class and sizes after Zipf: the interval on patients - 1 degrees of
    freedom covered too little."""
    rng, held = np.random.default_rng(8), 0
    sizes = np.maximum(1, np.round(12 / np.tile(np.arange(1, 21), 2))).astype(np.int64)
    patient = np.repeat(np.arange(40), sizes)
    label, shift = patient < 20, 1.2
    zeros = np.zeros_like(patient)
    grid = np.linspace(-8, 9, 4001)
    above = [stats.norm.sf(grid - shift), stats.norm.sf(grid)]
    true = np.trapezoid(stats.norm.pdf(grid - shift) * above[0] / (above[0] + above[1]), grid)
    for _ in range(300):
        score = 0.8 * rng.normal(size=40)[patient] + 0.6 * rng.normal(size=patient.size)
        e = average_precision_estimate(Sample(label, score + shift * label, patient, zeros), 0.95)
        held += e.ci_low is not None and e.ci_low <= true <= (e.ci_high or 0.0)
    assert held / 300 > 0.93
    assert math.isclose(true, 0.8, abs_tol=0.05)

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.readers.figures import PAIRS
from medres.evaluate.readers.table import load_ratings
from medres.evaluate.readers.variances.covariances import figure_covariance, figure_values
from medres.evaluate.readers.variances.obuchowski_rockette import (
    Components,
    difference_scatter,
    mean_scatter,
    mean_squares,
    variance_components,
)


def slow_covariances(sigma: np.ndarray, t: int, r: int) -> tuple[float, float, float, float]:
    """Averages over all pairs of values, by what the pair shares."""
    groups: dict[tuple[bool, bool], list[float]] = {}
    for a in range(t * r):
        for b in range(t * r):
            key = (a // r == b // r, a % r == b % r)
            groups.setdefault(key, []).append(sigma[a, b])
    keys = [(True, True), (False, True), (True, False), (False, False)]
    error, cov1, cov2, cov3 = (float(np.mean(groups[key])) for key in keys)
    return error, cov1, cov2, cov3


def random_study(t: int, r: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    root = draw.normal(size=(t * r, 30))
    return draw.uniform(0.7, 0.95, (t, r)), root @ root.T / 1e5


@pytest.mark.parametrize(("t", "r"), [(2, 2), (2, 5), (3, 4)])
def test_components_are_averages_of_the_matrix(t: int, r: int) -> None:
    values, sigma = random_study(t, r)
    found = variance_components(values, sigma)
    expected = slow_covariances(sigma, t, r)
    assert (found.error, found.cov1, found.cov2, found.cov3) == pytest.approx(expected)
    ms_t, ms_r, ms_tr = mean_squares(values)
    total = np.sum((values - values.mean()) ** 2)
    parts = ms_t * (t - 1) + ms_r * (r - 1) + ms_tr * (t - 1) * (r - 1)
    assert parts == pytest.approx(total)
    assert found.reader == pytest.approx((ms_r - ms_tr) / t - expected[1] + expected[3])
    assert found.modality_reader == pytest.approx(
        ms_tr - expected[0] + expected[1] + expected[2] - expected[3]
    )


def test_fixed_cases_is_the_paired_t_test_over_readers() -> None:
    values, sigma = random_study(2, 6)
    scatter = difference_scatter("rrfc", variance_components(values, sigma), 2, 6)
    t = stats.ttest_rel(values[0], values[1])
    assert np.mean(values[0] - values[1]) / scatter.standard_error == pytest.approx(t.statistic)
    assert scatter.df == 5


def test_fixed_readers_is_the_variance_of_the_mean_difference(rated) -> None:
    study = load_ratings(rated(readers=5, cases=120))
    sigma = figure_covariance("delong", PAIRS["auc"], study)
    components = variance_components(figure_values(PAIRS["auc"], study), sigma)
    assert components.cov2 > components.cov3
    weights = np.repeat([0.2, -0.2], 5)
    scatter = difference_scatter("frrc", components, 2, 5)
    assert scatter.standard_error**2 == pytest.approx(weights @ sigma @ weights)
    assert scatter.df is None


def test_random_readers_and_cases_follow_hillis() -> None:
    values, sigma = random_study(3, 4)
    c = variance_components(values, sigma)
    excess = 4 * max(c.cov2 - c.cov3, 0)
    scatter = difference_scatter("rrrc", c, 3, 4)
    denominator = c.ms_modality_reader + excess
    assert scatter.standard_error == pytest.approx(np.sqrt(2 / 4 * denominator))
    assert scatter.df == pytest.approx(denominator**2 / (c.ms_modality_reader**2 / 6))


@pytest.mark.parametrize("analysis", ["rrrc", "frrc"])
def test_cov2_below_cov3_counts_as_no_difference(analysis: str) -> None:
    values, _ = random_study(2, 3)
    sigma = np.full((6, 6), 2e-4)  # cov1 and cov3
    sigma[:3, :3] = sigma[3:, 3:] = 1e-4  # cov2, smaller
    np.fill_diagonal(sigma, 9e-4)
    c = variance_components(values, sigma)
    assert c.bounded
    scatter = difference_scatter(analysis, c, 2, 3)
    if analysis == "rrrc":
        assert scatter.standard_error == pytest.approx(np.sqrt(2 / 3 * c.ms_modality_reader))
        assert scatter.df == pytest.approx(2)
    else:
        assert scatter.standard_error == pytest.approx(np.sqrt(2 / 3 * (c.error - c.cov1)))


@pytest.mark.parametrize("analysis", ["rrrc", "frrc", "rrfc"])
def test_the_mean_of_one_modality(analysis: str) -> None:
    draw = np.random.default_rng(1)
    values = draw.uniform(0.7, 0.9, 4)
    sigma = np.full((4, 4), 2e-4) + np.diag(np.full(4, 5e-4))
    square = values.var(ddof=1)
    found = mean_scatter(analysis, values, sigma)
    expected = {
        "rrrc": (square / 4 + 2e-4, (square + 8e-4) ** 2 / (square**2 / 3)),
        "frrc": (sigma.sum() / 16, None),
        "rrfc": (square / 4, 3),
    }[analysis]
    assert found.standard_error**2 == pytest.approx(expected[0])
    assert found.df == (None if expected[1] is None else pytest.approx(expected[1]))


def test_what_is_below_rounding_is_zero() -> None:
    """Readers who agree leave a mean square of 1e-33, and equal arms a variance of 1e-17."""
    agreeing = Components(0.1, 0.1, 1e-33, 0.0, 0.0, 4e-3, 2e-3, 4e-3, 2e-3, False)
    found = difference_scatter("rrrc", agreeing, 2, 3)
    assert found.df is None
    assert found.standard_error == pytest.approx((2 * 2e-3) ** 0.5)
    equal = Components(0.0, 0.1, 0.0, 0.0, 0.0, 4e-3 + 1e-17, 4e-3, 2e-3, 2e-3, False)
    assert difference_scatter("frrc", equal, 2, 3).standard_error == 0.0

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medres.evaluate.readers.measures.correlation import icc_agreement, icc_consistency

LEVEL = 0.95
# Shrout & Fleiss 1979, table 2: six subjects, four judges.
JUDGES = np.array([[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]])


def test_the_values_of_shrout_and_fleiss() -> None:
    judges, each = JUDGES.astype(float), np.arange(6)
    two, three = icc_agreement(judges, each, LEVEL), icc_consistency(judges, each, LEVEL)
    assert two.estimate == pytest.approx(0.29, abs=0.005)
    assert three.estimate == pytest.approx(0.71, abs=0.005)
    assert two.bounds == pytest.approx((0.019, 0.761), abs=5e-4)
    assert three.bounds == pytest.approx((0.342, 0.946), abs=5e-4)


def test_several_cases_of_a_patient_are_left_out_together() -> None:
    random = np.random.default_rng(0)
    ratings = random.normal(size=24) + 0.7 * random.normal(size=(3, 24))
    patient = np.arange(24) // 3
    for function in (icc_agreement, icc_consistency):
        found = function(ratings, patient, LEVEL)
        whole = function(ratings, np.arange(24), LEVEL).estimate
        left = [function(ratings[:, patient != p], np.arange(21), LEVEL).estimate for p in range(8)]
        half = stats.t.ppf(0.975, 7) * np.sqrt(7 / 8 * np.sum((left - np.mean(left)) ** 2))
        assert found.estimate == whole
        assert found.ci_high - whole == pytest.approx(half)
        assert (found.n, found.n_clusters) == (24, 8)


def test_what_is_undefined_says_why() -> None:
    each = np.arange(5)
    flat = icc_agreement(np.ones((2, 5)), each, LEVEL)
    assert (flat.estimate, "do not differ" in flat.why) == (None, True)
    same = np.arange(10.0).reshape(1, 10).repeat(2, axis=0)
    equal = icc_consistency(same, np.arange(10), LEVEL)
    assert equal.estimate == 1
    assert equal.bounds is None
    assert icc_agreement(same[:, :1], each[:1], LEVEL).estimate is None
    copies = icc_agreement(same[:, [0, 0, 5]], np.array([0, 0, 1]), LEVEL)
    assert copies.bounds is None


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_the_scale_of_the_ratings_does_not_matter(scale: float) -> None:
    for icc in (icc_agreement, icc_consistency):
        plain, scaled = (icc(JUDGES * factor, np.arange(6), LEVEL) for factor in (1.0, scale))
        assert scaled.estimate == pytest.approx(plain.estimate)
        assert scaled.bounds == pytest.approx(plain.bounds)

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from medres.evaluate.metrics.average_precision import average_precision, average_precision_estimate
from medres.evaluate.scores.sample import Sample, rank_counts
from medres.evaluate.statistics.clusters import t_quantile
from medres.evaluate.statistics.estimate import Estimate


def drawn(seed: int, n: int = 120) -> Sample:
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.3
    label[:2] = [True, False]
    score = np.round(rng.normal(size=n) + label, 1)
    return Sample(label, score, rng.integers(0, n // 2, n), np.zeros(n, dtype=np.int64))


@pytest.mark.parametrize("seed", range(6))
def test_matches_scikit_learn_with_ties(seed: int) -> None:
    s = drawn(seed)
    expected = average_precision_score(s.label, s.score)
    assert average_precision(rank_counts(s.label, s.score)) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_is_that_of_numerical_derivatives_by_patient(seed: int) -> None:
    """Oracle: weigh one patient a little more, compute AP with scikit-learn, and take the slope."""
    s = drawn(seed)
    if seed == 3:  # a unit with and one without the finding share the highest score
        s.score[[np.flatnonzero(~s.label)[0], np.flatnonzero(s.label)[0]]] = s.score.max() + 1
    groups, step = np.unique(s.patient), 1e-5
    slopes = np.zeros((2, groups.size))
    for c in (0, 1):
        for i, g in enumerate(groups):
            up, down = (1.0 + step * sign * ((s.patient == g) & (s.label == c)) for sign in (1, -1))
            ap = [average_precision_score(s.label, s.score, sample_weight=w) for w in (up, down)]
            slopes[c, i] = (ap[0] - ap[1]) / (2 * step)
    # patients with different numbers of units of a class: leverage, and Satterthwaite on Kish
    size = np.array([[np.sum(s.label[s.patient == g] == c) for g in groups] for c in (0, 1)])
    share = size / size.sum(axis=1, keepdims=True)
    own = np.sum(slopes**2 / (1 - share), axis=1)
    cross = 2 * np.sum(slopes[0] * slopes[1]) * groups.size / (groups.size - 1)
    kish = 1 / np.sum(share**2, axis=1)
    df = min(own.sum() ** 2 / np.sum(own**2 / (kish - 1)), groups.size - 1)
    e = average_precision_estimate(s, 0.95)
    assert e.effective_patients == pytest.approx(kish.min())
    half = t_quantile(0.95, df) * math.sqrt(own.sum() + cross) / e.estimate / (1 - e.estimate)
    centre = stats.logistic.ppf(e.estimate)
    assert e.ci_low == pytest.approx(stats.logistic.cdf(centre - half), abs=1e-6)
    assert e.ci_high == pytest.approx(stats.logistic.cdf(centre + half), abs=1e-6)


def test_edges_have_reasons() -> None:
    def of(label, score) -> Sample:
        n = len(label)
        return Sample(
            np.array(label, dtype=bool),
            np.array(score, dtype=float),
            np.arange(n),
            np.zeros(n, dtype=np.int64),
        )

    found = average_precision_estimate(of([0, 0], [1, 2]), 0.95)
    assert found == Estimate(None, why="no positive unit", n=2)
    known = {"level": 0.95}
    everything = average_precision_estimate(of([1, 1], [1, 2]), 0.95)
    assert everything == Estimate(
        1.0, why="no negative unit: the value is 1 for any scores", n=2, **known
    )
    zero = "the estimated variance is zero: no interval of this kind"
    assert average_precision_estimate(of([1, 1, 0], [3, 2, 1]), 0.95) == Estimate(
        1.0, why=zero, n=3, **known
    )
    few = "an interval needs two patients and two positive units"
    assert average_precision_estimate(of([1, 0, 0], [2, 3, 1]), 0.95) == Estimate(
        0.5, why=few, n=3, **known
    )
    one = replace(of([1, 1, 0], [3, 1, 2]), patient=np.zeros(3, dtype=np.int64))
    assert average_precision_estimate(one, 0.95) == Estimate(
        pytest.approx(5 / 6), why=few, n=3, n_clusters=1, **known
    )
    two = average_precision_estimate(replace(one, patient=np.array([0, 0, 1])), 0.95)
    assert two.ci_low is not None
    assert (two.sided, two.method, two.n_clusters) == ("two", "infinitesimal jackknife, logit", 2)
    alone = average_precision_estimate(of([1, 1, 0], [3, 1, 2]), 0.95)
    assert (alone.level, alone.n, alone.n_clusters) == (0.95, 3, None)

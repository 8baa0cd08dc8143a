from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.average_precision import average_precision
from medres.evaluate.metrics.optimism import optimism_corrected
from medres.evaluate.metrics.partial_auc import (
    SCORE,
    partial_auc,
    partial_auc_report,
    sensitivity_at,
    specificity_at,
    standardised,
)
from medres.evaluate.metrics.roc import auc_covariance, auc_from_counts, placements
from medres.evaluate.metrics.thresholds import youden_index
from medres.evaluate.scores.sample import Counts, Sample, rank_counts
from medres.evaluate.statistics.bootstrap import (
    percentile_estimate,
    replicates_for,
    resampled,
    score_limits,
)
from medres.evaluate.statistics.estimate import Estimate
from medres.evaluate.statistics.intervals import wilson


def drawn(
    seed: int = 0, n: int = 150, repeat: int = 1, digits: int = 1, shift: float = 1.0
) -> Sample:
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.4
    score = np.round(rng.normal(size=n) + shift * label, digits)
    return Sample(label, score, np.arange(n) // repeat, np.zeros(n, dtype=np.int64))


def test_replicates_are_those_of_the_slow_way() -> None:
    s = drawn(repeat=2)
    got = resampled(s, {"auc": auc_from_counts, "ap": average_precision}, 20, seed=5)
    rng = np.random.default_rng(5)
    appearance = list(dict.fromkeys(s.patient[np.lexsort((s.patient, s.label, -s.score))]))
    for i in range(20):
        drawn_patients = [appearance[k] for k in rng.integers(0, 75, 75, dtype=np.int32)]
        rows = np.concatenate([np.flatnonzero(s.patient == g) for g in drawn_patients])
        assert got["auc"][i] == pytest.approx(
            roc_auc_score(s.label[rows], s.score[rows]), abs=1e-12
        )
        counts = rank_counts(s.label[rows], s.score[rows])
        assert got["ap"][i] == pytest.approx(
            np.sum(
                np.diff(counts.tp, prepend=0)
                / counts.n_positive
                * counts.tp
                / (counts.tp + counts.fp)
            )
        )


def test_the_order_of_rows_does_not_matter() -> None:
    s = drawn(repeat=2)
    shuffle = np.random.default_rng(1).permutation(150)
    moved = Sample(s.label[shuffle], s.score[shuffle], s.patient[shuffle], s.fold)
    for statistic in (auc_from_counts, average_precision):
        a, b = (resampled(x, {"x": statistic}, 50)["x"] for x in (s, moved))
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_spread_is_that_of_the_clustered_formula() -> None:
    s = drawn(n=400, repeat=4)
    draws = resampled(s, {"auc": auc_from_counts}, 1000)["auc"]
    assert draws.std() == pytest.approx(np.sqrt(auc_covariance([placements(s)])[0, 0]), rel=0.1)


def test_a_replicate_without_a_class_is_counted_not_hidden() -> None:
    s = Sample(
        np.array([True, False, False, False]),
        np.arange(4.0),
        np.arange(4),
        np.zeros(4, dtype=np.int64),
    )
    draws = resampled(s, {"auc": auc_from_counts}, 200)["auc"]
    e = percentile_estimate(0.0, draws, 0.95, "m", 4, 4)
    assert e.replicates_undefined == int(np.isnan(draws).sum()) > 20
    assert "missing" in e.why
    flat = percentile_estimate(1.0, np.ones(100), 0.95, "m", 4, 4)
    assert "do not differ" in flat.why


def test_percentiles_of_the_replicates_and_what_they_say_of_themselves() -> None:
    draws = np.arange(1001.0) / 1000
    e = percentile_estimate(0.5, draws, 0.9, "percentiles", 40, 20)
    assert e == Estimate(
        0.5,
        pytest.approx(0.05),
        pytest.approx(0.95),
        0.9,
        "two",
        "percentiles",
        n=40,
        n_clusters=20,
        replicates=1001,
        replicates_undefined=0,
    )
    outside = percentile_estimate(2.0, draws, 0.9, "percentiles", 40, 20)
    assert (outside.ci_low, outside.ci_high) == (pytest.approx(0.05), 2.0)
    told = {"n": 40, "n_clusters": 20, "replicates": 100}
    flat = percentile_estimate(1.0, np.ones(100), 0.9, "percentiles", 40, 20)
    assert flat == Estimate(
        1.0, why="the bootstrap samples do not differ: no interval", replicates_undefined=0, **told
    )
    for missing, why in (
        (10, None),
        (11, "a class is missing in more than 10% of the bootstrap samples: no interval"),
    ):
        some = np.where(np.arange(100) < missing, np.nan, draws[:100])
        found = percentile_estimate(0.05, some, 0.9, "percentiles", 40, 20)
        assert (found.estimate, found.why, found.replicates_undefined) == (0.05, why, missing)
        assert (found.n, found.n_clusters, found.replicates) == (40, 20, 100)


def test_a_statistic_is_given_the_thresholds_of_its_counts() -> None:
    s = drawn(repeat=1)

    def lowest(counts: Counts) -> float:
        assert counts.threshold.shape == counts.tp.shape == counts.fp.shape
        assert (counts.tp[-1], counts.fp[-1]) == (counts.n_positive, counts.n_negative)
        return float(counts.threshold[-1])

    for last in (True, False):  # the lowest score may belong to either class
        label = np.append(s.label[1:], last)
        score = np.append(s.score[1:], s.score.min() - 1)
        found = resampled(Sample(label, score, s.patient, s.fold), {"x": lowest}, 5)["x"]
        assert set(found) == {score[-1]}


def test_fewer_replicates_for_large_tables() -> None:
    assert [replicates_for(100, 1), replicates_for(100_000, 1), replicates_for(100_000, 14)] == [
        2000,
        2000,
        400,
    ]


@pytest.mark.parametrize("seed", range(6))
def test_partial_auc_over_specificity_is_mcclish_as_in_scikit_learn(seed: int) -> None:
    s = drawn(seed)
    counts = rank_counts(s.label, s.score)
    for low in (0.5, 0.8, 0.93):
        got = standardised(partial_auc(counts, "specificity", low, 1.0), low, 1.0)
        assert got == pytest.approx(roc_auc_score(s.label, s.score, max_fpr=1 - low), abs=1e-12)


@pytest.mark.parametrize("axis", ["specificity", "sensitivity"])
def test_parts_add_up_to_the_whole_and_match_a_fine_sum(axis: str) -> None:
    s = drawn(3)
    counts = rank_counts(s.label, s.score)
    cuts = [0.0, 0.21, 0.5, 0.8, 1.0]
    parts = [partial_auc(counts, axis, a, b) for a, b in pairwise(cuts)]
    assert sum(parts) == pytest.approx(auc_from_counts(counts), abs=1e-12)
    fpr, tpr, _ = roc_curve(s.label, s.score, drop_intermediate=False)
    grid = (np.arange(200_000) + 0.5) / 200_000
    inside = (grid > 0.8) & (grid < 1.0)
    fine = np.interp(1 - grid, fpr, tpr) if axis == "specificity" else 1 - np.interp(grid, tpr, fpr)
    assert parts[3] == pytest.approx(fine[inside].sum() / 200_000, abs=1e-4)


def test_standardised_is_a_half_by_chance_and_one_when_perfect() -> None:
    assert standardised((1 - 0.64) / 2 - 0.0, 0.8, 1.0) != 0.5
    chance = 0.2 - (1 - 0.64) / 2
    assert standardised(chance, 0.8, 1.0) == pytest.approx(0.5)
    assert standardised(0.2, 0.8, 1.0) == pytest.approx(1.0)
    tied = rank_counts(np.array([True, False]), np.array([1.0, 1.0]))
    for axis in ("specificity", "sensitivity"):
        assert standardised(partial_auc(tied, axis, 0.8, 1.0), 0.8, 1.0) == pytest.approx(0.5)
        assert standardised(partial_auc(tied, axis, 0.2, 0.9), 0.2, 0.9) == pytest.approx(0.5)


def test_rates_at_a_fixed_rate_by_hand() -> None:
    label = np.array([1, 1, 0, 1, 0, 0, 0, 1, 0, 0], dtype=bool)
    counts = rank_counts(label, np.arange(10.0, 0, -1))
    # six negatives: specificity 5/6 allows one false positive: tp = 3 of 4
    assert sensitivity_at(counts, 5 / 6) == 0.75
    assert sensitivity_at(counts, 1.0) == 0.5
    assert specificity_at(counts, 0.75) == pytest.approx(5 / 6)
    assert specificity_at(counts, 1.0) == pytest.approx(2 / 6)
    worst = rank_counts(
        ~label, np.arange(10.0, 0, -1)
    )  # the first two are negative: no threshold has specificity 1
    assert sensitivity_at(worst, 1.0) == 0.0


def test_many_patients_keep_percentile_limits() -> None:
    sample = drawn(n=900)
    assert min(sample.n_positive, sample.n_negative) >= 200
    areas, at_fixed = partial_auc_report(sample, 0.95, 50)
    draws = resampled(sample, {"x": partial(specificity_at, sensitivity=0.9)}, 50)["x"]
    low, high = np.quantile(draws, [0.025, 0.975])
    found = at_fixed[1].specificity
    assert found.method == areas[0].raw.method == "percentile bootstrap of patients"
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))


def test_score_limits_by_hand_and_at_the_ends() -> None:
    # p .8, standard error .1: 16 effective patients
    assert score_limits(0.8, 0.8, 0.1, 100, 2.0) == pytest.approx(wilson(12.8, 16, 2.0))
    assert score_limits(0.7, 0.8, 0.1, 100, 2.0)[0] == pytest.approx(wilson(14.7, 21, 2.0)[0])
    assert score_limits(1.0, 1.0, 0.0, 15, 2.0) == pytest.approx((15 / 19, 1.0))  # n / (n + t^2)
    assert score_limits(0.5, 0.5, 0.001, 15, 2.0) == pytest.approx(wilson(7.5, 15, 2.0))


def test_few_positives_do_not_narrow_the_specificity_at_a_sensitivity() -> None:
    """With ten positives, sensitivity .9 is reached at the second lowest of them, and the
    replicates rarely go below: the lower limit must.
    """
    s = drawn(n=100)
    few = s.take(np.append(np.flatnonzero(s.label)[:10], np.flatnonzero(~s.label)))
    estimate = partial_auc_report(few, 0.95, 400)[1][1].specificity
    draws = resampled(few, {"x": partial(specificity_at, sensitivity=0.9)}, 400)["x"]
    assert estimate.ci_low < np.nanquantile(draws, 0.025) - 0.02
    assert estimate.ci_low < estimate.estimate < estimate.ci_high


def test_partial_figures_of_mirrored_data_are_mirrored() -> None:
    """Labels swapped and scores negated: specificity and sensitivity change places."""
    s = drawn(n=80, digits=9)
    other = Sample(~s.label, -s.score, s.patient, s.fold)
    a, b = partial_auc_report(s, 0.95, 50), partial_auc_report(other, 0.95, 50)
    for i, j in ((0, 1), (1, 0)):
        assert a[0][i].raw.estimate == pytest.approx(b[0][j].raw.estimate)
        assert a[0][i].raw.ci_high == pytest.approx(b[0][j].raw.ci_high, abs=0.1)
        assert a[0][i].raw.ci_low == pytest.approx(b[0][j].raw.ci_low, abs=0.1)


def test_partial_numbers_have_intervals_around_the_estimate() -> None:
    areas, at_fixed = partial_auc_report(drawn(n=200, repeat=2), 0.95, 400)
    for row in areas:
        assert row.raw.ci_low < row.raw.estimate < row.raw.ci_high
        assert row.standardised.replicates == 400
        assert 0.5 < row.standardised.estimate < 1
        assert (row.raw.method, row.raw.n) == (SCORE, 200)
    sample = drawn(n=200, repeat=2)
    counts = rank_counts(sample.label, sample.score)
    assert [(row.axis, row.low, row.high) for row in areas] == [
        ("specificity", 0.8, 1.0), ("sensitivity", 0.8, 1.0)
    ]  # fmt: skip
    for row in areas:
        assert row.raw.estimate == partial_auc(counts, row.axis, 0.8, 1.0)
    at_specificity, at_sensitivity = at_fixed
    assert (at_specificity.fixed, at_specificity.value) == ("specificity", 0.9)
    assert at_specificity.sensitivity.estimate == sensitivity_at(counts, 0.9)
    assert (at_sensitivity.fixed, at_sensitivity.value) == ("sensitivity", 0.9)
    assert at_sensitivity.specificity.estimate == specificity_at(counts, 0.9)
    assert sensitivity_at(counts, 0.9) != specificity_at(counts, 0.9)
    assert at_specificity.sensitivity.n_clusters == 100
    areas, at_fixed = partial_auc_report(
        Sample(np.ones(3, dtype=bool), np.arange(3.0), np.arange(3), np.zeros(3, dtype=np.int64)),
        0.95,
        10,
    )
    assert (areas[0].raw.why, at_fixed[1].specificity.n) == (
        "one class only",
        3,
    )
    least = Sample(
        np.array([True, False]), np.array([1.0, 0.0]), np.arange(2), np.zeros(2, dtype=np.int64)
    )
    assert partial_auc_report(least, 0.95, 10)[0][0].raw.estimate == pytest.approx(0.2)


def test_optimism_of_a_useless_model_is_seen() -> None:
    """With no signal, sensitivity + specificity is 1; Youden's choice on the data shows more, the
    correction takes most of it away.
    """
    apparent, corrected = [], []
    for seed in range(12):
        s = drawn(seed, n=60, digits=3, shift=0.0)
        counts = rank_counts(s.label, s.score)
        t = counts.threshold[youden_index(counts)]
        apparent.append((s.score >= t)[s.label].mean() + (s.score < t)[~s.label].mean())
        out = optimism_corrected(s, 0.95, 200)
        corrected.append(out.sensitivity.estimate + out.specificity.estimate)
    assert np.mean(apparent) > 1.15
    assert abs(np.mean(corrected) - 1) < 0.6 * (np.mean(apparent) - 1)


def test_bootstrap_interval_agrees_with_the_analytic_one() -> None:
    s = drawn(n=500, digits=4)
    draws = resampled(s, {"auc": auc_from_counts}, 1000)["auc"]
    e = percentile_estimate(placements(s).auc, draws, 0.95, "m", 500, 500)
    logit = auc_estimates(s, 0.95).auc_logit
    assert (e.ci_low, e.ci_high) == pytest.approx((logit.ci_low, logit.ci_high), abs=0.01)

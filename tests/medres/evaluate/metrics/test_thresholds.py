from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from helpers import raises_code
from hypothesis import given
from hypothesis import strategies as st

from medres.errors import EvaluationError
from medres.evaluate.metrics.thresholds import Threshold, criterion, threshold
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.intervals import proportion_estimate


def sample(label: list[int], score: list[float], patient: list[int] | None = None) -> Sample:
    n = len(label)
    codes = np.arange(n) if patient is None else np.array(patient)
    return Sample(
        np.array(label) == 1, np.array(score, float), codes.astype(np.int64), np.zeros(n, np.int64)
    )


def rates(made: Sample, cut: float) -> tuple[float, float]:
    called = made.score >= cut
    return float(called[made.label].mean()), float((~called)[~made.label].mean())


SMALL = sample([0, 0, 1, 0, 1, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("youden", 0.45),  # sensitivity 3/4, specificity 3/4
        ("sensitivity:1", 0.25),
        ("sensitivity:0.75", 0.45),
        ("specificity:0.75", 0.45),
        ("specificity:1", 0.75),
        ("sensitivity:0.2", 0.75),
        ("cost:100", 0.25),  # no positive may be missed
        ("cost:0.01", 0.75),  # no false alarm
        ("net_benefit:0.5", 0.45),  # two errors at 0.45, more elsewhere
    ],
)
def test_cases_by_hand_lie_midway_between_two_scores(text: str, want: float) -> None:
    assert threshold(SMALL, criterion(text)) == pytest.approx(want)


def test_calling_no_one_lies_above_the_highest_score() -> None:
    made = sample([1, 0, 1], [0.3, 0.9, 0.2])
    assert threshold(made, criterion("specificity:1")) == pytest.approx(0.95)
    at_one = sample([1, 0], [0.3, 1.0])
    assert threshold(at_one, criterion("specificity:1")) > 1.0


def test_a_lower_limit_that_few_patients_cannot_reach_gives_none() -> None:
    assert threshold(SMALL, criterion("sensitivity_low:0.9")) is None
    assert threshold(SMALL, criterion("specificity_low:0.99")) is None


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["sensitivity", "specificity"]),
    st.sampled_from([0.5, 0.8, 0.9]),
)
def test_the_extreme_threshold_that_reaches_the_rate(seed: int, side: str, value: float) -> None:
    """Against a search over every threshold, and with repeated patients for the lower limit."""
    rng = np.random.default_rng(seed)
    label, score = rng.integers(0, 2, 60), np.round(rng.random(60), 2)
    label[:2] = 0, 1
    made = sample(label.tolist(), score.tolist(), rng.integers(0, 25, 60).tolist())
    cuts = np.append(np.unique(score), 2.0)
    index = 0 if side == "sensitivity" else 1
    good = [cut for cut in cuts if rates(made, cut)[index] >= value]
    best = max(good) if side == "sensitivity" else min(good)
    assert rates(made, threshold(made, criterion(f"{side}:{value}"))) == rates(made, best)

    def low(cut: float) -> float:
        called, chosen = made.score >= cut, made.label if side == "sensitivity" else ~made.label
        hit = called if side == "sensitivity" else ~called
        return proportion_estimate(hit[chosen], made.patient[chosen], 0.95).ci_low or 0.0

    good = [cut for cut in cuts if low(cut) >= value]
    found = threshold(made, criterion(f"{side}_low:{value}"))
    if good:
        assert rates(made, found) == rates(made, max(good) if side == "sensitivity" else min(good))
    else:
        assert found is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 7.0]))
def test_the_least_cost_and_the_greatest_net_benefit(seed: int, miss: float) -> None:
    rng = np.random.default_rng(seed)
    label, score = np.append([0, 1], rng.integers(0, 2, 30)), np.round(rng.random(32), 1)
    made = sample(label.tolist(), score.tolist())

    def cost(cut: float) -> float:
        called = score >= cut
        return float((called & (label == 0)).sum() + miss * (~called & (label == 1)).sum())

    least = min(cost(cut) for cut in np.append(np.unique(score), 2.0))
    assert cost(threshold(made, criterion(f"cost:{miss}"))) == pytest.approx(least)
    assert cost(threshold(made, criterion(f"net_benefit:{1 / (1 + miss)}"))) == pytest.approx(least)


ANY_SCORE = st.one_of(
    st.floats(allow_nan=False),
    st.floats(-5, 5).map(lambda x: round(x, 1)),
    st.sampled_from([math.inf, -math.inf, 0.0, 5e-324, -5e-324, sys.float_info.max, -1e300]),
)


@given(
    st.lists(st.tuples(st.booleans(), ANY_SCORE), max_size=25),
    st.sampled_from(
        [
            "youden",
            "sensitivity:1",
            "sensitivity:0.5",
            "specificity:1",
            "specificity:0.5",
            "cost:1000",
            "cost:0.001",
            "net_benefit:0.001",
            "net_benefit:0.999",
            "sensitivity_low:0.3",
            "specificity_low:0.3",
        ]
    ),
)
def test_any_real_scores_are_cut_as_their_ranks_are(
    rows: list[tuple[bool, float]], text: str
) -> None:
    """Logits, distances and infinite scores: only their order counts."""
    rows = [*rows, (True, 0.25), (False, -0.25)]
    label, score = [int(row[0]) for row in rows], np.array([row[1] for row in rows])
    ranks = np.searchsorted(np.unique(score), score).astype(float) + 10.0
    found = threshold(sample(label, score.tolist()), criterion(text))
    wanted = threshold(sample(label, ranks.tolist()), criterion(text))
    assert (found is None) == (wanted is None)
    if found is not None:
        np.testing.assert_array_equal(score >= found, ranks >= wanted)


@pytest.mark.parametrize(
    ("score", "text", "want"),
    [
        ([-2.0, -4.0, -6.0, -8.4], "sensitivity:1", -5.0),
        ([-2.0, -4.0, -6.0, -8.4], "cost:1000", -5.0),
        ([-9.0, -4.0, -6.0, -8.4], "sensitivity:1", -18.0),  # all positive: below the lowest score
        ([math.inf, math.inf, 3.0, 1.0], "youden", 6.0),
        ([math.inf, 2.0, 3.0, -math.inf], "sensitivity:1", 0.0),
        ([1.0, -math.inf, 3.0, 0.5], "sensitivity:1", -math.inf),
        ([1e308, 1.7e308, 1.6e308, 0.5], "youden", 1.65e308),
    ],
)
def test_thresholds_of_scores_that_are_no_probabilities(
    score: list[float], text: str, want: float
) -> None:
    assert threshold(sample([1, 1, 0, 0], score), criterion(text)) == pytest.approx(want)


def test_no_threshold_lies_above_an_infinite_negative_score() -> None:
    found = threshold(sample([1, 0, 0], [2.0, math.inf, 1.0]), criterion("specificity:1"))
    assert found is not None
    assert math.isnan(found)
    assert Threshold("x", found, "frozen").why == "above every score"
    assert Threshold("x", -math.inf, "frozen").why == "below every score"
    assert Threshold("x", 0.5, "frozen").why is None


@pytest.mark.parametrize(
    "text",
    [
        "magic",
        "sensitivity",
        "sensitivity:x",
        "sensitivity:1.5",
        "specificity:0",
        "cost:-1",
        "net_benefit:1",
        "youden:3",
        "cost:nan",
        "",
    ],
)
def test_what_is_no_criterion_is_refused_with_the_list(text: str) -> None:
    with raises_code(EvaluationError, "criterion", "screening", "net_benefit:VALUE"):
        criterion(text, "screening")


def test_the_list_of_criteria_and_the_name_of_the_point_are_in_the_message() -> None:
    with raises_code(
        EvaluationError, "criterion", "screening", "'odd'", "youden, sensitivity:VALUE,"
    ):
        criterion("odd", "screening")
    with raises_code(EvaluationError, "criterion", "operating point", "'cost:0'"):
        criterion("cost:0")
    with raises_code(EvaluationError, "criterion", "'sensitivity:x'"):
        criterion("sensitivity:x")


def test_calling_everyone_lies_half_way_to_zero() -> None:
    sample = Sample(np.array([True, False]), np.array([0.4, 0.8]), np.arange(2), np.zeros(2, int))
    assert threshold(sample, criterion("sensitivity:1")) == 0.2


def test_scores_of_exactly_zero_or_one_are_still_probabilities() -> None:
    assert threshold(sample([1, 0], [0.0, 0.8]), criterion("specificity:1")) == 0.9
    assert threshold(sample([1, 0], [0.4, 1.0]), criterion("sensitivity:1")) == 0.2
    assert threshold(sample([1, 0], [0.4, 1.5]), criterion("sensitivity:1")) == -0.6


def test_one_patient_alone_reaches_no_lower_limit() -> None:
    label, score = np.array([True, True, False, False]), np.array([0.9, 0.8, 0.2, 0.1])
    sample = Sample(label, score, np.array([0, 0, 1, 2]), np.zeros(4, int))
    assert threshold(sample, criterion("sensitivity_low:0.01")) is None

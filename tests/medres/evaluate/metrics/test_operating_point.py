from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate.metrics.operating_point import (
    OperatingPointContext,
    operating_point_report,
)
from medres.evaluate.metrics.predictive_values import predictive_values
from medres.evaluate.metrics.thresholds import (
    Threshold,
    check_tune,
    choose_thresholds,
    class_patients,
    criterion,
    youden_index,
    youden_point,
)
from medres.evaluate.results import CrossTable
from medres.evaluate.scores.sample import Sample, rank_counts
from medres.evaluate.scores.table import load
from medres.evaluate.scores.units import to_units
from medres.evaluate.serialization import to_plain
from medres.evaluate.statistics.intervals import likelihood_ratio, proportion_estimate


def sample_of(label, score) -> Sample:
    n = len(label)
    return Sample(
        np.array(label, dtype=bool),
        np.array(score, dtype=float),
        np.arange(n),
        np.zeros(n, dtype=np.int64),
    )


def units_of(**columns):
    return to_units(load(pd.DataFrame(columns)), None, "max", None)


def test_youden_is_the_best_of_all_thresholds_and_the_highest_of_equals() -> None:
    rng = np.random.default_rng(2)
    label, score = rng.random(60) < 0.5, np.round(rng.normal(size=60), 1)
    gains = {t: (score[label] >= t).mean() - (score[~label] >= t).mean() for t in np.unique(score)}
    counts = rank_counts(label, score)
    assert gains[counts.threshold[youden_index(counts)]] == pytest.approx(max(gains.values()))
    equal = sample_of([1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0])
    point = youden_point(equal, "exploratory", "youden", {})
    assert (point.value, point.source["equal_points"]) == (3.5, 1)
    alone = youden_point(sample_of([1, 0], [2.0, 1.0]), "exploratory", "youden", {})
    assert "equal_points" not in alone.source


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("repeat", [1, 3])
def test_every_figure_is_that_of_its_own_units(repeat: int, exact: bool) -> None:
    """Against a loop over the units; each rate with the patients of its own denominator."""
    rng = np.random.default_rng(4)
    n = 150
    label, patient = rng.random(n) < 0.3, np.arange(n) // repeat
    score = np.round(rng.normal(size=n) + label, 1)
    sample = Sample(label, score, patient, np.zeros(n, dtype=np.int64))
    refused = (rng.random(9) < 0.5, np.arange(9) % 4 if repeat > 1 else 1000 + np.arange(9))
    source = {"criterion": "by hand"}
    context = OperatingPointContext(
        0.9,
        prevalences=(0.02, 0.3),
        refused_label=refused[0],
        refused_patient=refused[1],
        exact=exact,
    )
    out = operating_point_report(sample, Threshold("a", 0.5, "frozen", source), context)
    assert (out.name, out.threshold, out.origin, out.source) == (
        "a",
        0.5,
        "frozen",
        source,
    )
    table = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for y, s in zip(label, score, strict=True):
        table[("t" if (s >= 0.5) == y else "f") + ("p" if s >= 0.5 else "n")] += 1
    assert vars(out.table) == table
    assert len({*table.values()}) == 4
    called = score >= 0.5
    for name, hit, of in (
        ("sensitivity", called, label),
        ("specificity", ~called, ~label),
        ("ppv", label, called),
        ("npv", ~label, ~called),
        ("accuracy", called == label, np.ones(n, dtype=bool)),
    ):
        rate = getattr(out.rates, name)
        assert rate == proportion_estimate(hit[of], patient[of], 0.9, exact=exact), name
        assert ("Clopper" in rate.method) == (exact and repeat == 1)
    assert out.rates.lr_positive == likelihood_ratio(called, label, patient, 0.9, "LR+")
    assert out.rates.lr_negative == likelihood_ratio(~called, label, patient, 0.9, "LR-")
    assert [list(vars(at)) for at in out.predictive_at] == [["prevalence", "ppv", "npv"]] * 2
    for at, prevalence in zip(out.predictive_at, (0.02, 0.3), strict=True):
        assert (at.prevalence, at.ppv, at.npv) == (
            prevalence, *predictive_values(called, label, patient, prevalence, 0.9)
        )  # fmt: skip
    right = np.concatenate([called == label, np.zeros(9, dtype=bool)])
    truth, who = np.concatenate([label, refused[0]]), np.concatenate([patient, refused[1]])
    for name, of in (("sensitivity", truth), ("specificity", ~truth)):
        rate = getattr(out.refused_as_error, name)
        assert rate == proportion_estimate(right[of], who[of], 0.9, exact=exact)
        assert ("Clopper" in rate.method) == (exact and repeat == 1)


def test_no_youden_point_of_one_class() -> None:
    for label in ([0, 0], [1, 1]):
        assert youden_point(sample_of(label, [0.1, 0.2]), "exploratory", "youden", {}) is None
    found = youden_point(sample_of([1, 0], [0.9, 0.2]), "frozen", "default", {"split": "tune"})
    assert found == Threshold("default", 0.55, "frozen", {"criterion": "youden", "split": "tune"})


def test_a_score_equal_to_the_threshold_is_positive() -> None:
    out = operating_point_report(
        sample_of([1, 1, 0, 0], [0.5, 0.4, 0.5, 0.1]),
        Threshold("a", 0.5, "declared"),
        OperatingPointContext(0.95),
    )
    assert out.table == CrossTable(1, 1, 1, 1)
    assert out.rates.sensitivity.estimate == 0.5
    assert out.rates.ppv.denominator == 2
    assert out.rates.accuracy.denominator == 4
    assert out.source is None
    assert "source" not in to_plain(out)


def test_refusals_count_as_errors_of_their_class() -> None:
    context = OperatingPointContext(
        0.95, refused_label=np.array([True, False, False]), refused_patient=np.array([90, 91, 92])
    )
    out = operating_point_report(
        sample_of([1, 1, 0, 0], [0.9, 0.8, 0.1, 0.2]), Threshold("a", 0.5, "declared"), context
    )
    assert out.rates.sensitivity.estimate == 1.0
    assert (
        out.refused_as_error.sensitivity.numerator,
        out.refused_as_error.sensitivity.denominator,
    ) == (
        2,
        3,
    )
    assert (
        out.refused_as_error.specificity.numerator,
        out.refused_as_error.specificity.denominator,
    ) == (
        2,
        4,
    )


def test_case_control_leaves_out_what_depends_on_prevalence() -> None:
    sample = sample_of([1, 1, 0, 0], [0.9, 0.3, 0.6, 0.2])
    out = operating_point_report(
        sample, Threshold("a", 0.5, "declared"), OperatingPointContext(0.95, True, (0.1,))
    )
    why = (
        "cases and controls were sampled separately: the proportion of positives is not that of "
        "the clinic"
    )
    assert [(e.estimate, e.why) for e in (out.rates.ppv, out.rates.npv, out.rates.accuracy)] == [
        (None, f"{why}; state a prevalence to get predictive values")
    ] * 3
    assert (out.rates.sensitivity.estimate, out.rates.specificity.estimate) == (0.5, 0.5)
    assert out.predictive_at[0].ppv.estimate == pytest.approx(0.5 * 0.1 / (0.5 * 0.1 + 0.5 * 0.9))


def test_one_class_gives_reasons() -> None:
    out = operating_point_report(
        sample_of([0, 0], [0.9, 0.3]), Threshold("a", 0.5, "declared"), OperatingPointContext(0.95)
    )
    assert out.rates.sensitivity.estimate is None
    assert out.rates.specificity.estimate == 0.5
    assert out.rates.lr_positive.why == "LR+ needs both classes"
    assert out.rates.lr_negative.why == "LR- needs both classes"


def test_points_are_exploratory_only_where_nothing_else_was_given() -> None:
    units = units_of(label=[1, 1, 0, 0], score=[0.9, 0.6, 0.5, 0.1])
    tune = units_of(label=[1, 0, 0], score=[0.7, 0.65, 0.1])
    (alone,) = choose_thresholds(units, None, None, None)["positive"]
    assert (alone.origin, alone.value) == ("exploratory", 0.55)
    (frozen,) = choose_thresholds(units, tune, "abc", None)["positive"]
    assert (frozen.origin, frozen.name) == ("frozen", "default")
    assert frozen.value == pytest.approx(0.675)
    assert frozen.source == {
        "criterion": "youden",
        "split": "tune",
        "sha256": "abc",
        "n_patients": 3,
    }
    both = choose_thresholds(units, tune, "abc", {"positive": {"rule-out": 0.2}})["positive"]
    assert [(p.origin, p.name) for p in both] == [("declared", "rule-out"), ("frozen", "default")]
    assert [p.name for p in choose_thresholds(units, None, None, 0.25)["positive"]] == ["0.25"]


def test_frozen_points_of_an_artefact_keep_their_source() -> None:
    units = units_of(label=[1, 0], score=[0.9, 0.1])
    given = [
        0.5,
        {
            "finding": "positive",
            "name": "default",
            "threshold": 0.4,
            "criterion": "youden",
            "split": "tune",
            "n_patients": 12,
            "sha256": "f00",
        },
    ]
    points = choose_thresholds(units, None, None, given)["positive"]
    assert [(p.origin, p.value) for p in points] == [("declared", 0.5), ("frozen", 0.4)]
    assert points[1].source == {
        "criterion": "youden",
        "split": "tune",
        "n_patients": 12,
        "sha256": "f00",
    }


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("0.5", "not_a_threshold"),
        (True, "not_a_threshold"),
        ({"other": {"a": 1}}, "unknown_finding"),
        ({"positive": {"a": "x"}}, "not_a_threshold"),
        ({"positive": float("nan")}, "not_a_threshold"),
        (float("inf"), "not_a_threshold"),
        ([None], "not_a_threshold"),
    ],
)
def test_bad_thresholds_are_refused(bad, code: str) -> None:
    with raises_code(EvaluationError, code):
        choose_thresholds(units_of(label=[1, 0], score=[0.9, 0.1]), None, None, bad)


def test_a_tuning_table_that_shares_patients_or_images_is_refused() -> None:
    table = load(
        pd.DataFrame(
            {"image": ["a", "b"], "patient": ["p", "q"], "label": [1, 0], "score": [0.5, 0.1]}
        )
    )
    for column, value in (("image", ["a", "z"]), ("patient", ["q", "r"])):
        frame = pd.DataFrame(
            {"image": ["x", "y"], "patient": ["s", "t"], "label": [1, 0], "score": [0.5, 0.1]}
        )
        with raises_code(EvaluationError, "split_leak", column):
            check_tune(load(frame.assign(**{column: value})), table)
    with raises_code(EvaluationError, "findings_differ"):
        check_tune(load(pd.DataFrame({"label:A": [1, 0], "score:A": [0.5, 0.1]})), table)


def test_a_criterion_is_found_on_the_tuning_table_and_frozen() -> None:
    units = units_of(label=[0, 1, 1, 0], score=[0.2, 0.3, 0.9, 0.4])
    tune = units_of(label=[0, 0, 0, 1, 1], score=[0.1, 0.35, 0.5, 0.4, 0.8])
    asked = {"screening": "sensitivity:1", "rule-in": "specificity:1"}
    screening, rule_in, youden = choose_thresholds(units, tune, "abc", None, asked)["positive"]
    assert (youden.name, screening.name, rule_in.name) == ("default", "screening", "rule-in")
    assert screening.value == pytest.approx(0.375)  # midway: 0.4 is called, 0.35 is not
    assert rule_in.value == pytest.approx(0.65)
    assert {p.origin for p in (screening, rule_in)} == {"frozen"}
    assert screening.source == {
        "criterion": "sensitivity:1",
        "split": "tune",
        "sha256": "abc",
        "n_patients": 5,
    }
    (other,) = choose_thresholds(units, tune, "abc", None, {"default": "specificity:1"})["positive"]
    assert (other.name, other.value) == ("default", pytest.approx(0.65))


def test_the_class_that_fixes_a_threshold_is_counted_in_patients() -> None:
    label = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    patient = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    sample = Sample(label, np.arange(8.0), patient, np.zeros(8, np.int64))
    for text, count in (
        ("youden", 2),
        ("sensitivity:0.9", 2),
        ("sensitivity_low:0.9", 2),
        ("specificity:0.9", 5),
        ("specificity_low:0.9", 5),
        ("cost:5", 2),
        ("net_benefit:0.2", 2),
    ):
        assert class_patients(sample, criterion(text)) == count, text
    units = units_of(label=[0, 1, 1, 0], score=[0.2, 0.3, 0.9, 0.4])
    tune = units_of(label=[0, 0, 0, 1, 1], score=[0.1, 0.35, 0.5, 0.4, 0.8])
    sure, youden = choose_thresholds(units, tune, "", None, {"sure": "specificity:1"})["positive"]
    assert (youden.n_class_patients, sure.n_class_patients) == (2, 3)
    kept = {"finding": "positive", "threshold": 0.4, "n_class_patients": 7}
    (frozen,) = choose_thresholds(units, None, None, [kept])["positive"]
    assert frozen.n_class_patients == 7


def test_a_criterion_without_a_tuning_table_or_out_of_reach_is_an_error() -> None:
    units = units_of(label=[0, 1, 1, 0], score=[0.2, 0.3, 0.9, 0.4])
    with raises_code(EvaluationError, "no_tune_table"):
        choose_thresholds(units, None, None, None, {"screening": "sensitivity:0.9"})
    with raises_code(EvaluationError, "criterion_unmet", "high=sensitivity_low:0.9", "2 positive"):
        choose_thresholds(units, units, "abc", None, {"high": "sensitivity_low:0.9"})
    with raises_code(EvaluationError, "criterion", "high", "'often'"):
        choose_thresholds(units, units, "abc", None, {"high": "often"})

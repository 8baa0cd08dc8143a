from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate import evaluate
from medres.evaluate.analyses.unpaired_comparison import (
    difference_of_rates,
    rates_p_value,
    unpaired_difference,
)
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.scores.sample import Sample
from medres.evaluate.statistics.estimate import Estimate
from medres.evaluate.statistics.intervals import proportion_estimate

pytestmark = pytest.mark.usefixtures("few_replicates")


def drawn(
    rng: np.random.Generator, positive: int, negative: int, auc: float = 0.8, prefix: str = "a"
) -> pd.DataFrame:
    label = np.arange(positive + negative) < positive
    score = rng.normal(size=label.size) + label * np.sqrt(2) * stats.norm.ppf(auc)
    ids = [f"{prefix}{i}" for i in range(label.size)]
    return pd.DataFrame(
        {"image": ids, "patient": ids, "label": label * 1, "score": 1 / (1 + np.exp(-score))}
    )


def sample_of(frame: pd.DataFrame) -> Sample:
    codes = pd.factorize(frame.patient)[0].astype(np.int64)
    label, score = frame.label.to_numpy() == 1, frame.score.to_numpy()
    return Sample(label, score, codes, np.zeros(len(frame), dtype=np.int64))


def slow_parts(frame: pd.DataFrame) -> tuple[float, list[tuple[float, int]]]:
    """The AUC from all pairs, and per class the variance of its mean placement with n - 1."""
    cases, controls = (frame.score[frame.label == y].tolist() for y in (1, 0))
    above = {
        (i, j): 1.0 if x > y else 0.5 if x == y else 0.0
        for (i, x), (j, y) in product(enumerate(cases), enumerate(controls))
    }
    of_case = [np.mean([above[i, j] for j in range(len(controls))]) for i in range(len(cases))]
    of_control = [np.mean([above[i, j] for i in range(len(cases))]) for j in range(len(controls))]
    parts = [(float(np.var(v, ddof=1)) / len(v), len(v) - 1) for v in (of_case, of_control)]
    return float(np.mean(of_case)), parts


@pytest.fixture
def hospitals() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(5)
    a, b = drawn(rng, 30, 45), drawn(rng, 25, 60, 0.7, "b")
    return a.assign(score=a.score.round(1)), b.assign(score=b.score.round(1))


def test_a_row_holds_the_unpaired_test_of_delong(hospitals) -> None:
    a, b = hospitals
    (row,) = evaluate(a, compare_unpaired={"north": b}, margin=0.3, thresholds=0.5).numbers[
        "comparisons"
    ]
    (auc_a, parts_a), (auc_b, parts_b) = slow_parts(a), slow_parts(b)
    parts = parts_a + parts_b
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / k for part, k in parts)
    t = (auc_a - auc_b) / variance**0.5
    half = stats.t.ppf(0.975, df) * variance**0.5
    expected = {"finding": "positive", "a": "scores", "b": "north", "direction": "a-b",
                "n_common": 0, "n_a": 75, "n_b": 85, "n_positive": 25, "method": "unpaired DeLong",
                "margin": 0.3, "reference": "north", "alternative": "two-sided",
                "noninferior": bool(auc_a - auc_b - half > -0.3)}  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert row["p_value"] == row["p_adjusted"] == pytest.approx(2 * stats.t.sf(abs(t), df))
    difference = row["auc_difference"]
    assert difference["estimate"] == pytest.approx(auc_a - auc_b)
    assert difference["ci_low"] == pytest.approx(auc_a - auc_b - half)
    assert difference["ci_high"] == pytest.approx(auc_a - auc_b + half)
    assert "flag" not in difference
    assert difference["n"] == 160
    hits = [[((f.score >= 0.5) == f.label)[f.label == y].sum() for f in (a, b)] for y in (1, 0)]
    rates = [hits[0][0] / 30 - hits[0][1] / 25, hits[1][0] / 45 - hits[1][1] / 60]
    assert row["sensitivity_difference"]["estimate"] == pytest.approx(rates[0])
    assert row["specificity_difference"]["estimate"] == pytest.approx(rates[1])
    table = [[hits[1][0], 45 - hits[1][0]], [hits[1][1], 60 - hits[1][1]]]
    assert row["specificity_p"] == pytest.approx(
        stats.chi2_contingency(table, correction=False).pvalue
    )


def test_pages_tables_and_methods_name_the_other_patients(hospitals, tmp_path: Path) -> None:
    a, b = hospitals
    paired = a.assign(score=1 - a.score)
    report = evaluate(a, compare={"twin": paired}, compare_unpaired={"twin": b}, thresholds=0.5)
    numbers, page = report.numbers, report.to_html()
    assert [row["b"] for row in numbers["comparisons"]] == ["twin", "twin (2)"]
    assert "global_comparisons" not in numbers
    assert "different patients" in page
    assert "75; 85" in page
    assert "unpaired test of DeLong" in numbers["methods"]
    assert "Rao & Scott" in numbers["methods"]
    assert "different patients" not in evaluate(a, compare=paired).numbers["methods"]
    assert numbers["provenance"]["compared"][1]["nothing_shared_by"] == ["patient"]
    rows = pd.read_csv(report.save(tmp_path / "r") / "tables" / "comparisons.csv")
    assert rows.n_b.tolist()[1] == 85
    assert rows.method.tolist()[1] == "unpaired DeLong"


def test_holm_counts_paired_and_unpaired_comparisons_together(hospitals) -> None:
    a, b = hospitals
    worse = a.assign(score=np.random.default_rng(0).permutation(a.score))
    rows = evaluate(a, compare=worse, compare_unpaired=b).numbers["comparisons"]
    low = min(rows, key=lambda row: row["p_value"])
    assert low["p_adjusted"] == pytest.approx(2 * low["p_value"])


def test_patients_of_both_tables_are_refused(hospitals) -> None:
    a, b = hospitals
    same = b.assign(patient=[" A3"[1:].lower() + " ", *b.patient[1:]])
    with raises_code(EvaluationError, "shared_patients", "1 patient is in both", "--compare"):
        evaluate(a, compare_unpaired=same)
    numbers = evaluate(a, compare_unpaired=b.assign(patient=["A3", *b.patient[1:]])).numbers
    assert [w["code"] for w in numbers["warnings"]].count("not_disjoint") == 1
    assert "nothing_shared_by" in numbers["provenance"]["compared"][0]
    assert numbers["provenance"]["compared"][0]["nothing_shared_by"] == []
    with raises_code(EvaluationError, "shared_patients"):
        evaluate(a, compare_unpaired=b.assign(patient=["A3", *b.patient[1:]]), fold_ids=True)


def test_equal_image_names_of_two_hospitals_matter_only_without_patients(hospitals) -> None:
    a, b = hospitals
    b = b.assign(image=[f"a{i}" for i in range(len(b))])
    assert evaluate(a, compare_unpaired=b).numbers["comparisons"][0]["n_common"] == 0
    with raises_code(EvaluationError, "shared_patients", "75 images are in both"):
        evaluate(a, compare_unpaired=b.drop(columns="patient"))
    bare = b.drop(columns=["patient", "image"])
    (source,) = evaluate(a, compare_unpaired=bare).numbers["provenance"]["compared"]
    assert source["nothing_shared_by"] == []
    assert "patient" in source["not_comparable"]


def test_tables_with_seeds_or_other_findings_are_refused(hospitals) -> None:
    a, b = hospitals
    with raises_code(EvaluationError, "several_seeds"):
        evaluate(a, compare_unpaired=b.assign(seed=1))
    with raises_code(EvaluationError, "findings_differ"):
        evaluate(a, compare_unpaired=b.rename(columns={"label": "label:x", "score": "score:x"}))


def test_several_units_per_patient_are_clusters(hospitals) -> None:
    a, b = hospitals
    copies = b.loc[b.index.repeat(2)]
    copies = copies.assign(image=[f"{i}" for i in range(len(copies))])
    (row,) = evaluate(a, compare_unpaired=copies).numbers["comparisons"]
    plain = evaluate(a, compare_unpaired=b).numbers["comparisons"][0]
    assert row["method"] == "unpaired Obuchowski"
    difference = row["auc_difference"]
    assert (difference["n_clusters"], difference["n"]) == (160, 245)
    assert difference["method"] == "unpaired Obuchowski, Wald, t"
    assert row["p_value"] == pytest.approx(plain["p_value"])
    assert row["p_value_patient_weighted"] == pytest.approx(plain["p_value"])
    assert row["auc_difference_patient_weighted"]["method"].endswith("equal weight per patient")


def test_the_limits_at_an_auc_of_one_are_those_of_the_two_aucs() -> None:
    perfect = drawn(np.random.default_rng(1), 12, 12)
    perfect = sample_of(perfect.assign(score=0.9 * perfect.label))
    poor = sample_of(drawn(np.random.default_rng(2), 15, 15, 0.45, "b"))
    estimate, p_value = unpaired_difference(perfect, poor, 0.95)
    a, b = (auc_estimates(sample, 0.95).auc_newcombe for sample in (perfect, poor))
    below = np.hypot(1.0 - a.ci_low, b.ci_high - b.estimate)
    assert estimate.ci_low == pytest.approx(1.0 - b.estimate - below)
    assert estimate.ci_high == pytest.approx(1.0 - b.estimate + b.estimate - b.ci_low)
    assert p_value is not None
    assert p_value < 0.05
    edge, _ = unpaired_difference(perfect, poor, 1.0 - p_value)
    assert edge.ci_low == pytest.approx(0.0, abs=1e-6)
    swapped, same = unpaired_difference(poor, perfect, 0.95)
    assert same == pytest.approx(p_value)
    assert swapped.bounds == pytest.approx((-estimate.ci_high, -estimate.ci_low))
    twin, p_value = unpaired_difference(perfect, perfect, 0.95)
    assert p_value == 1.0
    assert twin.bounds == pytest.approx((a.ci_low - 1.0, 1.0 - a.ci_low))
    copies = perfect.take(np.ones(24, bool))
    double = Sample(*(np.repeat(part, 2) for part in vars_of(copies)))
    for weighted in (True, False):  # copies of the same patients tell nothing new
        again, _ = unpaired_difference(double, double, 0.95, patient_weighted=weighted)
        assert again.bounds == pytest.approx(twin.bounds)


def vars_of(sample: Sample) -> tuple[np.ndarray, ...]:
    return sample.label, sample.score, sample.patient, sample.fold


def test_an_auc_of_one_half_without_variance_has_an_interval_too() -> None:
    a = sample_of(drawn(np.random.default_rng(1), 12, 12).assign(score=0.5))
    estimate, p_value = unpaired_difference(a, a, 0.95)
    assert p_value == 1.0
    assert estimate.ci_low < -0.2
    assert estimate.ci_high > 0.2


def test_rates_are_compared_at_every_declared_threshold(hospitals, tmp_path: Path) -> None:
    a, b = hospitals
    several = {"positive": {"low": 0.3, "high": 0.7}}
    report = evaluate(
        a, compare=a.assign(score=1 - a.score), compare_unpaired=b, thresholds=several
    )
    for row in report.numbers["comparisons"]:
        assert row["operating_point"] == "low"
        assert [rates["operating_point"] for rates in row["other_rates"]] == ["high"]
    (other,) = report.numbers["comparisons"][1]["other_rates"]
    hits = [(f.score >= 0.7)[f.label == 1].mean() for f in (a, b)]
    assert other["sensitivity_difference"]["estimate"] == pytest.approx(hits[0] - hits[1])
    assert report.to_html().count("for both models: difference in sensitivity") == 4
    rows = pd.read_csv(report.save(tmp_path / "r") / "tables" / "comparison_rates.csv")
    assert rows.operating_point.tolist() == ["low", "high"] * 2
    (one,) = evaluate(a, compare_unpaired=b, thresholds=0.5).numbers["comparisons"]
    assert "other_rates" not in one


def test_few_patients_and_missing_classes_say_so() -> None:
    rng = np.random.default_rng(3)
    few, many = sample_of(drawn(rng, 9, 40)), sample_of(drawn(rng, 40, 40, prefix="b"))
    assert unpaired_difference(many, few, 0.95)[0].flag == "fewer than 10 effective patients"
    one_class = many.take(many.label)
    for pair, name in (((few, one_class), "B"), ((one_class, few), "A")):
        estimate, p_value = unpaired_difference(*pair, 0.95)
        assert p_value is None
        assert estimate.why == f"one class only among the units of {name}"
    one_patient = few.take(~few.label | (np.cumsum(few.label) == 1))
    assert unpaired_difference(many, one_patient, 0.95)[0].why is not None


@pytest.mark.parametrize(
    ("hits", "limits"),
    [((56, 70, 48, 80), (0.0524, 0.3339)), ((9, 10, 3, 10), (0.1705, 0.8090))],
)
def test_difference_of_rates_is_method_10_of_newcombe(hits, limits) -> None:
    a, b = rate(hits[0], hits[1]), rate(hits[2], hits[3])
    assert difference_of_rates(a, b).bounds == pytest.approx(limits, abs=5e-5)
    assert difference_of_rates(replace(a, flag="few"), b).flag == "few"
    assert difference_of_rates(a, replace(b, flag="few")).flag == "few"


def rate(k: int, n: int, repeat: int = 1) -> Estimate:
    hit = np.repeat(np.arange(n) < k, repeat)
    return proportion_estimate(hit, np.repeat(np.arange(n), repeat), 0.95)


def test_p_values_of_rates() -> None:
    assert rates_p_value(rate(9, 10), rate(3, 10)) == pytest.approx(
        stats.fisher_exact([[9, 1], [3, 7]]).pvalue
    )
    assert rates_p_value(rate(7, 7), rate(9, 9)) == rates_p_value(rate(0, 7), rate(0, 9)) == 1.0
    assert rates_p_value(rate(0, 0), rate(9, 9)) is None
    assert difference_of_rates(rate(0, 0), rate(9, 9)).why == "no unit in the denominator"
    pooled = (20 + 35) / 90
    ratio = (35 / 50 - 20 / 40) / np.sqrt(pooled * (1 - pooled) * (1 / 50 + 1 / 40))
    assert rates_p_value(rate(35, 50), rate(20, 40)) == pytest.approx(2 * stats.norm.sf(ratio))
    # copies add nothing: the ratio estimator's variance has patients / (patients - 1)
    clustered = rates_p_value(rate(35, 50, 3), rate(20, 40, 3))
    assert clustered == pytest.approx(2 * stats.t.sf(ratio, 80), rel=0.1)
    assert "clusters" in str(difference_of_rates(rate(35, 50, 3), rate(20, 40)).method)


def test_size_of_the_test_by_simulation() -> None:
    rng = np.random.default_rng(11)
    p_values = [
        unpaired_difference(independent(rng, 25, 40), independent(rng, 60, 20), 0.95)[1]
        for _ in range(1000)
    ]
    assert 0.035 < np.mean(np.array(p_values) < 0.05) < 0.065


def independent(rng: np.random.Generator, positive: int, negative: int) -> Sample:
    label = np.arange(positive + negative) < positive
    score = rng.normal(size=label.size) + label
    return Sample(label, score, np.arange(label.size), np.zeros(label.size, dtype=np.int64))


def test_size_with_unequal_patients_by_simulation() -> None:
    rng, rejected = np.random.default_rng(12), 0
    patient = np.repeat(np.arange(60), np.tile([12, 1, 1, 1, 2, 3], 10))
    label = patient % 2 == 1
    zeros = np.zeros(patient.size, dtype=np.int64)
    for _ in range(600):
        score = rng.normal(size=(2, 60))[:, patient] + 0.6 * rng.normal(size=(2, patient.size))
        a, b = (Sample(label, s + label, patient, zeros) for s in score)
        rejected += (unpaired_difference(a, b, 0.95)[1] or 0.0) < 0.05
    assert rejected / 600 < 0.075

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code
from scipy import stats

from medres.errors import EvaluationError
from medres.evaluate import evaluate
from medres.evaluate.analyses.model_comparison import align, paired_difference
from medres.evaluate.analyses.subgroups import OVERLAY_POINTS
from medres.evaluate.metrics.roc import auc_covariance, placements
from medres.evaluate.scores.sample import Sample
from medres.evaluate.scores.table import load

pytestmark = pytest.mark.usefixtures("few_replicates")


def drawn(seed: int = 0, n: int = 120, repeat: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    latent = rng.normal(size=n) + label
    patient = np.arange(n) // (2 if repeat else 1)
    frame = pd.DataFrame({"image": [f"i{k}" for k in range(n)], "patient": patient, "label": label})
    scores = [1 / (1 + np.exp(-(latent + rng.normal(size=n) * s))) for s in (0.2, 1.0)]
    return frame.assign(score=scores[0]), frame.assign(score=scores[1])


def sample_of(frame: pd.DataFrame) -> Sample:
    n = len(frame)
    return Sample(
        frame.label.to_numpy() == 1,
        frame.score.to_numpy(),
        frame.patient.to_numpy(),
        np.zeros(n, dtype=np.int64),
    )


def test_paired_difference_is_delongs_test() -> None:
    a, b = (sample_of(f) for f in drawn())
    covariance = auc_covariance([placements(a), placements(b)])
    contrast = np.array([1.0, -1.0])
    z = (placements(a).auc - placements(b).auc) / np.sqrt(contrast @ covariance @ contrast)
    estimate, p_value = paired_difference(a, b, 0.95)
    assert p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert estimate.estimate == pytest.approx(placements(a).auc - placements(b).auc)


@pytest.mark.parametrize("repeat", [False, True])
def test_a_row_says_what_was_compared_and_how(repeat: bool) -> None:
    a, b = drawn(repeat=repeat)
    (row,) = evaluate(a, compare={"other": b}, thresholds=0.5, margin=0.1, level=0.9).numbers[
        "comparisons"
    ]
    method = "paired Obuchowski" if repeat else "paired DeLong"
    told = {
        "finding": "positive",
        "a": "scores",
        "b": "other",
        "direction": "a-b",
        "n_common": 120,
        "method": method,
        "alternative": "two-sided",
        "n_positive": int(a.label.sum()),
        "margin": 0.1,
        "reference": "other",
        "operating_point": "0.5",
        "threshold": 0.5,
    }
    assert {key: row[key] for key in told} == told
    estimate, p_value = paired_difference(sample_of(a), sample_of(b), 0.9)
    assert row["p_value"] == pytest.approx(p_value, rel=1e-12)
    difference = row["auc_difference"]
    for key, value in estimate.to_dict().items():
        expected = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
        assert difference.pop(key) == expected
    assert not difference
    assert (estimate.method, estimate.level, estimate.sided, estimate.n, estimate.n_clusters) == (
        f"{method}, Wald{', t for unequal patients' * repeat}", 0.9, "two", 120,
        60 if repeat else None,
    )  # fmt: skip
    counts = row["b_counts"]
    assert counts["tp"][-1] == a.label.sum()
    assert len(counts["tp"]) <= OVERLAY_POINTS
    reference = stats.norm()
    if repeat:  # labels are mixed, so a patient has one or two units of a class
        sample, models = sample_of(a), [placements(sample_of(f)) for f in (a, b)]
        parts = []
        for side, label in (("positive", True), ("negative", False)):
            deviation = getattr(models[0], side) - getattr(models[1], side)
            sizes = np.bincount(sample.patient[sample.label == label])
            kish = sizes.sum() ** 2 / (sizes**2).sum()
            share = getattr(models[0], f"share_{side}")
            parts.append((float(deviation @ (deviation / (1 - share))), kish - 1))
        df = sum(v for v, _ in parts) ** 2 / sum(v * v / f for v, f in parts)
        reference = stats.t(df)
    half = reference.isf(0.05) * abs(estimate.estimate) / reference.isf(p_value / 2)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx(
        (estimate.estimate - half, estimate.estimate + half)
    )


def test_limits_of_a_difference_stay_within_one() -> None:
    label = np.array([True, True, True, False, False, False])
    right, wrong = np.array([6.0, 5, 2, 3, 1, 0]), np.array([0.0, 1, 4, 3, 5, 6])
    a, b = (
        Sample(label, score, np.arange(6), np.zeros(6, dtype=np.int64)) for score in (right, wrong)
    )
    up, down = paired_difference(a, b, 0.95)[0], paired_difference(b, a, 0.95)[0]
    assert up.estimate == pytest.approx(7 / 9)
    assert (up.ci_high, down.ci_low) == (1.0, -1.0)


def test_why_there_is_no_difference() -> None:
    a, b = drawn()
    for label in (0, 1):
        found, p_value = paired_difference(
            *(sample_of(f.assign(label=label)) for f in (a, b)), 0.95
        )
        assert (found.estimate, found.why, found.n, p_value) == (
            None,
            "one class only among the common units",
            120,
            None,
        )
    apart = [replace(s, fold=s.label.astype(np.int64)) for s in (sample_of(a), sample_of(b))]
    found, _ = paired_difference(*apart, 0.95)
    assert (found.why, found.n) == ("no fold holds both classes", 120)
    found, _ = paired_difference(sample_of(a), sample_of(a), 0.95)
    assert (found.why, found.n) == (
        "the estimated variance is zero: both models rank the units identically",
        120,
    )
    one = np.arange(120) == 0
    alone = [replace(x, label=one) for x in (sample_of(a), sample_of(b))]
    assert (
        paired_difference(*alone, 0.95)[0].why
        == "the variance of an AUC needs two patients with each class"
    )
    alone = [replace(x, label=~one) for x in (sample_of(a), sample_of(b))]
    assert (
        paired_difference(*alone, 0.95)[0].why
        == "the variance of an AUC needs two patients with each class"
    )


def test_units_that_one_of_the_models_refused_are_left_out() -> None:
    a, b = drawn()
    a, b = (
        f.assign(status=np.where(np.arange(120) == at, "refused", "scored"))
        for f, at in ((a, 3), (b, 7))
    )
    assert evaluate(a, compare=b).numbers["comparisons"][0]["n_common"] == 118


def test_labels_that_are_not_known_agree() -> None:
    a, b = (f.assign(label=f.label.where(f.index != 5)) for f in drawn())
    kept, other = align(load(a), load(b.iloc[::-1]))
    assert kept.n_rows == other.n_rows == 120
    assert (other.name, other.sha256) == (load(b.iloc[::-1]).name, load(b.iloc[::-1]).sha256)
    assert other.status.tolist() == ["scored"] * 120


def test_rows_are_aligned_by_image_and_not_by_order() -> None:
    a, b = drawn()
    straight = evaluate(a, compare={"other": b}).numbers["comparisons"]
    shuffled = evaluate(a, compare={"other": b.sample(frac=1, random_state=1)}).numbers[
        "comparisons"
    ]
    assert straight == shuffled
    assert straight[0]["direction"] == "a-b"
    assert straight[0]["auc_difference"]["estimate"] > 0
    assert straight[0]["b"] == "other"


def test_only_common_images_count() -> None:
    a, b = drawn()
    row = evaluate(a, compare=b.iloc[20:]).numbers["comparisons"][0]
    assert row["n_common"] == 100


def test_repeated_patients_give_the_clustered_test() -> None:
    a, b = drawn(repeat=True)
    row = evaluate(a, compare=b).numbers["comparisons"][0]
    assert row["method"] == "paired Obuchowski"
    assert row["auc_difference"]["n_clusters"] == 60


def test_a_model_against_itself_is_not_a_crash() -> None:
    a, _ = drawn()
    row = evaluate(a, compare=a).numbers["comparisons"][0]
    assert row["auc_difference"]["estimate"] == 0
    assert "rank the units identically" in row["auc_difference"]["why"]
    assert row["p_value"] is None
    assert row["p_adjusted"] is None


def test_p_values_are_adjusted_over_all_comparisons() -> None:
    a, b = drawn()
    _, c = drawn(seed=5)
    c["label"] = a.label
    rows = evaluate(a, compare={"b": b, "c": c}).numbers["comparisons"]
    p = sorted(r["p_value"] for r in rows)
    assert sorted(r["p_adjusted"] for r in rows) == pytest.approx(
        [min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])]
    )


def test_noninferiority_only_with_a_margin() -> None:
    a, b = drawn(n=400)
    assert "noninferior" not in evaluate(a, compare=b).numbers["comparisons"][0]
    better = evaluate(a, compare=b, margin=0.05).numbers["comparisons"][0]
    worse = evaluate(b, compare=a, margin=0.001).numbers["comparisons"][0]
    assert (better["noninferior"], worse["noninferior"]) == (True, False)
    assert evaluate(a, compare=a, margin=0.05).numbers["comparisons"][0]["noninferior"] is None


def test_tables_that_cannot_be_compared() -> None:
    a, b = drawn()
    bad = {
        "missing_column": b.drop(columns="image"),
        "no_common_image": b.assign(image=[f"z{k}" for k in range(len(b))]),
        "labels_differ": b.assign(label=1 - b.label),
        "findings_differ": b.rename(columns={"label": "label:X", "score": "score:X"}),
        "several_seeds": b.assign(seed=1),
    }
    for code, other in bad.items():
        with raises_code(EvaluationError, code):
            align(load(a), load(other))

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    roc_auc_score,
    top_k_accuracy_score,
)

from medres.evaluate.metrics.multiclass import (
    MANY_CLASSES,
    hand_till,
    kappa,
    multiclass_report,
    top_k_accuracy,
)
from medres.evaluate.metrics.operating_point import (
    OperatingPointContext,
    operating_point_report,
)
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.results import ClassFigures
from medres.evaluate.scores.sample import Sample
from medres.evaluate.scores.table import load
from medres.evaluate.scores.units import to_units
from medres.evaluate.serialization import to_plain
from medres.evaluate.statistics.clusters import t_quantile
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import proportion_estimate

CLASSES = ["a", "b", "c"]


def drawn(seed: int = 0, n: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    scores = rng.dirichlet([1, 1, 1], n)
    scores[np.arange(n), truth] += 0.35
    scores /= scores.sum(axis=1, keepdims=True)
    frame = pd.DataFrame(scores, columns=[f"score:{c}" for c in CLASSES])
    return frame.assign(label=[CLASSES[i] for i in truth], patient=rng.integers(0, n // 2, n))


def numbers_of(frame: pd.DataFrame, **options):
    units = to_units(load(frame), None, "max", None)
    return multiclass_report(
        units, **({"level": 0.95, "ordinal": True, "case_control": False} | options)
    )


@pytest.mark.parametrize("seed", range(4))
def test_point_values_match_scikit_learn(seed: int) -> None:
    frame = drawn(seed)
    scores = frame[[f"score:{c}" for c in CLASSES]].to_numpy()
    called = np.array(CLASSES)[scores.argmax(axis=1)]
    out = numbers_of(frame)
    assert out.confusion == confusion_matrix(frame.label, called, labels=CLASSES).tolist()
    assert out.balanced_accuracy.estimate == pytest.approx(
        balanced_accuracy_score(frame.label, called)
    )
    assert out.kappa.estimate == pytest.approx(cohen_kappa_score(frame.label, called))
    quadratic = cohen_kappa_score(frame.label, called, weights="quadratic", labels=CLASSES)
    assert out.quadratic_kappa.estimate == pytest.approx(quadratic)
    # scikit-learn's one-against-one macro average is Hand & Till's M
    assert out.hand_till.estimate == pytest.approx(
        roc_auc_score(frame.label, scores, multi_class="ovo", average="macro", labels=CLASSES)
    )
    assert out.accuracy.numerator == int((frame.label == called).sum())


def test_kappa_interval_matches_numerical_derivatives_by_patient() -> None:
    rng = np.random.default_rng(3)
    truth, patient = rng.integers(0, 3, 90), rng.integers(0, 30, 90)
    called = np.where(rng.random(90) < 0.6, truth, rng.integers(0, 3, 90))
    weights = np.ones((3, 3)) - np.eye(3)
    step, slopes, g_count = 1e-5, [], np.unique(patient).size
    for g in np.unique(patient):
        ends = [
            cohen_kappa_score(truth, called, sample_weight=1 + s * step * (patient == g))
            for s in (1, -1)
        ]
        slopes.append((ends[0] - ends[1]) / (2 * step))
    e = kappa(truth, called, patient, weights, 0.95)
    error = np.sqrt(g_count / (g_count - 1) * np.sum(np.square(slopes)))
    assert e.ci_high - e.estimate == pytest.approx(t_quantile(0.95, g_count - 1) * error, rel=1e-5)


def test_kappa_says_what_it_is_and_stays_within_minus_one_and_one() -> None:
    weights = np.ones((2, 2)) - np.eye(2)
    truth, called = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 1, 1])
    patient = np.arange(6)
    e = kappa(truth, called, patient, weights, 0.9)
    assert (e.level, e.sided, e.method, e.n, e.n_clusters) == (
        0.9,
        "two",
        "delta method by patient, t",
        6,
        None,
    )
    assert e.estimate == pytest.approx(cohen_kappa_score(truth, called))
    assert (e.ci_low > -1, e.ci_high) == (True, 1.0)
    against = kappa(truth, 1 - called, patient, weights, 0.9)
    assert (against.ci_low, against.ci_high < 1) == (-1.0, True)
    pairs = kappa(np.tile(truth, 2), np.tile(called, 2), np.tile(patient, 2), weights, 0.5)
    once = kappa(truth, called, patient, weights, 0.5)
    assert (pairs.ci_low, pairs.n_clusters) == (pytest.approx(once.ci_low), 6)
    assert kappa(truth[:0], called[:0], patient[:0], weights, 0.9) == undefined("no unit")
    flat = kappa(truth * 0, called * 0, patient, weights, 0.9)
    assert flat == undefined(
        "all labels and predictions are of one class: kappa is undefined (0 / 0)", n=6
    )
    single = kappa(truth, called, patient * 0, weights, 0.9)
    zero = "the estimated variance is zero: no interval of this kind"
    assert single == Estimate(e.estimate, why=zero, n=6, n_clusters=1)
    assert kappa(truth[3:5], called[3:5], patient[:2], weights, 0.9).n == 2


def test_balanced_accuracy_by_a_loop_over_patients() -> None:
    """Each unit moves the recall of its class alone: the mean of three binomial rates, with
    patients as clusters.
    """
    frame = drawn(2)
    scores = frame[[f"score:{c}" for c in CLASSES]].to_numpy()
    truth, right = (
        frame.label.map(CLASSES.index).to_numpy(),
        scores.argmax(axis=1) == frame.label.map(CLASSES.index),
    )
    recall = [right[truth == i].mean() for i in range(3)]
    patients, squares = frame.patient.unique(), 0.0
    for one in patients:
        rows = np.flatnonzero(frame.patient == one)
        squares += (
            sum((right[r] - recall[truth[r]]) / (truth == truth[r]).sum() / 3 for r in rows) ** 2
        )
    g = len(patients)
    half = t_quantile(0.95, g - 1) * np.sqrt(g / (g - 1) * squares)
    e = numbers_of(frame).balanced_accuracy
    assert (e.ci_low, e.ci_high) == pytest.approx(
        (np.mean(recall) - half, np.mean(recall) + half), rel=1e-12
    )
    assert (e.method, e.n, e.n_clusters) == ("delta method by patient, t", 150, g)
    few = pd.DataFrame(
        np.eye(3)[[0, 0, 1, 2, 1]] * 0.7 + 0.1, columns=[f"score:{c}" for c in CLASSES]
    )
    low_high = numbers_of(few.assign(label=list("aabcc"))).balanced_accuracy
    assert (low_high.ci_high, low_high.ci_low >= 0) == (1.0, True)


def test_hand_till_of_four_classes() -> None:
    """With three, a wrong choice of pairs may only swap them."""
    rng = np.random.default_rng(8)
    truth = rng.integers(0, 4, 200)
    scores = rng.dirichlet(np.ones(4), 200)
    scores[np.arange(200), truth] += 0.1 * (1 + truth)
    scores /= scores.sum(axis=1, keepdims=True)
    found = hand_till(truth, scores.T, np.arange(200), np.zeros(200, dtype=np.int64), 0.95)
    assert found.estimate == pytest.approx(
        roc_auc_score(truth, scores, multi_class="ovo", average="macro")
    )


def test_hand_till_edges() -> None:
    scores = np.eye(3)[[0, 0, 1, 1, 2, 2]].T * 0.7 + 0.1
    truth, fold = np.array([0, 0, 1, 1, 2, 2]), np.zeros(6, dtype=np.int64)
    perfect = hand_till(truth, scores, np.arange(6), fold, 0.95)
    zero = "the estimated variance is zero: no interval of this kind"
    assert perfect == Estimate(1.0, why=zero, n=6)
    missing = hand_till(truth % 2, scores, np.arange(6), fold, 0.95)
    assert missing == undefined("a class has no unit", n=6)
    lonely = hand_till(np.array([0, 0, 1, 1, 2]), scores[:, :5], np.arange(5), fold[:5], 0.95)
    assert lonely == Estimate(
        1.0, why="the variance of an AUC needs two patients with each class", n=5
    )
    frame = drawn(7)
    e = numbers_of(frame, level=0.9).hand_till
    assert (e.level, e.sided, e.method, e.n) == (
        0.9,
        "two",
        "joint influence by patient, logit",
        150,
    )


def test_hand_till_interval_is_about_that_of_a_patient_bootstrap() -> None:
    rng = np.random.default_rng(5)
    frame = drawn(7, n=240)
    truth = frame.label.map(CLASSES.index).to_numpy()
    scores, patient = frame[[f"score:{c}" for c in CLASSES]].to_numpy(), frame.patient.to_numpy()
    e = hand_till(truth, scores.T, patient, np.zeros(240, dtype=np.int64), 0.95)
    rows = [np.flatnonzero(patient == g) for g in np.unique(patient)]
    draws = []
    for _ in range(300):
        take = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        draws.append(roc_auc_score(truth[take], scores[take], multi_class="ovo", average="macro"))
    assert e.ci_high - e.ci_low == pytest.approx(2 * 1.96 * np.std(draws), rel=0.2)


def test_missing_class_and_unordered_classes_have_reasons() -> None:
    frame = drawn()
    out = numbers_of(frame[frame.label != "c"], ordinal=False)
    assert "no unit" in out.hand_till.why
    assert out.balanced_accuracy == undefined("a class has no unit", n=out.accuracy.n)
    assert (
        out.quadratic_kappa.why
        == "the design does not state that the classes are ordered (ordinal: true)"
    )
    one = numbers_of(frame[frame.label == "a"].assign(**{"score:a": 2.0}))
    assert "0 / 0" in one.kappa.why


@pytest.mark.parametrize("case_control", [False, True])
def test_each_class_against_the_rest_is_an_operating_point(case_control: bool) -> None:
    frame = drawn()
    units = to_units(load(frame), None, "max", None)
    out = numbers_of(frame, case_control=case_control)
    assert out.classes == [row.name for row in out.per_class] == CLASSES
    truth = np.argmax(np.stack([units.label[name] for name in CLASSES]), axis=0)
    called = np.argmax(np.stack([units.score[name] for name in CLASSES]), axis=0)
    assert out.accuracy == proportion_estimate(truth == called, units.patient, 0.95)
    for i, (name, row) in enumerate(zip(CLASSES, out.per_class, strict=True)):
        sample = Sample(truth == i, np.where(called == i, 1.0, 0.0), units.patient, units.fold)
        whole = operating_point_report(
            sample, Threshold(name, 0.5, "declared"), OperatingPointContext(0.95, case_control)
        )
        assert row == ClassFigures(name, whole.table, whole.rates)
        keys = {"class", "tp", "fp", "fn", "tn", "sensitivity", "specificity", "ppv"}
        assert to_plain(row).keys() >= keys
    assert sum(row.table.tp for row in out.per_class) == out.accuracy.numerator


def many(k: int, n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % k
    scores = rng.random((n, k))
    scores[np.arange(n), truth] += 0.9 * rng.random(n)
    names = [f"c{i:04d}" for i in range(k)]
    frame = pd.DataFrame(
        scores / scores.sum(1, keepdims=True), columns=[f"score:{c}" for c in names]
    )
    return frame.assign(label=[names[i] for i in truth])


def test_top_k_accuracy_matches_scikit_learn_and_its_definition() -> None:
    frame = many(8, 120)
    out = numbers_of(frame)
    scores = frame.filter(like="score:").to_numpy()
    assert out.top_k is not None
    assert {*out.top_k} == {"1", "5"}
    assert out.top_k["1"] == out.accuracy
    expected = top_k_accuracy_score(frame.label, scores, k=5, labels=sorted(set(frame.label)))
    assert out.top_k["5"].estimate == pytest.approx(expected)
    assert 0 < out.top_k["5"].ci_low < expected < out.top_k["5"].ci_high < 1


def test_equal_scores_count_in_the_order_of_the_classes() -> None:
    truth, scores = np.array([0, 1, 2]), np.full((3, 3), 0.5)
    for k, expected in ((1, 1 / 3), (2, 2 / 3), (3, 1.0)):
        assert top_k_accuracy(truth, scores, np.arange(3), k, 0.95).estimate == pytest.approx(
            expected
        )


def test_up_to_five_classes_have_no_top_five() -> None:
    assert numbers_of(drawn()).top_k is None
    assert "top_k" not in to_plain(numbers_of(drawn()))
    assert numbers_of(many(5, 60)).top_k is None


def test_of_many_classes_the_least_sensitive_have_a_section() -> None:
    k = MANY_CLASSES + 1
    frame = many(k, 4 * k)
    out = numbers_of(frame)
    assert out.hand_till.estimate is None
    assert str(k) in (out.hand_till.why or "")
    assert out.detailed is not None
    worst = [figures.name for figures in out.least_sensitive(len(out.detailed))]
    assert sorted(worst) == sorted(out.detailed)
    (true, predicted, count), *_ = out.frequent_confusions(1)
    assert true != predicted
    matrix = np.array(out.confusion) * ~np.eye(k, dtype=bool)
    assert count == matrix.max() == matrix[out.classes.index(true), out.classes.index(predicted)]

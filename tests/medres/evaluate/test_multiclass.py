from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, confusion_matrix, roc_auc_score

from medres.evaluate.intervals import t_quantile
from medres.evaluate.multiclass import hand_till, kappa, multiclass_numbers
from medres.evaluate.scores import load
from medres.evaluate.units import to_units

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
    return multiclass_numbers(units, **({"level": 0.95, "ordinal": True, "case_control": False} | options))


@pytest.mark.parametrize("seed", range(4))
def test_point_values_match_scikit_learn(seed: int) -> None:
    frame = drawn(seed)
    scores = frame[[f"score:{c}" for c in CLASSES]].to_numpy()
    called = np.array(CLASSES)[scores.argmax(axis=1)]
    out = numbers_of(frame)
    assert out["confusion"] == confusion_matrix(frame.label, called, labels=CLASSES).tolist()
    assert out["balanced_accuracy"].estimate == pytest.approx(balanced_accuracy_score(frame.label, called))
    assert out["kappa"].estimate == pytest.approx(cohen_kappa_score(frame.label, called))
    quadratic = cohen_kappa_score(frame.label, called, weights="quadratic", labels=CLASSES)
    assert out["quadratic_kappa"].estimate == pytest.approx(quadratic)
    # scikit-learn's one-against-one macro average is Hand & Till's M
    assert out["hand_till"].estimate == pytest.approx(
        roc_auc_score(frame.label, scores, multi_class="ovo", average="macro", labels=CLASSES)
    )
    assert out["accuracy"].numerator == int((frame.label == called).sum())


def test_kappa_interval_matches_numerical_derivatives_by_patient() -> None:
    rng = np.random.default_rng(3)
    truth, patient = rng.integers(0, 3, 90), rng.integers(0, 30, 90)
    called = np.where(rng.random(90) < 0.6, truth, rng.integers(0, 3, 90))
    weights = np.ones((3, 3)) - np.eye(3)
    step, slopes, g_count = 1e-5, [], np.unique(patient).size
    for g in np.unique(patient):
        ends = [cohen_kappa_score(truth, called, sample_weight=1 + s * step * (patient == g)) for s in (1, -1)]
        slopes.append((ends[0] - ends[1]) / (2 * step))
    e = kappa(truth, called, patient, weights, 0.95)
    error = np.sqrt(g_count / (g_count - 1) * np.sum(np.square(slopes)))
    assert e.ci_high - e.estimate == pytest.approx(t_quantile(0.95, g_count - 1) * error, rel=1e-5)


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
    assert "no unit" in out["hand_till"].why
    assert "no unit" in out["balanced_accuracy"].why
    assert "ordered" in out["quadratic_kappa"].why
    one = numbers_of(frame[frame.label == "a"].assign(**{"score:a": 2.0}))
    assert "0 / 0" in one["kappa"].why


def test_per_class_tables_add_up() -> None:
    out = numbers_of(drawn())
    for row in out["per_class"]:
        assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == 150
    assert sum(row["tp"] for row in out["per_class"]) == out["accuracy"].numerator

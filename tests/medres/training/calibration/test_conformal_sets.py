"""From tuning patients to the sets of new patients: when sets are offered, what they cost, and how
often they hold the true label.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_pipelines.cache.tf_dataset import Targets
from data_pipelines.preprocessing.spec import spec_from
from medres.artefact.card import Card, ConformalQuantile
from medres.inference.decisions import conformal_answer, prediction_sets
from medres.tasks import task_named
from medres.training.calibration.finalize import after_calibration, conformal
from medres.training.calibration.scaling import identity
from medres.training.data import ScoredImages, conformal_holdout, min_patients_for_sets

AFTER = {"operating_points": {}, "alpha": 0.1}
NAMES = {"binary": ["a"], "multilabel": ["a", "b"], "multiclass": ["a", "b", "c"]}


def cohort(task: str, labels: np.ndarray, seed: int = 0) -> ScoredImages:
    """One image a patient, with informative probabilities. labels: (n,) class numbers, or
    (n, findings) of 0 and 1.
    """
    rng, names, exclusive = np.random.default_rng(seed), NAMES[task], task_named(task).exclusive
    n = len(labels)
    if exclusive:
        logits = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    else:
        scores = 1 / (1 + np.exp(-rng.normal(2.0 * labels - 1.0, 1.2)))
    ids = [f"p{i}" for i in range(n)]
    table = pd.DataFrame({"image": ids, "series": ids, "study": ids, "patient": ids})
    table = table.assign(pixel_sha256="", kind="radiograph")
    if exclusive:
        table["class"] = [names[label] for label in labels]
    else:
        table = table.assign(**{f"label:{name}": labels[:, i] for i, name in enumerate(names)})
    stored = labels.astype(np.int32) if exclusive else labels.astype(np.float32)
    targets = Targets(task, tuple(names), stored, np.ones(stored.shape, np.float32))
    return ScoredImages(scores.astype(np.float32), targets, table)


def card_with(task: str, conformal: list[ConformalQuantile]) -> Card:
    return Card(
        task=task, names=NAMES[task], preprocess=spec_from("xray-32"), unit="study", pooling="max",
        calibration={}, operating_points=[], conformal=conformal, training={}, versions={},
    )  # fmt: skip


def findings_present(n: int, positive: int, findings: int = 1) -> np.ndarray:
    return np.tile((np.arange(n) < positive).astype(int)[:, None], (1, findings))


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("binary", findings_present(46, 15)),
        ("binary", findings_present(46, 23)),
        ("binary", findings_present(200, 26)),
        ("multilabel", findings_present(46, 15, 2)),
        ("multiclass", np.arange(46) % 3),
        ("multiclass", np.minimum(np.arange(200) // 90, 2)),  # 90, 90, 20
    ],
)
def test_too_few_patients_of_a_class_cost_no_patient_and_cause_no_abstention(
    task: str, labels: np.ndarray
) -> None:
    images = cohort(task, labels)
    holdout = conformal_holdout(images, 0.1)
    assert not holdout.any()
    result = after_calibration(
        identity(3), images.take(~holdout), images.take(holdout), "study", AFTER
    )
    assert result.conformal == []
    assert all(point.n_patients == len(labels) for point in result.points)
    assert any("27 of each class" in entry["why"] for entry in result.left_out)
    card = card_with(task, result.conformal)
    for scores in images.scores:
        assert prediction_sets(dict(zip(NAMES[task], map(float, scores), strict=True)), card) == {}


def test_sets_cost_a_third_where_every_class_has_the_stated_number() -> None:
    assert min_patients_for_sets(0.1) == 27
    for task, labels in (
        ("binary", findings_present(100, 30)),
        ("multilabel", np.hstack([findings_present(100, 30), findings_present(100, 5)])),
        ("multiclass", np.arange(90) % 3),
    ):
        images = cohort(task, labels)
        holdout = conformal_holdout(images, 0.1)
        assert holdout.mean() == pytest.approx(1 / 3, abs=0.02), task
        found, left_out = conformal(images.take(holdout), 0.1)
        with_sets = {"binary": {"a"}, "multilabel": {"a"}, "multiclass": {"a", "b", "c"}}[task]
        assert {q.finding for q in found} == with_sets
        assert {entry["finding"] for entry in left_out} == {*NAMES[task]} - with_sets


def test_a_finding_has_both_quantiles_or_none_and_both_are_accounted_for() -> None:
    one_sided = cohort("binary", findings_present(46, 4))
    found, left_out = conformal(one_sided, 0.1)
    assert found == []
    assert [entry["what"] for entry in left_out] == [
        "conformal quantile of 1",
        "conformal quantile of 0",
    ]
    assert "4 patients" in left_out[0]["why"]


def test_older_cards_with_a_quantile_of_one_class_make_no_one_abstain() -> None:
    def quantile(finding: str, label: int | str) -> ConformalQuantile:
        return ConformalQuantile(
            finding=finding, label=label, alpha=0.1, quantile=0.4, n_patients=14
        )

    half = card_with("binary", [quantile("a", 0)])
    for p in np.linspace(0, 1, 11):
        assert prediction_sets({"a": float(p)}, half) == {}
        assert conformal_answer({"a": float(p)}, half) is None
    classes = card_with("multiclass", [quantile("a", "a"), quantile("b", "b")])
    assert prediction_sets({"a": 0.2, "b": 0.2, "c": 0.6}, classes) == {}
    mixed = card_with("multilabel", [quantile("a", 0), quantile("a", 1), quantile("b", 1)])
    assert conformal_answer({"a": 0.5, "b": 0.5}, mixed) == {
        "alpha": 0.1,
        "sets": {"a": []},
        "uncertain": [],
        "atypical": ["a"],
    }


def slow_set(holdout: ScoredImages, row: np.ndarray, task: str) -> list:
    """The set by definition: a label stays where at least alpha of the holdout patients of this
    label, with the new one, are no less unlike it.
    """

    def stays(column: int, label: int) -> bool:
        labels, scores = holdout.targets.labels, holdout.scores.astype(np.float64)
        own = (labels == column) if task == "multiclass" else (labels[:, column] == label)

        def unlike(p: float) -> float:
            return 1 - p if label else p

        new = unlike(float(row[column]))
        at_least = sum(unlike(p) >= new for p in scores[own, column]) + 1
        return at_least / (own.sum() + 1) > 0.1 + 1e-12

    if task == "multiclass":
        return [name for column, name in enumerate(NAMES[task]) if stays(column, 1)]
    return [label for label in (0, 1) if stays(0, label)]


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_sets_are_those_of_the_definition_and_hold_the_true_label_of_each_class(task: str) -> None:
    rng, hits = np.random.default_rng(5), {label: [] for label in range(3)}
    for draw in range(120):
        classes = rng.permutation(np.arange(90) % (3 if task == "multiclass" else 2))
        labels = classes if task == "multiclass" else classes[:, None]
        tune, new = cohort(task, labels, 2 * draw), cohort(task, labels, 2 * draw + 1)
        holdout = tune.take(conformal_holdout(tune, 0.1))
        card = card_with(task, conformal(holdout, 0.1)[0])
        for row, label in zip(new.scores[:40], classes[:40], strict=True):
            probabilities = dict(zip(NAMES[task], map(float, row), strict=True))
            (chosen,) = prediction_sets(probabilities, card).values()
            if draw < 10:
                assert chosen == slow_set(holdout, row, task)
            truth = NAMES[task][label] if task == "multiclass" else int(label)
            hits[label].append(truth in chosen)
    # m patients of a class: the ceil(0.9 (m + 1))-th smallest of them covers that share of m + 1
    exact = 10 / 11 if task == "multiclass" else 15 / 16
    for label, covered in hits.items():
        if covered:
            assert np.mean(covered) == pytest.approx(exact, abs=0.025), label

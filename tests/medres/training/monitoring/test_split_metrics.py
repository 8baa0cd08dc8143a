from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

import medres
from data_pipelines.cache.tf_dataset import Targets
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.training.data import ScoredImages
from medres.training.monitoring.split_metrics import SplitMetrics

SILENT = ProgressReporter()


def images(labels: list, weights: list, logits: list, task: str = "binary") -> ScoredImages:
    names = tuple("abc"[: np.shape(logits)[1]])
    dtype = np.int32 if task == "multiclass" else np.float32
    targets = Targets(task, names, np.array(labels, dtype), np.array(weights, np.float32))
    return ScoredImages(
        np.array(logits, np.float32), targets, pd.DataFrame(index=range(len(labels)))
    )


BINARY = images([[1], [0], [0], [1]], [[1], [1], [1], [0]], [[2.0], [-1.0], [0.5], [-9.0]])


def test_metrics_get_probabilities_or_logits_and_no_missing_label() -> None:
    """One of three labeled images is on the wrong side; of the fourth the label is missing."""
    metrics = SplitMetrics(
        [
            "accuracy",
            keras.metrics.BinaryAccuracy(name="plain"),
            keras.metrics.BinaryCrossentropy(from_logits=True, name="ce"),
            medres.metrics.MaskedAUC(findings=1),
        ],
        BINARY,
        SILENT,
    )
    row = metrics.row(BINARY)
    entropy = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log1p(np.exp(0.5))])
    assert row == pytest.approx(
        {"tune_accuracy": 2 / 3, "tune_plain": 2 / 3, "tune_ce": entropy, "tune_auc_1": 1.0},
        abs=1e-6,
    )
    assert metrics.row(BINARY) == row  # nothing is left from the epoch before
    assert metrics.directions == {"accuracy": "max", "plain": "max", "ce": "min", "auc_1": "max"}


def test_classes() -> None:
    three = images([0, 1, 2], [1, 1, 0], [[3, 0, 0], [3, 0, 0], [3, 0, 0]], "multiclass")
    assert SplitMetrics(["accuracy"], three, SILENT).row(three) == {"tune_accuracy": 0.5}


def test_names_do_not_depend_on_how_many_metrics_were_made_before() -> None:
    for _ in range(3):
        assert list(SplitMetrics([keras.metrics.Precision()], BINARY, SILENT).metrics) == [
            "precision"
        ]


class Odd(keras.metrics.Metric):
    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        raise ZeroDivisionError

    def result(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        (["auroc"], "bad_metrics"),
        (keras.metrics.AUC(), "bad_metrics"),
        ([keras.metrics.AUC], "bad_metrics"),
        ([Odd()], "metric_failed"),
        ([keras.metrics.F1Score()], "metric_failed"),  # one number per class
    ],
)
def test_metrics_that_cannot_work(metrics: object, code: str) -> None:
    with raises_code(TrainingError, code) as error:
        SplitMetrics(metrics, BINARY, SILENT)
    if isinstance(metrics, list) and isinstance(metrics[0], Odd):
        assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_missing_labels_of_several_findings_need_a_metric_that_knows_them() -> None:
    two = images([[1, 0], [0, 0]], [[1, 0], [1, 1]], [[1.0, 1.0], [-1.0, -1.0]], "multilabel")
    with raises_code(TrainingError, "metric_missing_labels", "plain"):
        SplitMetrics([keras.metrics.BinaryAccuracy(name="plain")], two, SILENT)
    assert SplitMetrics(["accuracy"], two, SILENT).row(two) == {"tune_accuracy": 1.0}

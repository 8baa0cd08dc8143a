from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import raises_code

from medres.errors import TrainingError
from medres.metrics import MaskedAUC, MaskedBinaryAccuracy

FINDINGS = 5


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (40, FINDINGS)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.3] = -1
    labels[:, 3] = np.where(labels[:, 3] == 1, -1, labels[:, 3])  # a finding with one class
    return labels, rng.random(labels.shape).astype(np.float32)


def auc_by_definition(label: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    wins = total = 0.0
    for i in np.flatnonzero(label == 1):
        for j in np.flatnonzero(label == 0):
            total += weight[i] * weight[j]
            wins += weight[i] * weight[j] * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
    return wins / total


@pytest.mark.parametrize("weighted", [False, True])
def test_auc_is_the_mean_over_findings_with_both_classes(weighted: bool) -> None:
    labels, scores = data()
    scores = np.round(scores, 2)  # ties, and one bin for each value
    weight = np.arange(1, 41, dtype=np.float32) if weighted else np.ones(40, np.float32)
    metric = MaskedAUC(findings=FINDINGS, bins=101)
    for part in (slice(0, FINDINGS), slice(FINDINGS, 40)):  # a batch with as many as findings
        metric.update_state(labels[part], scores[part], weight[part] if weighted else None)
    expected = np.mean(
        [auc_by_definition(labels[:, f], scores[:, f], weight) for f in (0, 1, 2, 4)]
    )
    assert float(metric.result()) == pytest.approx(expected, abs=1e-5)


def test_accuracy_counts_labeled_cells() -> None:
    labels, scores = data()
    known = labels >= 0
    metric = MaskedBinaryAccuracy(from_logits=True)
    metric.update_state(labels, np.log(scores / (1 - scores)))
    assert float(metric.result()) == pytest.approx(
        ((scores >= 0.5) == (labels == 1))[known].mean(), abs=1e-6
    )


@pytest.mark.parametrize("metric", [MaskedAUC(findings=5), MaskedBinaryAccuracy(threshold=0.3)])
def test_metrics_are_saved_and_refuse_weights_of_cells(metric: keras.metrics.Metric) -> None:
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert copy.get_config() == metric.get_config()
    labels, scores = data()
    with raises_code(TrainingError, "weight_shape"):
        metric.update_state(labels, scores, np.ones_like(labels))

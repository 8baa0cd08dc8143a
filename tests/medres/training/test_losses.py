from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.dataset import Targets
from medres.training.losses import class_balance, loss_for, mean_loss


def slow_bce(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Cell by cell, from the definition."""
    total, weight = 0.0, 0.0
    for z, y, w in zip(logits.ravel(), labels.ravel(), weights.ravel(), strict=True):
        p = 1 / (1 + np.exp(-float(z)))
        total -= w * (y * np.log(p) + (1 - y) * np.log(1 - p))
        weight += w
    return total / weight


@pytest.fixture
def multilabel() -> tuple[np.ndarray, Targets]:
    rng = np.random.default_rng(3)
    labels, weights = rng.integers(0, 2, (20, 3)).astype(np.float32), rng.integers(0, 2, (20, 3)).astype(np.float32)
    return rng.normal(size=(20, 3)).astype(np.float32) * 3, Targets("multilabel", ("a", "b", "c"), labels, weights)


def test_masked_bce_equals_the_slow_one(multilabel: tuple[np.ndarray, Targets]) -> None:
    logits, targets = multilabel
    want = slow_bce(logits, targets.labels, targets.weights)
    assert float(loss_for("multilabel")(targets.labels, logits, sample_weight=targets.weights)) == pytest.approx(
        want, rel=1e-5
    )
    assert mean_loss(logits, targets) == pytest.approx(want, rel=1e-6)


def test_a_missing_label_has_no_part(multilabel: tuple[np.ndarray, Targets]) -> None:
    logits, targets = multilabel
    changed = np.where(targets.weights == 0, 1 - targets.labels, targets.labels)
    loss = loss_for("multilabel")
    assert float(loss(changed, logits, sample_weight=targets.weights)) == float(
        loss(targets.labels, logits, sample_weight=targets.weights)
    )


def test_a_batch_without_labels_gives_zero() -> None:
    zeros = np.zeros((4, 2), np.float32)
    assert float(loss_for("multilabel")(zeros, zeros, sample_weight=zeros)) == 0.0


def test_multiclass_loss_and_its_twin() -> None:
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(size=(9, 4)).astype(np.float32), rng.integers(0, 4, 9).astype(np.int32)
    weights = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1], np.float32)
    chosen = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    want = -np.log(chosen[np.arange(9), labels])[weights > 0].mean()
    targets = Targets("multiclass", ("a", "b", "c", "d"), labels, weights)
    assert mean_loss(logits, targets) == pytest.approx(want, rel=1e-6)
    assert float(loss_for("multiclass")(labels, logits, sample_weight=weights)) == pytest.approx(want, rel=1e-5)


def test_balanced_classes_count_alike(multilabel: tuple[np.ndarray, Targets]) -> None:
    balanced = class_balance(multilabel[1])
    for i in range(3):
        known = multilabel[1].weights[:, i] > 0
        positive = balanced.weights[(balanced.labels[:, i] == 1) & known, i].sum()
        negative = balanced.weights[(balanced.labels[:, i] == 0) & known, i].sum()
        assert positive == pytest.approx(negative, rel=1e-5)
        assert balanced.weights[known, i].mean() == pytest.approx(1, rel=1e-5)
        assert (balanced.weights[~known, i] == 0).all()


def test_balanced_multiclass() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2], np.int32)
    weights = class_balance(Targets("multiclass", ("a", "b", "c"), labels, np.ones(10, np.float32))).weights
    assert [weights[labels == i].sum() for i in range(3)] == pytest.approx([10 / 3] * 3)

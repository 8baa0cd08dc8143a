from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from data_pipelines.cache.tf_dataset import Targets
from medres.training.losses import Loss, mean_loss


def slow_bce(
    logits: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    gamma: float = 0.0,
    smooth: float = 0.0,
) -> float:
    """Cell by cell, from the definitions."""
    total, weight = 0.0, 0.0
    for z, y, w in zip(logits.ravel(), labels.ravel(), weights.ravel(), strict=True):
        p, y = 1 / (1 + np.exp(-float(z))), y * (1 - smooth) + smooth / 2
        total -= w * abs(y - p) ** gamma * (y * np.log(p) + (1 - y) * np.log(1 - p))
        weight += w
    return total / weight


@pytest.fixture
def multilabel() -> tuple[np.ndarray, Targets]:
    rng = np.random.default_rng(3)
    labels, weights = (
        rng.integers(0, 2, (20, 3)).astype(np.float32),
        rng.integers(0, 2, (20, 3)).astype(np.float32),
    )
    return rng.normal(size=(20, 3)).astype(np.float32) * 3, Targets(
        "multilabel", ("a", "b", "c"), labels, weights
    )


@pytest.mark.parametrize(("gamma", "smooth"), [(0.0, 0.0), (2.0, 0.0), (0.0, 0.1), (1.5, 0.2)])
def test_masked_bce_equals_the_slow_one(
    multilabel: tuple[np.ndarray, Targets], gamma: float, smooth: float
) -> None:
    logits, targets = multilabel
    want = slow_bce(logits, targets.labels, targets.weights, gamma=gamma, smooth=smooth)
    loss = Loss("multilabel", smoothing=smooth, focal=gamma)
    assert float(loss.mean(targets.labels, logits, targets.weights)) == pytest.approx(
        want, rel=1e-5
    )
    if gamma == smooth == 0:
        assert mean_loss(logits, targets) == pytest.approx(want, rel=1e-6)


def test_a_missing_label_has_no_part(multilabel: tuple[np.ndarray, Targets]) -> None:
    logits, targets = multilabel
    changed = np.where(targets.weights == 0, 1 - targets.labels, targets.labels)
    loss = Loss("multilabel")
    assert float(loss.mean(changed, logits, targets.weights)) == float(
        loss.mean(targets.labels, logits, targets.weights)
    )


def test_a_batch_without_labels_gives_zero() -> None:
    zeros = np.zeros((4, 2), np.float32)
    assert float(Loss("multilabel").mean(zeros, zeros, zeros)) == 0.0


@pytest.mark.parametrize(("gamma", "smooth"), [(0.0, 0.0), (2.0, 0.0), (0.0, 0.1)])
def test_classes(gamma: float, smooth: float) -> None:
    rng = np.random.default_rng(4)
    logits, labels = (
        rng.normal(size=(9, 4)).astype(np.float32),
        rng.integers(0, 4, 9).astype(np.int32),
    )
    weights = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1], np.float32)
    want = 0.0
    for z, label, w in zip(logits, labels, weights, strict=True):
        p, y = softmax(z.astype(float)), np.eye(4)[label] * (1 - smooth) + smooth / 4
        want -= w * sum(y[c] * (1 - p[c]) ** gamma * np.log(p[c]) for c in range(4)) / weights.sum()
    loss = Loss("multiclass", smoothing=smooth, focal=gamma)
    assert float(loss.mean(keras.ops.convert_to_tensor(labels), logits, weights)) == pytest.approx(
        want, rel=1e-5
    )
    soft = np.eye(4, dtype=np.float32)[labels]
    assert float(loss.mean(soft, logits, weights)) == pytest.approx(want, rel=1e-5)
    if gamma == smooth == 0:
        assert mean_loss(
            logits, Targets("multiclass", tuple("abcd"), labels, weights)
        ) == pytest.approx(want, rel=1e-6)


def test_ordinal_is_the_mean_over_the_cuts_in_the_order_given() -> None:
    rng = np.random.default_rng(5)
    logits, labels, order = (
        rng.normal(size=(8, 4)).astype(np.float32),
        rng.integers(0, 4, 8),
        (2, 0, 3, 1),
    )
    place = {label: rank for rank, label in enumerate(order)}
    want = 0.0
    for z, label in zip(logits, labels, strict=True):
        p = softmax(z.astype(float))[list(order)]
        for cut in range(1, 4):
            above = p[cut:].sum()
            want -= np.log(above if place[label] >= cut else 1 - above) / 3 / 8
    found = Loss("multiclass", order=order).mean(
        np.eye(4, dtype=np.float32)[labels], logits, np.ones(8, np.float32)
    )
    assert float(found) == pytest.approx(want, rel=1e-5)


def test_ordinal_counts_a_far_miss_more_than_a_near_one() -> None:
    far, near = np.array([[5.0, 0, 0, 0]]), np.array([[0, 0, 5.0, 0]])
    label, loss = np.eye(4, dtype=np.float32)[[3]], Loss("multiclass", order=(0, 1, 2, 3))
    plain = Loss("multiclass")
    assert float(loss.mean(label, far, np.ones(1))) > 1.5 * float(
        loss.mean(label, near, np.ones(1))
    )
    assert float(plain.mean(label, far, np.ones(1))) == pytest.approx(
        float(plain.mean(label, near, np.ones(1)))
    )


def test_soft_labels_have_their_minimum_at_their_own_probability() -> None:
    grid = np.linspace(0.05, 0.95, 19)
    logits = np.log(grid / (1 - grid))[:, None].astype(np.float32)
    cells = np.asarray(Loss("binary").cells(np.full((19, 1), 0.7, np.float32), logits))[:, 0]
    assert grid[np.argmin(cells)] == pytest.approx(0.7)


@pytest.mark.parametrize(
    "loss",
    [Loss("binary", focal=2.0), Loss("multiclass", focal=0.5), Loss("multiclass", order=(0, 1))],
)
def test_extreme_logits_give_finite_losses_and_gradients(loss: Loss) -> None:
    import tensorflow as tf

    outputs = 1 if loss.task == "binary" else 2
    logits = tf.constant([[80.0, -80.0][:outputs], [-80.0, 80.0][:outputs], [0.0, 0.0][:outputs]])
    labels = np.eye(2, dtype=np.float32)[[0, 0, 1]][:, :outputs]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss.mean(labels, logits, np.ones((3, 1) if outputs == 1 else 3, np.float32))
    assert np.isfinite(value.numpy())
    assert np.isfinite(tape.gradient(value, logits).numpy()).all()


def test_expit_and_log_softmax_agree_with_the_two_output_form() -> None:
    """A binary logit is the difference of two class logits: both losses then agree."""
    z = np.linspace(-3, 3, 7)
    pair = np.stack([np.zeros(7), z], axis=1).astype(np.float32)
    y = np.array([0, 1, 1, 0, 1, 0, 1])
    one = float(
        Loss("binary").mean(
            y[:, None].astype(np.float32),
            z[:, None].astype(np.float32),
            np.ones((7, 1), np.float32),
        )
    )
    two = float(
        Loss("multiclass").mean(np.eye(2, dtype=np.float32)[y], pair, np.ones(7, np.float32))
    )
    assert one == pytest.approx(two, rel=1e-5)
    assert one == pytest.approx(
        -np.mean(np.log(np.where(y == 1, expit(z), 1 - expit(z)))), rel=1e-5
    )
    assert two == pytest.approx(
        -log_softmax(pair.astype(float), axis=1)[np.arange(7), y].mean(), rel=1e-5
    )

"""Losses on logits, with missing labels masked by weights. One numpy twin gives the tuning loss from the same definition."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from data_pipelines.dataset import Targets


class MaskedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy on logits for one or several findings.

    y_true, y_pred, sample_weight: float32 (batch, findings). The result is the weighted mean over all cells, so a cell of weight 0
    (a missing label) has no part in it; a batch without any label gives 0.
    """

    def __init__(self, name: str = "masked_bce") -> None:
        super().__init__(reduction="mean_with_sample_weight", name=name)

    def call(self, y_true, y_pred):
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        return ops.relu(y_pred) - y_pred * y_true + ops.softplus(-ops.abs(y_pred))


def loss_for(task: str) -> keras.losses.Loss:
    """The Keras loss on logits of a task: "binary", "multilabel" or "multiclass"."""
    if task == "multiclass":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    return MaskedBinaryCrossentropy()


def mean_loss(logits: np.ndarray, targets: Targets) -> float:
    """The same loss over a whole split, float64. logits (n, outputs); NaN where nothing is labelled."""
    z = logits.astype(np.float64)
    if targets.task == "multiclass":
        peak = z.max(axis=1)
        each = peak + np.log(np.exp(z - peak[:, None]).sum(axis=1)) - z[np.arange(len(z)), targets.labels]
    else:
        each = np.logaddexp(0.0, z) - z * targets.labels
    total = targets.weights.sum(dtype=np.float64)
    return float((each * targets.weights).sum() / total) if total > 0 else float("nan")


def class_balance(targets: Targets) -> Targets:
    """The same targets with weights so that, within each finding (or over the classes), every class counts alike.

    Missing labels keep weight 0, and the mean weight of the labelled cells is 1.
    """
    if targets.task == "multiclass":
        one_hot = np.eye(len(targets.names))[targets.labels] * targets.weights[:, None]
        weights = one_hot @ _inverse(one_hot.sum(axis=0))
    else:
        positive = targets.labels * targets.weights
        negative = (1 - targets.labels) * targets.weights
        scale = np.stack(
            [_inverse(np.array(pair)) for pair in zip(positive.sum(axis=0), negative.sum(axis=0), strict=True)]
        )
        weights = positive * scale[:, 0] + negative * scale[:, 1]
    return Targets(targets.task, targets.names, targets.labels, weights.astype(np.float32))


def _inverse(counts: np.ndarray) -> np.ndarray:
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.where(present, counts, 1)), 0.0)

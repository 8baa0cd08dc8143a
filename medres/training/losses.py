"""Losses on logits, cell by cell; a cell without a label has weight 0. One numpy twin gives the
tuning loss, plain cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from data_pipelines.cache.tf_dataset import Targets


@dataclass(frozen=True)
class Loss:
    """The loss of a task. smoothing, focal: see Recipe. order: classes' output numbers from lowest
    to highest, or none.
    """

    task: str
    smoothing: float = 0.0
    focal: float = 0.0
    order: tuple[int, ...] = ()

    def cells(self, labels: Any, logits: Any) -> Any:
        """Loss of each cell, float32: (batch, findings), or (batch,) for classes.

        labels: float32 (batch, outputs) in 0..1; for classes also int (batch,). A label between 0
            and 1 is a probability.
        logits: (batch, outputs).
        """
        logits = ops.cast(logits, "float32")
        if self.task != "multiclass":
            return self._binary(ops.cast(labels, "float32"), logits)
        if len(labels.shape) == 1:
            labels = ops.one_hot(labels, logits.shape[-1], dtype="float32")
        labels = labels * (1.0 - self.smoothing) + self.smoothing / logits.shape[-1]
        return self._ordinal(labels, logits) if self.order else self._classes(labels, logits)

    def mean(self, labels: Any, logits: Any, weights: Any, total: Any = None) -> Any:
        """Weighted mean of the cells: those of weight 0 have no part in it, and without any label
        it is 0.

        total: sum of the weights, where these are one device's share of a batch.
        """
        weights = ops.cast(weights, "float32")
        total = ops.sum(weights) if total is None else total
        return ops.sum(self.cells(labels, logits) * weights) / ops.where(total > 0, total, 1.0)

    def _binary(self, y: Any, z: Any) -> Any:
        y = y * (1.0 - self.smoothing) + self.smoothing / 2.0
        loss = ops.relu(z) - z * y + ops.softplus(-ops.abs(z))
        # |y - p| is 1 - p(label) of a hard label (Lin et al. 2017); for a soft one see Li et al.
        # 2020, quality focal loss.
        return loss * _power(ops.abs(y - ops.sigmoid(z)), self.focal) if self.focal else loss

    def _classes(self, y: Any, z: Any) -> Any:
        log_p = ops.log_softmax(z)
        each = -y * log_p
        return ops.sum(
            each * _power(1.0 - ops.exp(log_p), self.focal) if self.focal else each, axis=-1
        )

    def _ordinal(self, y: Any, z: Any) -> Any:
        """Mean over the cuts of the cross-entropy of "above the cut": a proper score that counts
        far misses more.
        """
        y, z = ops.take(y, list(self.order), axis=-1), ops.take(z, list(self.order), axis=-1)
        whole, loss = ops.logsumexp(z, axis=-1), 0.0
        for cut in range(1, len(self.order)):
            for part in (slice(None, cut), slice(cut, None)):
                share = ops.sum(y[:, part], axis=-1)
                loss = loss - share * (ops.logsumexp(z[:, part], axis=-1) - whole)
        return loss / (len(self.order) - 1)


def _power(x: Any, exponent: float) -> Any:
    """x ** exponent for x in 0..1 with a finite gradient at 0."""
    return ops.power(ops.maximum(x, 1e-7), exponent)


def image_losses(logits: np.ndarray, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Plain cross-entropy, float64, of each cell, and its weight; (n, findings), or (n,) for
    classes. logits (n, outputs).
    """
    z = logits.astype(np.float64)
    if targets.task == "multiclass":
        peak = z.max(axis=1)
        each = (
            peak
            + np.log(np.exp(z - peak[:, None]).sum(axis=1))
            - z[np.arange(len(z)), targets.labels]
        )
    else:
        each = np.logaddexp(0.0, z) - z * targets.labels
    return each, targets.weights.astype(np.float64)


def mean_loss(logits: np.ndarray, targets: Targets) -> float:
    """Mean cross-entropy over a whole split's labelled cells, a proper score whatever was trained
    on; NaN where there is none.
    """
    each, weights = image_losses(logits, targets)
    total = weights.sum()
    return float((each * weights).sum() / total) if total > 0 else float("nan")

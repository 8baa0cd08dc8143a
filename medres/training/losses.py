"""Losses on logits, cell by cell; a cell without a label has weight 0. A NumPy counterpart computes
the tuning (validation) loss, plain cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from data_pipelines.cache.tf_dataset import Targets
from medres.tasks import task_named


@dataclass(frozen=True)
class Loss:
    """The training loss of a task.

    task: binary, multilabel or multiclass.
    smoothing, focal: see Recipe.
    order: output indices of the classes from lowest to highest, for the ordinal loss; empty: none.
    """

    task: str
    smoothing: float = 0.0
    focal: float = 0.0
    order: tuple[int, ...] = ()

    def cells(self, labels: Any, logits: Any) -> Any:
        """The loss of each cell, float32: (batch, findings), or (batch,) for classes.

        labels: float32 (batch, outputs) in 0..1, where a value between 0 and 1 is a probability; or
            for classes int (batch,).
        logits: (batch, outputs).
        """
        logits = ops.cast(logits, "float32")
        if not task_named(self.task).exclusive:
            return self._findings(ops.cast(labels, "float32"), logits)
        if len(labels.shape) == 1:
            labels = ops.one_hot(labels, logits.shape[-1], dtype="float32")
        labels = labels * (1.0 - self.smoothing) + self.smoothing / logits.shape[-1]
        return self._ordinal(labels, logits) if self.order else self._classes(labels, logits)

    def mean(self, labels: Any, logits: Any, weights: Any, total: Any = None) -> Any:
        """The weighted mean of the cells; 0 where no cell has a label.

        weights: as the cells. total: sum of the weights of the whole batch, where `weights` are
            only the part of one device; None: their own sum.
        """
        weights = ops.cast(weights, "float32")
        total = ops.sum(weights) if total is None else total
        return ops.sum(self.cells(labels, logits) * weights) / ops.where(total > 0, total, 1.0)

    def _findings(self, y: Any, z: Any) -> Any:
        """Binary cross-entropy of each finding."""
        y = y * (1.0 - self.smoothing) + self.smoothing / 2.0
        loss = ops.relu(z) - z * y + ops.softplus(-ops.abs(z))
        # |y - p| is 1 - p(label) of a hard label (Lin et al. 2017); for a soft label see Li et al.
        # 2020, quality focal loss.
        return loss * _power(ops.abs(y - ops.sigmoid(z)), self.focal) if self.focal else loss

    def _classes(self, y: Any, z: Any) -> Any:
        """Categorical cross-entropy."""
        log_p = ops.log_softmax(z)
        terms = -y * log_p
        if self.focal:
            terms = terms * _power(1.0 - ops.exp(log_p), self.focal)
        return ops.sum(terms, axis=-1)

    def _ordinal(self, y: Any, z: Any) -> Any:
        """The mean over the cuts of the cross-entropy of "above the cut": a proper score to which
        distant classes contribute more.
        """
        y, z = ops.take(y, list(self.order), axis=-1), ops.take(z, list(self.order), axis=-1)
        log_sum, loss = ops.logsumexp(z, axis=-1), 0.0
        for cut in range(1, len(self.order)):
            for side in (slice(None, cut), slice(cut, None)):
                p_side = ops.sum(y[:, side], axis=-1)
                loss = loss - p_side * (ops.logsumexp(z[:, side], axis=-1) - log_sum)
        return loss / (len(self.order) - 1)


def _power(x: Any, exponent: float) -> Any:
    """x ** exponent for x in 0..1 with a finite gradient at 0."""
    return ops.power(ops.maximum(x, 1e-7), exponent)


def image_losses(logits: np.ndarray, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Plain cross-entropy of each cell and the weight of each cell, both float64: (n, findings), or
    (n,) for classes. logits: (n, outputs).
    """
    z = logits.astype(np.float64)
    if task_named(targets.task).exclusive:
        peak = z.max(axis=1)
        losses = (
            peak
            + np.log(np.exp(z - peak[:, None]).sum(axis=1))
            - z[np.arange(len(z)), targets.labels]
        )
    else:
        losses = np.logaddexp(0.0, z) - z * targets.labels
    return losses, targets.weights.astype(np.float64)


def mean_loss(logits: np.ndarray, targets: Targets) -> float:
    """The mean cross-entropy over all labelled cells of a split, a proper score that does not
    depend on the training loss. NaN where no cell has a label. logits: (n, outputs).
    """
    losses, weights = image_losses(logits, targets)
    total = weights.sum()
    return float((losses * weights).sum() / total) if total > 0 else float("nan")

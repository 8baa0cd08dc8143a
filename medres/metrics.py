"""Metrics for `Model.compile` that leave out missing labels: -1 (or NaN), as `medres.data` writes
them. The report of `medres.evaluate` is exact and has intervals; these are for watching a fit.
"""

from __future__ import annotations

from typing import Any

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()

import keras  # noqa: E402
from keras import ops  # noqa: E402

from medres.losses import label_mask, require_image_weights  # noqa: E402

__all__ = ["MaskedAUC", "MaskedBinaryAccuracy"]


class _MaskedMetric(keras.metrics.Metric):
    """Labels, probabilities and weights of the cells of a batch, (batch, findings) each."""

    def __init__(self, from_logits: bool, name: str, dtype: Any) -> None:
        super().__init__(name=name, dtype=dtype)
        self.from_logits = from_logits
        self._direction = "up"  # as in Keras' own metrics: higher is better

    def _cells(self, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        require_image_weights(sample_weight)
        y_pred = ops.cast(ops.convert_to_tensor(y_pred), "float32")
        y_true = ops.reshape(ops.cast(y_true, "float32"), ops.shape(y_pred))
        weight = ops.cast(label_mask(y_true), "float32")
        if sample_weight is not None:
            weight = weight * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        return y_true, ops.sigmoid(y_pred) if self.from_logits else y_pred, weight

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"from_logits": self.from_logits}


def leaves_out_missing(metric: keras.metrics.Metric) -> bool:
    """Whether a metric knows that a label of -1 is missing."""
    return isinstance(metric, _MaskedMetric)


@keras.saving.register_keras_serializable(package="medres")
class MaskedBinaryAccuracy(_MaskedMetric):
    """The share of the labeled cells whose probability lies on the side of `threshold` that the
    label says.

    >>> metric = MaskedBinaryAccuracy()
    >>> metric.update_state([[1.0, -1.0], [0.0, 0.0]], [[0.9, 0.9], [0.2, 0.7]])
    >>> round(float(metric.result()), 3)
    0.667
    """

    def __init__(
        self,
        threshold: float = 0.5,
        from_logits: bool = False,
        name: str = "binary_accuracy",
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, name, dtype)
        self.threshold = threshold
        self.correct = self.add_weight(shape=(), initializer="zeros", name="correct")
        self.total = self.add_weight(shape=(), initializer="zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch."""
        label, probability, weight = self._cells(y_true, y_pred, sample_weight)
        equal = ops.equal(label >= 0.5, probability >= self.threshold)
        self.correct.assign_add(ops.sum(ops.cast(equal, "float32") * weight))
        self.total.assign_add(ops.sum(weight))

    def result(self) -> Any:
        """The accuracy; 0 before the first label."""
        return ops.divide_no_nan(self.correct, self.total)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"threshold": self.threshold}


@keras.saving.register_keras_serializable(package="medres")
class MaskedAUC(_MaskedMetric):
    """The mean over findings of the area under the ROC curve, each from its own labeled images.

    findings: the number of outputs of the model. bins: of the probability; images in one bin count
        as tied. A finding without images of both labels does not enter the mean.

    >>> metric = MaskedAUC(findings=2)
    >>> labels = [[1.0, -1.0], [0.0, 0.0], [0.0, 1.0]]
    >>> metric.update_state(labels, [[0.9, 0.9], [0.2, 0.7], [0.1, 0.1]])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        findings: int = 1,
        bins: int = 1000,
        from_logits: bool = False,
        name: str = "auc",
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, name, dtype)
        self.findings, self.bins = findings, bins
        shape = (findings, bins)
        self.positives = self.add_weight(shape=shape, initializer="zeros", name="positives")
        self.negatives = self.add_weight(shape=shape, initializer="zeros", name="negatives")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch."""
        label, probability, weight = self._cells(y_true, y_pred, sample_weight)
        bins = ops.cast(ops.clip(probability, 0.0, 1.0) * (self.bins - 1) + 0.5, "int32")
        cells = ops.reshape(bins + ops.arange(self.findings) * self.bins, (-1,))
        for counts, value in ((self.positives, label >= 0.5), (self.negatives, label < 0.5)):
            amounts = ops.reshape(ops.cast(value, "float32") * weight, (-1,))
            sums = ops.segment_sum(amounts, cells, num_segments=self.findings * self.bins)
            counts.assign_add(ops.reshape(sums, (self.findings, self.bins)))

    def result(self) -> Any:
        """The mean AUC; 0 before a finding has images of both labels."""
        positives, negatives = ops.convert_to_tensor(self.positives), self.negatives
        below = ops.cumsum(negatives, axis=1) - negatives / 2.0
        pairs = ops.sum(positives, axis=1) * ops.sum(negatives, axis=1)
        areas = ops.divide_no_nan(ops.sum(positives * below, axis=1), pairs)
        present = ops.cast(pairs > 0, "float32")
        return ops.divide_no_nan(ops.sum(areas * present), ops.sum(present))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"findings": self.findings, "bins": self.bins}

"""Metrics for `Model.compile` that leave out missing labels of images (-1 or NaN, as `medres.data`
writes them) and of pixels. The report of `medres.evaluate` is exact and has intervals; these are
for watching a fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()

import keras  # noqa: E402
from keras import ops  # noqa: E402

from medres.losses.missing_labels import label_mask, require_image_weights  # noqa: E402
from medres.losses.pixels import pixels  # noqa: E402

__all__ = ["Dice", "MaskedAUC", "MaskedBinaryAccuracy"]


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


@keras.saving.register_keras_serializable(package="medres")
class Dice(keras.metrics.Metric):
    """The Dice coefficient of segmentation by class: the mean over images whose label map has the
    class. y_true, y_pred: as for the losses of `medres.losses.pixels`; the prediction is the class
    of the largest logit.

    classes: the names of the classes, or their number; the first is the background, which is left
        out. ignore_label: see `medres.losses.pixels`.

    An image without the class in its label map has no Dice: `counts` tells how many of those have a
    prediction nevertheless (false alarms), and how many do not (both empty). An image with the
    class and without a prediction has Dice 0 (missed).

    The result is {"dice": the mean over classes, "dice_CLASS": ...}; NaN, never 0 or 1, as long as
    no image has the class.

    >>> metric = Dice(["background", "lung", "heart"])
    >>> metric.update_state([[[0, 1]]], [[[[0.0, 9.0, 0.0], [0.0, 9.0, 0.0]]]])
    >>> {name: round(float(value), 3) for name, value in metric.result().items()}
    {'dice': 0.667, 'dice_lung': 0.667, 'dice_heart': nan}
    >>> metric.counts()["heart"]
    {'images': 0, 'missed': 0, 'false_alarms': 0, 'both_empty': 1}
    """

    def __init__(
        self,
        classes: int | Sequence[str],
        ignore_label: int = -1,
        name: str = "dice",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.classes = list(map(str, range(classes) if isinstance(classes, int) else classes))
        self.ignore_label = ignore_label
        shape = (len(self.classes),)
        self.total = self.add_weight(shape=shape, initializer="zeros", name="total")
        self.weight = self.add_weight(shape=shape, initializer="zeros", name="weight")
        self.cases = self.add_weight(shape=(4, *shape), initializer="zeros", name="cases")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch. sample_weight: (batch,); an image of weight 0 is not counted."""
        require_image_weights(sample_weight)
        batch = pixels(y_true, y_pred, self.ignore_label)
        chosen = ops.one_hot(ops.argmax(batch.logits, axis=-1), len(self.classes), dtype="float32")
        chosen = chosen * ops.expand_dims(batch.labeled, -1)
        both = ops.sum(chosen * batch.truth, axis=1)
        size, predicted = ops.sum(batch.truth, axis=1), ops.sum(chosen, axis=1)
        weight = ops.cast(ops.sum(batch.labeled, axis=1, keepdims=True) > 0, "float32")
        if sample_weight is not None:
            weight = weight * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        has, says = size > 0, predicted > 0
        self.total.assign_add(ops.sum(weight * ops.divide_no_nan(2 * both, size + predicted), 0))
        self.weight.assign_add(ops.sum(weight * ops.cast(has, "float32"), 0))
        no = ops.logical_not
        kinds = (has, has & no(says), no(has) & says, no(has) & no(says))
        counted = ops.cast(weight > 0, "float32")
        counts = [ops.sum(counted * ops.cast(kind, "float32"), 0) for kind in kinds]
        self.cases.assign_add(ops.stack(counts))

    def result(self) -> dict[str, Any]:
        """{"dice": ..., "dice_CLASS": ...}, see the class."""
        total, weight = ops.convert_to_tensor(self.total), ops.convert_to_tensor(self.weight)
        dice = ops.where(weight > 0, ops.divide_no_nan(total, weight), float("nan"))
        present = ops.cast(weight[1:] > 0, "float32")
        number = ops.sum(present)
        mean = ops.divide_no_nan(
            ops.sum(present * ops.divide_no_nan(total[1:], weight[1:])), number
        )
        mean = ops.where(number > 0, mean, float("nan"))
        by_class = {f"{self.name}_{name}": dice[i] for i, name in enumerate(self.classes) if i}
        return {self.name: mean, **by_class}

    def counts(self) -> dict[str, dict[str, int]]:
        """By class: images with the class, those of them without a prediction (missed), and images
        without the class, with (false alarms) and without (both empty) a prediction.
        """
        names = ("images", "missed", "false_alarms", "both_empty")
        cases = ops.convert_to_numpy(self.cases)
        return {
            name: {kind: int(cases[k, i]) for k, kind in enumerate(names)}
            for i, name in enumerate(self.classes)
            if i
        }

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"classes": self.classes, "ignore_label": self.ignore_label}

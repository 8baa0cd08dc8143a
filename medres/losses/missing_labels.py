"""Findings whose label may be missing: -1 (or NaN), as `medres.data` writes it."""

from __future__ import annotations

from typing import Any

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()

import keras  # noqa: E402
from keras import ops  # noqa: E402

from medres.errors import TrainingError  # noqa: E402


@keras.saving.register_keras_serializable(package="medres")
class MaskedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy over the labeled findings of a batch.

    y_true: (batch, findings), 0 to 1, or below 0 (or NaN) where the label is missing. y_pred:
        (batch, findings), logits if `from_logits`, otherwise probabilities.
    label_smoothing: s turns 1 into 1 - s/2 and 0 into s/2.

    The loss of a batch is the mean over its labeled cells, which is the loss of medres.train; 0
    where no cell has a label. A sample weight belongs to an image: (batch,) or (batch, 1). Raises
    TrainingError (code weight_shape) for another shape, which would be applied along the wrong axis
    where a batch has as many images as findings.

    >>> loss = MaskedBinaryCrossentropy(from_logits=True)
    >>> round(float(loss([[1.0, -1.0], [-1.0, -1.0]], [[0.0, 9.0], [9.0, 9.0]])), 3)
    0.693
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str = "sum_over_batch_size",
        name: str = "masked_binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        require_image_weights(sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """(batch,): the loss of each image, scaled so that the mean of the batch is the mean over
        its labeled cells.
        """
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.reshape(ops.cast(y_true, y_pred.dtype), ops.shape(y_pred))
        mask = label_mask(y_true)
        target = ops.where(mask, y_true, 0.0)
        target = target * (1.0 - self.label_smoothing) + self.label_smoothing / 2.0
        cells = ops.binary_crossentropy(target, y_pred, from_logits=self.from_logits)
        cells, weights = ops.where(mask, cells, 0.0), ops.cast(mask, y_pred.dtype)
        images = ops.cast(ops.shape(y_pred)[0], y_pred.dtype)
        return ops.sum(cells, axis=-1) * images / ops.maximum(ops.sum(weights), 1.0)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
        }


def label_mask(y_true: Any) -> Any:
    """bool, as `y_true`: where there is a label (0 or more; -1 and NaN are missing)."""
    return ops.greater_equal(y_true, 0.0)


def require_image_weights(sample_weight: Any) -> None:
    """Raise TrainingError (code weight_shape) unless the weights are (batch,) or (batch, 1)."""
    shape = () if sample_weight is None else tuple(ops.shape(sample_weight))
    if len(shape) > 2 or (len(shape) == 2 and shape[-1] != 1):
        raise TrainingError(
            f"sample weights of shape {shape}: a weight belongs to an image, (batch,); a missing "
            f"label is -1 in the labels",
            code="weight_shape",
        )

"""Losses of segmentation: logits of every pixel or voxel against label maps, in 2D and 3D.

All of them take y_true (batch, [D,] H, W) or (batch, [D,] H, W, 1), whole numbers, and y_pred
(batch, [D,] H, W, classes), logits of any float type; they compute in float32. A label below 0, or
equal to `ignore_label`, leaves its pixel out. A label that no class has makes the loss NaN, which
training loops report, rather than a wrong loss. A batch without any foreground, or without any
label, has a finite loss with finite gradients.

    Milletari et al., V-Net, 3DV 2016 (arXiv:1606.04797): Dice
    Salehi et al., Tversky loss, MLMI 2017 (arXiv:1706.05721)
    Lin et al., Focal loss, ICCV 2017 (arXiv:1708.02002)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()

import keras  # noqa: E402
from keras import ops  # noqa: E402

from medres.errors import TrainingError  # noqa: E402
from medres.losses.missing_labels import require_image_weights  # noqa: E402

Tensor = Any
TINY = 1e-7


class Pixels(NamedTuple):
    """A batch with its pixels in one axis: (batch, pixels, ...), float32.

    truth: one-hot labels (batch, pixels, classes), 0 everywhere where the label is ignored.
    labeled: 1 where there is a label, (batch, pixels). logits: (batch, pixels, classes).
    """

    truth: Tensor
    labeled: Tensor
    logits: Tensor


def pixels(y_true: Tensor, y_pred: Tensor, ignore_label: int) -> Pixels:
    """Label maps and logits in the shapes of the module's docstring as `Pixels`."""
    logits = ops.cast(ops.convert_to_tensor(y_pred), "float32")
    classes = logits.shape[-1]
    logits = ops.reshape(logits, (ops.shape(logits)[0], -1, classes))
    labels = ops.cast(ops.round(ops.cast(y_true, "float32")), "int32")
    labels = ops.reshape(labels, ops.shape(logits)[:2])
    labeled = ops.logical_and(labels >= 0, ops.not_equal(labels, ignore_label))
    truth = ops.cast(ops.expand_dims(labels, -1) == ops.arange(classes, dtype="int32"), "float32")
    mask = ops.cast(labeled, "float32")
    unknown = ops.logical_and(labeled, labels >= classes)
    mask = ops.where(unknown, float("nan"), mask)
    return Pixels(truth * ops.expand_dims(mask, -1), mask, logits)


class _PixelLoss(keras.losses.Loss):
    """The options that the losses share."""

    def __init__(
        self,
        class_weights: Sequence[float] | None,
        ignore_label: int,
        reduction: str,
        name: str,
        dtype: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if class_weights is not None and not all(0 <= w < float("inf") for w in class_weights):
            raise TrainingError(
                f"class_weights {list(class_weights)}: give one finite number of 0 or more per "
                f"class",
                code="out_of_range",
            )
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.ignore_label = ignore_label

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        require_image_weights(sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def _weights(self, classes: int) -> Tensor:
        """(classes,)"""
        weights = self.class_weights or [1.0] * classes
        if len(weights) != classes:
            raise TrainingError(
                f"class_weights has {len(weights)} numbers, and the logits have {classes} classes",
                code="class_weights",
            )
        return ops.convert_to_tensor(weights, "float32")

    def _mean_over_pixels(self, batch: Pixels, cells: Tensor) -> Tensor:
        """(batch,): the sum of each image, scaled so that the mean of the batch is the mean over
        its labeled pixels, weighted by class. cells: (batch, pixels).
        """
        weights = ops.sum(batch.truth * self._weights(batch.truth.shape[-1]), axis=-1)
        images = ops.cast(ops.shape(cells)[0], "float32")
        total = ops.maximum(ops.sum(weights), TINY)
        return ops.sum(weights * cells, axis=-1) * images / total

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "class_weights": self.class_weights,
            "ignore_label": self.ignore_label,
        }


@keras.saving.register_keras_serializable(package="medres")
class Tversky(_PixelLoss):
    """1 minus the mean over classes of TP / (TP + alpha FP + beta FN), with probabilities.

    alpha, beta: the cost of a false positive and of a false negative pixel; 1/2 and 1/2 is the Dice
        coefficient. exponent: of 1 minus the index of each class (focal Tversky loss); 1: none.
    batch: True sums TP, FP and FN over the batch, False takes each image by itself. A class without
        a labeled pixel there has no index, and is left out of the mean; without any class, 0.
    background: whether class 0 is in the mean. smooth: pixels added to numerator and denominator.
    class_weights: of the mean over classes. ignore_label: see the module.

    >>> loss = Tversky(smooth=0.0)
    >>> round(float(loss([[[0, 1]]], [[[[9.0, -9.0], [-9.0, 9.0]]]])), 3)
    0.0
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        exponent: float = 1.0,
        batch: bool = True,
        background: bool = False,
        smooth: float = 0.5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "tversky",
        dtype: Any = None,
    ) -> None:
        super().__init__(class_weights, ignore_label, reduction, name, dtype)
        for what, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
            _check_at_least(what, value, 0)
        _check_at_least("exponent", exponent, TINY)
        self.alpha, self.beta, self.exponent = alpha, beta, exponent
        self.batch, self.background, self.smooth = batch, background, smooth

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(batch,)"""
        return self._overlap(pixels(y_true, y_pred, self.ignore_label))

    def _overlap(self, batch: Pixels) -> Tensor:
        """(batch,): the loss of each image, or that of the batch for each."""
        probability = ops.softmax(batch.logits) * ops.expand_dims(batch.labeled, -1)
        axes = (0, 1) if self.batch else 1
        hits = ops.sum(probability * batch.truth, axis=axes)
        size, predicted = ops.sum(batch.truth, axis=axes), ops.sum(probability, axis=axes)
        errors = self.alpha * (predicted - hits) + self.beta * (size - hits)
        present = ops.cast(ops.logical_not(size == 0), "float32")  # NaN stays NaN
        whole = ops.maximum(hits + errors + self.smooth, TINY)
        miss = 1.0 - (hits + self.smooth) / whole
        if self.exponent != 1:  # the slope of a power is infinite where the overlap is perfect
            miss = ops.maximum(miss, TINY)
        weights = present * self._weights(batch.truth.shape[-1])
        if not self.background:
            weights = weights * ops.cast(ops.arange(batch.truth.shape[-1]) > 0, "float32")
        loss = ops.sum(weights * miss**self.exponent, axis=-1)
        loss = loss / ops.maximum(ops.sum(weights, axis=-1), TINY)
        return ops.broadcast_to(loss, ops.shape(batch.labeled)[:1])

    def get_config(self) -> dict[str, Any]:
        names = ("alpha", "beta", "exponent", "batch", "background", "smooth")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="medres")
class DiceCrossentropy(Tversky):
    """The Dice loss plus the cross-entropy, as in nnU-Net: the default of segmentation.

    dice, crossentropy: the weights of the two terms. label_smoothing: s gives the true class 1 - s
        + s / classes and the others s / classes, in the cross-entropy alone.
    batch, background, smooth, class_weights, ignore_label: as for `Tversky`; the cross-entropy is
        the mean over labeled pixels, weighted by the class weight of their label.

    >>> loss = DiceCrossentropy()
    >>> empty = loss([[[0, 0]]], [[[[0.0, 0.0], [0.0, 0.0]]]])  # no foreground: cross-entropy alone
    >>> round(float(empty), 3)
    0.693
    """

    def __init__(
        self,
        dice: float = 1.0,
        crossentropy: float = 1.0,
        label_smoothing: float = 0.0,
        batch: bool = True,
        background: bool = False,
        smooth: float = 0.5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "dice_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            alpha=0.5,
            beta=0.5,
            batch=batch,
            background=background,
            smooth=smooth,
            class_weights=class_weights,
            ignore_label=ignore_label,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
        for what, value in (("dice", dice), ("crossentropy", crossentropy)):
            _check_at_least(what, value, 0)
        if not 0 <= label_smoothing < 1:
            raise TrainingError(
                f"label_smoothing {label_smoothing!r}: give a number in [0, 1)",
                code="out_of_range",
            )
        self.dice, self.crossentropy = dice, crossentropy
        self.label_smoothing = label_smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(batch,)"""
        batch = pixels(y_true, y_pred, self.ignore_label)
        log_p = ops.log_softmax(batch.logits)
        s = self.label_smoothing
        cells = -(1 - s) * ops.sum(batch.truth * log_p, axis=-1)
        if s:
            cells = cells - s * ops.mean(log_p, axis=-1)
        return self.dice * self._overlap(batch) + self.crossentropy * self._mean_over_pixels(
            batch, cells
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for fixed in ("alpha", "beta", "exponent"):
            del config[fixed]
        names = ("dice", "crossentropy", "label_smoothing")
        return config | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="medres")
class FocalCrossentropy(_PixelLoss):
    """Cross-entropy times (1 - p) ** gamma, where p is the probability of the true class; the mean
    over labeled pixels. class_weights: the alpha of the paper, one number per class.

    >>> loss = FocalCrossentropy(gamma=2.0)
    >>> round(float(loss([[[1]]], [[[[0.0, 0.0]]]])), 4)  # log 2 / 4
    0.1733
    """

    def __init__(
        self,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        ignore_label: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str = "focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(class_weights, ignore_label, reduction, name, dtype)
        _check_at_least("gamma", gamma, 0)
        self.gamma = gamma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(batch,)"""
        batch = pixels(y_true, y_pred, self.ignore_label)
        log_p = ops.sum(batch.truth * ops.log_softmax(batch.logits), axis=-1)
        miss = ops.maximum(1.0 - ops.exp(log_p), TINY)  # the slope of a power is infinite at 0
        return self._mean_over_pixels(batch, -(miss**self.gamma) * log_p)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"gamma": self.gamma}


def _check_at_least(what: str, value: float, low: float) -> None:
    if not low <= value < float("inf"):
        raise TrainingError(
            f"{what} {value!r}: give a number of {low} or more", code="out_of_range"
        )

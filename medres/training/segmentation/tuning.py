"""The tuning (validation) split of a segmenter: the logits of every sample, one batch at a time,
its loss, and Dice by patient with an interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data_pipelines.cache.tf_dataset import eval_batches
from medres.errors import TrainingError
from medres.evaluate.statistics.patient_means import mean_over_patients
from medres.inference.sliding_windows import sliding_window
from medres.training.data import CompiledModel, TrainingData
from medres.training.tuning_metrics import LEVEL

BATCH = 4
OVERLAP = 0.5  # of the windows of a network that sees patches


class MaskBatch(NamedTuple):
    """Some samples of a split: rows of the cache (n,), float32 images in model units, int label
    maps, and float32 logits with a last axis of classes.
    """

    rows: np.ndarray
    image: np.ndarray
    label: np.ndarray
    logits: np.ndarray


def mask_batches(
    model: CompiledModel, data: TrainingData, split: str, flips: Sequence[Sequence[int]] = ()
) -> Iterator[MaskBatch]:
    """The samples of a split in cache order, with the logits (or probabilities) of a model.
    flips: see `medres.inference.sliding_windows.sliding_window`.
    """
    for inputs, label, _ in eval_batches(data.cache, data.targets, BATCH, split):
        image = inputs["image"].numpy()
        whole = not flips and tuple(model.model.inputs[0].shape[1:]) == image.shape[1:]
        logits = (
            model.logits(inputs["image"])
            if whole
            else np.stack([windowed_output(model, one, flips) for one in image])
        )
        yield MaskBatch(inputs["key"].numpy()[:, 1], image, label.numpy(), logits)


def windowed_output(
    model: CompiledModel, image: np.ndarray, flips: Sequence[Sequence[int]] = ()
) -> np.ndarray:
    """The mean output of overlapping windows of a model, and of their flips, for one image
    (*sizes, channels), float32 (*sizes, classes).
    """
    side = tuple(model.model.inputs[0].shape[1:-1])
    classes = int(model.model.output.shape[-1])
    packed = np.dtype([("all", np.float32, (classes,))])

    def pack(scores: np.ndarray) -> np.ndarray:
        last = np.ascontiguousarray(np.moveaxis(scores, 0, -1), np.float32)
        return last.view(packed)[..., 0]

    windows = sliding_window(
        lambda x: model.logits(tf.constant(x)), image, side, OVERLAP, flips=flips, reduce=pack
    )
    return windows["all"]


class DiceTable:
    """Dice of each class in the samples of a split: NaN where the reference does not have it, 0
    where the prediction alone lacks it.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.rows: list[list[float]] = []

    def add(self, label: np.ndarray, predicted: np.ndarray) -> None:
        """One sample. Labels below 0 are left out."""
        known = label >= 0
        self.rows.append(
            [
                dice_of((label == c) & known, (predicted == c) & known)
                for c in range(1, self.classes)
            ]
        )

    @property
    def values(self) -> np.ndarray:
        """float64 (samples, classes without the background)."""
        return np.array(self.rows, np.float64).reshape(-1, self.classes - 1)


def dice_of(truth: np.ndarray, answer: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two bool arrays; NaN where the truth is empty.

    >>> dice_of(np.array([True, True]), np.array([True, False]))
    0.6666666666666666
    """
    size = int(np.count_nonzero(truth))
    if not size:
        return float("nan")
    both = int(np.count_nonzero(truth & answer))
    return 2.0 * both / (size + int(np.count_nonzero(answer)))


def tuning_dice_row(
    model: CompiledModel, data: TrainingData, loss: keras.losses.Loss, epoch: int
) -> dict[str, float | None]:
    """tune_loss (the mean over the samples), tune_dice (the mean over classes and cases of each
    patient, then over patients) with the limits of its 95 % interval, and tune_dice_CLASS.

    loss: of single samples. epoch: from 0, for the message. Raises TrainingError (not_finite).
    """
    table, losses = DiceTable(len(data.targets.names)), []
    for batch in mask_batches(model, data, "tune"):
        if not np.isfinite(batch.logits).all():
            raise TrainingError(
                f"epoch {epoch + 1}: the logits of the tuning split are not finite. Earlier "
                f"checkpoints are valid. Lower the learning rate and train into a new folder",
                code="not_finite",
            )
        for label, logits in zip(batch.label, batch.logits, strict=True):
            one = loss.call(tf.constant(label[np.newaxis]), tf.constant(logits[np.newaxis]))
            losses.append(float(one[0]))
            table.add(label, logits.argmax(axis=-1))
    return {"tune_loss": float(np.mean(losses)), **dice_row(table, data)}


def dice_row(table: DiceTable, data: TrainingData) -> dict[str, float | None]:
    """The columns of Dice in history.csv; None where no case has a class."""
    patient = data.table("tune")["patient"].to_numpy()
    present = ~np.isnan(table.values)
    sums = np.where(present, table.values, 0.0).sum(axis=1)
    counts = present.sum(axis=1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    overall = mean_over_patients(means, patient, LEVEL)
    row = {
        "tune_dice": overall.estimate,
        "tune_dice_low": overall.ci_low,
        "tune_dice_high": overall.ci_high,
    }
    for i, name in enumerate(data.targets.names[1:]):
        by_class = mean_over_patients(table.values[:, i], patient, LEVEL)
        row[f"tune_dice_{name}"] = by_class.estimate
    return row

"""The tuning (validation) split of a detector: its loss, and average precision and FROC by patient
with intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from data_pipelines.annotations.boxes.padding import IGNORED
from data_pipelines.cache.tf_dataset import eval_batches
from medres.detection import DecodingSettings, Detections, decode
from medres.errors import TrainingError
from medres.evaluate.detection.average_precision import PrecisionMatches, match_precision
from medres.evaluate.detection.boxes import Boxes
from medres.evaluate.detection.froc import RATES, Marks, match_marks
from medres.evaluate.scores.sample import Float64Array
from medres.evaluate.statistics.bca import bca_estimate, draw
from medres.losses import DetectionLoss
from medres.training.data import CompiledModel, TrainingData
from medres.training.tuning_metrics import LEVEL

BATCH = 8
REPLICATES = 400  # of the bootstrap after each epoch; the report of a split has more
AP50 = np.array([0.5])


@dataclass
class SplitBoxes:
    """Predicted and reference boxes of a split, in pixels of the prepared images.

    patient: codes (n,) of its images. rows: image, class, x_min, y_min, x_max, y_max and score of
    each box.
    """

    names: Sequence[str]
    patient: np.ndarray
    predicted: list[np.ndarray] = field(default_factory=list)
    reference: list[np.ndarray] = field(default_factory=list)

    def add(self, image: int, found: Detections, lines: np.ndarray) -> None:
        """The boxes of one image. lines: of the cache, see `padded_boxes`."""
        number = np.full((len(found), 1), image)
        self.predicted.append(
            np.column_stack([number, found.labels, found.corners, found.scores]).astype(float)
        )
        lines = lines[(lines[:, 4] >= 0) | (lines[:, 4] == IGNORED)]
        numbers, zeros = np.full(len(lines), image), np.zeros(len(lines))
        self.reference.append(
            np.column_stack([numbers, lines[:, 4], lines[:, :4], zeros]).astype(float)
        )

    def of_class(self, label: int) -> tuple[Boxes, Boxes]:
        """Predicted and reference boxes of a class. Regions to ignore count for each class."""
        predicted, reference = np.concatenate(self.predicted), np.concatenate(self.reference)
        kept = (reference[:, 1] == label) | (reference[:, 1] == IGNORED)
        return _boxes(predicted[predicted[:, 1] == label]), _boxes(reference[kept])

    def matches(self) -> list[MatchedBoxes]:
        """Of each class, matched once."""
        matched = []
        for label in range(len(self.names)):
            predicted, reference = self.of_class(label)
            n = len(self.patient)
            precision = match_precision(predicted, reference, n, thresholds=AP50)
            matched.append(MatchedBoxes(precision, match_marks(predicted, reference, n)))
        return matched


@dataclass(frozen=True)
class MatchedBoxes:
    """The predictions of one class against its references: at an overlap of .5, and by center."""

    precision: PrecisionMatches
    marks: Marks

    def figures(self, weight: Float64Array) -> list[float]:
        """AP50 and mean FROC sensitivity; NaN without a reference. weight: of each image."""
        sensitivities = self.marks.sensitivities(np.array(RATES), weight)
        return [float(self.precision.average_precisions(weight)[0]), float(sensitivities.mean())]


def split_boxes(
    model: CompiledModel,
    data: TrainingData,
    split: str,
    settings: DecodingSettings,
    loss: DetectionLoss | None = None,
) -> tuple[SplitBoxes, list[float]]:
    """The boxes of a split, and its loss by batch of images (each as often as it has images)."""
    _, patient = np.unique(data.table(split)["patient"], return_inverse=True)
    boxes, losses, number = SplitBoxes(data.targets.names, patient), [], 0
    for raw, label in raw_batches(model, data, split):
        if loss is not None:
            losses += np.asarray(loss.call(label, tf.constant(raw))).tolist()
        for found, lines in zip(decode(raw, settings), label.numpy(), strict=True):
            boxes.add(number, found, lines)
            number += 1
    return boxes, losses


def raw_batches(
    model: CompiledModel, data: TrainingData, split: str
) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
    """The raw maps and the padded boxes of each batch of a split. Raises TrainingError
    (not_finite).
    """
    for inputs, label, _ in eval_batches(data.cache, data.targets, BATCH, split):
        raw = model.logits(inputs["image"])
        if not np.isfinite(raw).all():
            raise TrainingError(
                f"the raw maps of the {split} split are not finite. Earlier checkpoints are "
                f"valid. Lower the learning rate and train into a new folder",
                code="not_finite",
            )
        yield raw, label


def tuning_box_row(
    model: CompiledModel, data: TrainingData, settings: DecodingSettings, loss: DetectionLoss
) -> dict[str, float | None]:
    """tune_loss; tune_ap50 and tune_froc (sensitivity averaged over 1/8 to 8 false positives per
    image), means over the classes, with the limits of their 95 % intervals by patient; and
    tune_ap50_CLASS. Raises TrainingError (not_finite).
    """
    boxes, losses = split_boxes(model, data, "tune", settings, loss)
    return {"tune_loss": float(np.mean(losses)), **figures_row(boxes)}


def figures_row(boxes: SplitBoxes) -> dict[str, float | None]:
    """The columns of AP50 and FROC in history.csv; None where no image has a box of a class."""
    matched = boxes.matches()

    def statistics(weight: Float64Array) -> Float64Array:
        each = weight[boxes.patient]
        by_class = np.array([one.figures(each) for one in matched])
        known = ~np.isnan(by_class)
        sums = np.where(known, by_class, 0.0).sum(axis=0)
        count = known.sum(axis=0)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

    draws = draw(statistics, int(boxes.patient.max()) + 1, replicates=REPLICATES)
    row: dict[str, float | None] = {}
    for index, name in enumerate(("ap50", "froc")):
        estimate = bca_estimate(draws, index, LEVEL)
        row[f"tune_{name}"] = estimate.estimate
        row[f"tune_{name}_low"], row[f"tune_{name}_high"] = estimate.ci_low, estimate.ci_high
    ones = np.ones(len(boxes.patient))
    for name, one in zip(boxes.names, matched, strict=True):
        value = one.figures(ones)[0]
        row[f"tune_ap50_{name}"] = None if np.isnan(value) else value
    return row


def _boxes(rows: np.ndarray) -> Boxes:
    corners = rows[:, 2:6]
    area = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    ignore = rows[:, 1] == IGNORED
    image, category = (rows[:, i].astype(np.int64) for i in (0, 1))
    return Boxes(image, category, corners, rows[:, 6], area, ignore)

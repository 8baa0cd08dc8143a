"""The loss of a detector: which position of its maps answers for which box (FCOS), and focal loss,
generalized intersection over union and centerness. The code takes images and volumes alike.

Boxes come padded: (batch, boxes, 2 * rank + 1), for images x_min, y_min, x_max, y_max (edges in
pixels of the detector's input) and the class; class -1 is padding, class -2 a region to ignore. All
is computed in float32. A batch without any box has a finite loss with finite gradients.

    Tian et al., FCOS, ICCV 2019 (arXiv:1904.01355): assignment, centerness
    Lin et al., Focal loss, ICCV 2017 (arXiv:1708.02002)
    Rezatofighi et al., Generalized intersection over union, CVPR 2019 (arXiv:1902.09630)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from data_pipelines.runtime.backend import require_tensorflow

require_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402

from medres.detection.settings import DecodingSettings, positions  # noqa: E402
from medres.errors import TrainingError  # noqa: E402
from medres.losses.missing_labels import require_image_weights  # noqa: E402

Tensor = Any
PADDING, IGNORED = -1, -2  # classes of rows that are no box
MOST_STRIDES = 1e6  # of a distance: its square and cube stay finite
NEAREST = 0.25  # strides: a shorter distance to a side counts as this much in the centerness


class Grid(NamedTuple):
    """The positions of all levels, in the order of the raw maps.

    centers (positions, rank): in input pixels, x first. strides (positions,). smallest, largest
    (positions,): half of the longest side of the boxes of their level, in pixels: above the first,
    up to the second.
    """

    centers: np.ndarray
    strides: np.ndarray
    smallest: np.ndarray
    largest: np.ndarray


def grid(input_size: Sequence[int], strides: Sequence[int], longest_side: float) -> Grid:
    """longest_side: of the boxes of a level, in its strides; the coarsest level takes all longer
    ones, the finest all shorter ones.
    """
    levels = positions(input_size, strides)
    limits = [0.0, *(0.5 * longest_side * stride for stride in strides[:-1]), np.inf]
    counts = [len(level) for level in levels]

    def each(values: Sequence[float]) -> np.ndarray:
        return np.repeat(np.array(values, np.float32), counts)

    return Grid(np.concatenate(levels), each(strides), each(limits[:-1]), each(limits[1:]))


class Targets(NamedTuple):
    """What each position answers for: (batch, positions, ...).

    label: the class, PADDING for background, IGNORED where nothing is judged; int32. corners:
    (..., 2 * rank) of its box, or a box of two strides where it has none. centerness: 0 to 1; 0
    where it has no box.
    """

    label: Tensor
    corners: Tensor
    centerness: Tensor


def assign(boxes: Tensor, where: Grid, radius: float) -> Targets:
    """Each box gets the positions of the level of its size that lie within it and within `radius`
    strides of its center along each axis, and always the position nearest to its center. Of two
    boxes at one position the smaller wins, then the earlier. A box without area counts as padding.

    boxes: (batch, boxes, 2 * rank + 1), see the module.
    """
    rank = where.centers.shape[1]
    boxes = ops.cast(boxes, "float32")
    # a row of padding, so that an image may have no row at all
    boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)), constant_values=PADDING)
    label = ops.cast(ops.round(boxes[..., -1]), "int32")
    low, high = boxes[..., :rank], boxes[..., rank : 2 * rank]
    sides = ops.maximum(high - low, 0.0)
    volume = ops.prod(sides, axis=-1)
    label = ops.where(volume > 0, label, PADDING)
    inside, sampled = _sampled(low, high, where, radius)
    half = ops.expand_dims(0.5 * ops.max(sides, axis=-1), 1)
    of_level = ops.logical_and(half > where.smallest[:, None], half <= where.largest[:, None])
    is_box = ops.expand_dims(label >= 0, 1)
    matches = ops.logical_and(ops.logical_and(sampled, of_level), is_box)
    cost = ops.where(matches, ops.expand_dims(volume, 1), float("inf"))
    chosen = ops.argmin(cost, axis=-1)  # (batch, positions)
    matched = ops.any(matches, axis=-1)
    ignored = ops.any(ops.logical_and(inside, ops.expand_dims(label == IGNORED, 1)), axis=-1)
    background = ops.where(ignored, IGNORED, PADDING)
    corners = ops.take_along_axis(boxes[..., : 2 * rank], ops.expand_dims(chosen, -1), axis=1)
    reach = where.strides[:, None]
    empty = np.concatenate([where.centers - reach, where.centers + reach], axis=1)
    corners = ops.where(ops.expand_dims(matched, -1), corners, empty)
    return Targets(
        ops.where(matched, ops.take_along_axis(label, chosen, axis=1), background),
        corners,
        ops.where(matched, _centerness(corners, where), 0.0),
    )


def _sampled(low: Tensor, high: Tensor, where: Grid, radius: float) -> tuple[Tensor, Tensor]:
    """(batch, positions, boxes): whether a position lies within a box, and whether it may answer
    for it.
    """
    inside = nearest = near = True
    for axis in range(where.centers.shape[1]):
        at, stride = where.centers[:, axis, None], where.strides[:, None]
        first, last = (ops.expand_dims(side[..., axis], 1) for side in (low, high))
        offset = at - 0.5 * (first + last)
        inside = ops.logical_and(inside, ops.logical_and(at > first, at < last))
        near = ops.logical_and(near, ops.abs(offset) < radius * stride)
        here = ops.logical_and(offset >= -0.5 * stride, offset < 0.5 * stride)
        nearest = ops.logical_and(nearest, here)
    return inside, ops.logical_or(ops.logical_and(inside, near), nearest)


def _centerness(corners: Tensor, where: Grid) -> Tensor:
    """The root of the product over the axes of shorter / longer distance to the sides."""
    rank = where.centers.shape[1]
    shortest = NEAREST * where.strides[:, None]
    before = ops.maximum(where.centers - corners[..., :rank], shortest)
    after = ops.maximum(corners[..., rank:] - where.centers, shortest)
    ratio = ops.minimum(before, after) / ops.maximum(before, after)
    return ops.prod(ratio, axis=-1) ** (1.0 / rank)


@keras.saving.register_keras_serializable(package="medres")
class DetectionLoss(keras.losses.Loss):
    """Focal loss + GIoU + cross-entropy of the centerness, for the raw maps of `medres.detector`.

    input_size, strides: of the detector, see `medres.models.decoding_settings`. y_true: padded
    boxes, see the module. The three sums of a batch are divided by its number of positions that
    answer for a box, or 1 (the second by their centerness, which weighs it), and multiplied by
    `focal`, `giou` and `centerness`.

    alpha, gamma: of the focal loss; alpha weighs the class that is there, 1 - alpha the others.
    radius: of the positions that answer for a box, in strides. longest_side: of the boxes of a
    level in its strides; the last level takes all longer ones. A class that the maps do not have
    makes the loss NaN, which training loops report.

    >>> loss = DetectionLoss((8, 8), (8,))
    >>> nothing = [[[0.0, 0.0, 0.0, 0.0, -1.0]]]
    >>> round(float(loss(nothing, [[[4.0, 4.0, 4.0, 4.0, 0.0, 0.0]]])), 3)  # .75 * log 2 / 4
    0.13
    """

    def __init__(
        self,
        input_size: Sequence[int],
        strides: Sequence[int],
        alpha: float = 0.25,
        gamma: float = 2.0,
        focal: float = 1.0,
        giou: float = 1.0,
        centerness: float = 1.0,
        radius: float = 1.5,
        longest_side: float = 8.0,
        reduction: str = "sum_over_batch_size",
        name: str = "detection",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        layout = DecodingSettings(tuple(input_size), tuple(strides))
        self.input_size, self.strides = layout.input_size, layout.strides
        self.numbers = {
            "alpha": alpha,
            "gamma": gamma,
            "focal": focal,
            "giou": giou,
            "centerness": centerness,
            "radius": radius,
            "longest_side": longest_side,
        }
        for what, value in self.numbers.items():
            if not 0 <= value < float("inf") or (what == "alpha" and value > 1):
                raise TrainingError(f"{what} {value!r}: it is out of range", code="out_of_range")
        self._grid = grid(self.input_size, self.strides, longest_side)

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        require_image_weights(sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(batch,): their mean is the loss of the batch."""
        terms = self.terms(y_true, y_pred)
        return sum(self.numbers[name] * term for name, term in terms.items())

    def terms(self, y_true: Tensor, y_pred: Tensor) -> dict[str, Tensor]:
        """The three terms by name, each (batch,) and without its weight."""
        raw = ops.cast(y_pred, "float32")
        n_sides = 2 * len(self.input_size)
        targets = assign(y_true, self._grid, self.numbers["radius"])
        positive = ops.cast(targets.label >= 0, "float32")
        images = ops.cast(ops.shape(raw)[0], "float32")
        n_positive = ops.maximum(ops.sum(positive), 1.0)
        weight = ops.maximum(ops.sum(targets.centerness), 1.0)
        by_class = self._focal(targets.label, raw[..., n_sides + 1 :])
        miss = 1.0 - self._giou(raw[..., :n_sides], targets.corners)
        center = _crossentropy(targets.centerness, raw[..., n_sides])
        return {
            "focal": ops.sum(by_class, axis=(1, 2)) * images / n_positive,
            "giou": ops.sum(targets.centerness * miss, axis=1) * images / weight,
            "centerness": ops.sum(positive * center, axis=1) * images / n_positive,
        }

    def _focal(self, label: Tensor, logits: Tensor) -> Tensor:
        """(batch, positions, classes)"""
        alpha, gamma, classes = self.numbers["alpha"], self.numbers["gamma"], logits.shape[-1]
        label = ops.expand_dims(label, -1)
        truth = ops.cast(label == ops.arange(classes, dtype="int32"), "float32")
        judged = ops.where(label >= classes, float("nan"), ops.cast(label != IGNORED, "float32"))
        # the probability of the wrong answer; the slope of a power is infinite at 0
        wrong = ops.maximum(ops.sigmoid(ops.where(truth > 0, -logits, logits)), 1e-12)
        balance = ops.where(truth > 0, alpha, 1.0 - alpha)
        return judged * balance * wrong**gamma * _crossentropy(truth, logits)

    def _giou(self, distances: Tensor, corners: Tensor) -> Tensor:
        """(batch, positions): -1 to 1. Lengths are in strides."""
        rank = len(self.input_size)
        stride = self._grid.strides[:, None]
        around = ops.clip(distances / stride, 0.0, MOST_STRIDES)
        low, high = -around[..., :rank], around[..., rank:]
        true_low = (corners[..., :rank] - self._grid.centers) / stride
        true_high = (corners[..., rank:] - self._grid.centers) / stride
        shared = ops.minimum(high, true_high) - ops.maximum(low, true_low)
        shared = ops.prod(ops.maximum(shared, 0.0), axis=-1)
        hull = ops.prod(ops.maximum(high, true_high) - ops.minimum(low, true_low), axis=-1)
        union = ops.prod(high - low, axis=-1) + ops.prod(true_high - true_low, axis=-1) - shared
        return shared / union - (hull - union) / hull

    def get_config(self) -> dict[str, Any]:
        layout = {"input_size": list(self.input_size), "strides": list(self.strides)}
        return super().get_config() | layout | self.numbers


def _crossentropy(truth: Tensor, logits: Tensor) -> Tensor:
    return ops.softplus(logits) - truth * logits

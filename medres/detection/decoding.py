"""From the raw maps of a detector to boxes: threshold, the best candidates, non-maximum suppression
within each class, and clipping to the image. One function for training metrics, the predictor and
exported models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medres.detection.settings import DecodingSettings, positions
from medres.errors import ModelError

Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]
BLOCK = 256  # boxes that are compared at once


@dataclass(frozen=True)
class Detections:
    """The boxes of one image, from the highest score down.

    corners (n, 2 * rank): x_min, y_min, x_max, y_max (in volumes x, y, z of the lower and then of
    the upper corner); edges in pixels of the detector's input, within the image. scores (n,): 0 to
    1. labels (n,): positions in the list of classes. Iterating gives (corners, score, label).
    """

    corners: Float32Array
    scores: Float32Array
    labels: Int64Array

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[Float32Array, float, int]]:
        for corners, score, label in zip(self.corners, self.scores, self.labels, strict=True):
            yield corners, float(score), int(label)


@overload
def decode(raw: NDArray[np.floating], settings: DecodingSettings) -> Detections: ...


@overload
def decode(raw: ArrayLike, settings: DecodingSettings) -> Detections | list[Detections]: ...


def decode(raw: ArrayLike, settings: DecodingSettings) -> Detections | list[Detections]:
    """The boxes of one image, or a list of them for a batch.

    raw: (positions, 2 * rank + 1 + classes) or with the batch first, as a detector gives it:
        distances in pixels from the position to the sides of the box (x_min, y_min, x_max, y_max),
        the logit of the centerness, and one logit for each class.

    The score is the square root of the probabilities of class and centerness, multiplied. A box
    without any pixel within the image is left out. Equal scores: the earlier position first.
    Raises ModelError: raw_shape where raw does not fit the settings, non_finite for NaN or infinite
    values.

    >>> settings = DecodingSettings((4, 4), (4,))
    >>> decode(np.array([[1.0, 2.0, 1.0, 2.0, 9.0, 9.0, -9.0]]), settings).corners.tolist()
    [[1.0, 0.0, 3.0, 4.0]]
    """
    maps = np.asarray(raw, np.float32)
    if maps.ndim == 3:
        return [_decode_image(image, settings) for image in maps]
    return _decode_image(maps, settings)


def _decode_image(raw: Float32Array, settings: DecodingSettings) -> Detections:
    centers = _all_positions(settings.input_size, settings.strides)
    n_sides = 2 * settings.rank
    if raw.ndim != 2 or len(raw) != len(centers) or raw.shape[1] < n_sides + 2:
        raise ModelError(
            f"raw maps of shape {raw.shape}: input_size {settings.input_size} and strides "
            f"{settings.strides} have {len(centers)} positions with {n_sides} distances, the "
            f"centerness and one or more classes each",
            code="raw_shape",
        )
    if not np.isfinite(raw).all():
        raise ModelError("the raw maps hold values that are not finite", code="non_finite")
    position, label, score = _candidates(raw[:, n_sides:], settings)
    low = centers[position] - raw[position, : settings.rank]
    high = centers[position] + raw[position, settings.rank : n_sides]
    size = np.array(settings.input_size[::-1], np.float32)
    corners = np.concatenate([np.clip(low, 0, size), np.clip(high, 0, size)], axis=1)
    solid = (corners[:, settings.rank :] > corners[:, : settings.rank]).all(axis=1)
    corners, score, label = corners[solid], score[solid], label[solid]
    keep = suppress(corners, label, settings.nms_iou, settings.most)
    return Detections(corners[keep], score[keep], label[keep])


@lru_cache(maxsize=16)
def _all_positions(input_size: tuple[int, ...], strides: tuple[int, ...]) -> Float32Array:
    return np.concatenate(positions(input_size, strides))


def _candidates(
    logits: Float32Array, settings: DecodingSettings
) -> tuple[Int64Array, Int64Array, Float32Array]:
    """Position, class and score of the best candidates, from the highest score down.

    logits: (positions, 1 + classes), the centerness first.
    """
    threshold = np.float32(settings.score_threshold)
    # the centerness is at most 1: a class below the squared threshold has no chance
    position, label = np.nonzero(_probability(logits[:, 1:]) >= threshold**2)
    score = np.sqrt(_probability(logits[position, 1 + label]) * _probability(logits[position, 0]))
    enough = score >= threshold
    position, label, score = position[enough], label[enough], score[enough]
    best = np.argsort(-score, kind="stable")[: settings.candidates]
    return position[best], label[best], score[best]


def _probability(logits: Float32Array) -> Float32Array:
    """The logistic function, without overflow."""
    return (0.5 * (1.0 + np.tanh(0.5 * logits))).astype(np.float32)


def suppress(corners: Float32Array, labels: Int64Array, iou: float, most: int) -> Int64Array:
    """The positions of the boxes that stay, `most` at most: non-maximum suppression.

    corners (n, 2 * rank): from the highest score down. A box is removed where its intersection over
    union with an earlier box of its class that stays is above `iou`.

    The boxes are taken in blocks: first those that an earlier block removes, then within the block.
    So all pairs are compared at once only where they are few, and no box after the last that stays.
    """
    sides = np.ascontiguousarray(corners.T, np.float32)  # one row for each side
    keep = np.empty(0, np.int64)
    for start in range(0, len(corners), BLOCK):
        if len(keep) >= most:
            break
        block = np.arange(start, min(start + BLOCK, len(corners)))
        block = block[~_rivals(sides, labels, keep, block, iou).any(axis=0)]
        removes = _rivals(sides, labels, block, block, iou)
        stays = np.ones(block.size, bool)
        for i in range(block.size):
            if stays[i]:
                stays[i + 1 :] &= ~removes[i, i + 1 :]
        keep = np.concatenate([keep, block[stays]])
    return keep[:most]


def _rivals(
    sides: Float32Array, labels: Int64Array, first: Int64Array, second: Int64Array, iou: float
) -> NDArray[np.bool_]:
    """(first, second): whether two boxes have one class, and an overlap above `iou`."""
    rank = len(sides) // 2
    a, b = sides[:, first, None], sides[:, None, second]
    shared = np.ones((first.size, second.size), np.float32)
    for axis in range(rank):
        high, low = (np.minimum(a[rank + axis], b[rank + axis]), np.maximum(a[axis], b[axis]))
        shared *= np.maximum(high - low, 0)
    volumes = [np.prod(box[rank:] - box[:rank], axis=0) for box in (a, b)]
    is_above = shared > iou * (volumes[0] + volumes[1] - shared)
    return np.asarray(is_above & (labels[first, None] == labels[None, second]))

"""Average precision of boxes, equal to pycocotools (COCOeval): one greedy matching per image, class
and range of areas, precision at 101 values of recall.

Source: Lin and others 2014, and the reference implementation at github.com/cocodataset/cocoapi. The
matching is done once; draws of the bootstrap only weigh its images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medres.evaluate.detection.boxes import BoolArray, Boxes, overlaps, per_image
from medres.evaluate.scores.sample import Float64Array, Int64Array

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_PER_IMAGE = 100  # predictions of one class that count, from the highest score down
SIZES = {  # square pixels, both ends belong to the range
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


@dataclass(frozen=True)
class PrecisionMatches:
    """The predictions of one class that were matched, from the highest score down.

    image (n,). hit, miss (thresholds, n): whether a prediction is true or false at each threshold
    of overlap; neither where it is ignored. references (images,): of the class and size, without
    those to ignore.
    """

    image: Int64Array
    hit: BoolArray
    miss: BoolArray
    references: Int64Array

    def average_precisions(self, weight: Float64Array | None = None) -> Float64Array:
        """(thresholds,) average precision; NaN if there is no reference. weight (images,): how
        often each image counts, 1 if None.
        """
        total = float(self.references.sum() if weight is None else weight @ self.references)
        if total == 0.0:
            return np.full(len(self.hit), np.nan)
        each = np.append(np.ones(self.image.size) if weight is None else weight[self.image], 0.0)
        hits = np.cumsum(each[self._true], axis=1)
        called = np.cumsum(each[:-1] * (self.hit | self.miss), axis=1)
        called = np.take_along_axis(called, np.minimum(self._true, self.image.size - 1), axis=1)
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0.0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, hits / total, side="right")
        return (envelope * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / RECALLS.size

    @cached_property
    def _true(self) -> Int64Array:
        """(thresholds, most) positions of the true predictions; one beyond the last where a row has
        fewer. Only they change the recall.
        """
        most = int(self.hit.sum(axis=1).max(initial=0))
        out = np.full((len(self.hit), most), self.image.size)
        for row, hit in zip(out, self.hit, strict=True):
            found = np.flatnonzero(hit)
            row[: found.size] = found
        return out

    def curve(self, threshold: int = 0) -> tuple[Float64Array, Float64Array]:
        """Recall and precision after each true prediction, at one threshold of overlap."""
        hit = self.hit[threshold]
        hits, called = np.cumsum(hit)[hit], np.cumsum(hit | self.miss[threshold])[hit]
        return hits / max(int(self.references.sum()), 1), hits / called


def match_precision(
    predicted: Boxes,
    reference: Boxes,
    n_images: int,
    *,
    size: str = "all",
    thresholds: Float64Array = IOU_THRESHOLDS,
) -> PrecisionMatches:
    """Match the predictions of one class with its references, image by image."""
    low, high = SIZES[size]
    references = np.zeros(n_images, dtype=np.int64)
    parts: list[tuple[Int64Array, BoolArray, BoolArray]] = []
    for image, mine, true in per_image(predicted, reference, n_images):
        mine = mine[:MOST_PER_IMAGE]
        area = reference.area[true]
        ignored = reference.ignore[true] | (area < low) | (area > high)
        references[image] = np.count_nonzero(~ignored)
        found = overlaps(predicted.corners[mine], reference.corners[true], reference.ignore[true])
        hit, neither = _match(found, ignored, reference.ignore[true], thresholds)
        own = predicted.area[mine]
        neither |= ~hit & ~neither & ((own < low) | (own > high))[None, :]
        parts.append((mine, hit, ~hit & ~neither))
    if not parts:
        none = np.zeros((len(thresholds), 0), dtype=bool)
        return PrecisionMatches(np.zeros(0, dtype=np.int64), none, none, references)
    position = np.concatenate([part[0] for part in parts])
    order = np.argsort(-predicted.score[position], kind="stable")
    return PrecisionMatches(
        predicted.image[position[order]],
        np.concatenate([part[1] for part in parts], axis=1)[:, order],
        np.concatenate([part[2] for part in parts], axis=1)[:, order],
        references,
    )


def _match(
    overlap: Float64Array, ignored: BoolArray, crowd: BoolArray, thresholds: Float64Array
) -> tuple[BoolArray, BoolArray]:
    """(thresholds, p) hits, and predictions that count as neither. Each prediction, from the
    highest score down, takes the free reference with the greatest overlap, the last one of a tie;
    one to ignore only if no other is left, and a crowd any number of times.
    """
    n_predicted, n_reference = overlap.shape
    hit = np.zeros((thresholds.size, n_predicted), dtype=bool)
    neither = np.zeros_like(hit)
    if not n_reference:
        return hit, neither
    taken = np.zeros((thresholds.size, n_reference), dtype=bool)
    least = np.minimum(thresholds, 1.0 - 1e-10)[:, None]
    for p in range(n_predicted):
        free = (~taken | crowd) & (overlap[p] >= least)
        counted = free & ~ignored
        usable = np.where(counted.any(axis=1, keepdims=True), counted, free)
        best = np.where(usable, overlap[p], -1.0)[:, ::-1].argmax(axis=1)
        best = n_reference - 1 - best
        rows = np.flatnonzero(usable.any(axis=1))
        taken[rows, best[rows]] = True
        neither[rows, p] = ignored[best[rows]]
        hit[rows, p] = ~ignored[best[rows]]
    return hit, neither

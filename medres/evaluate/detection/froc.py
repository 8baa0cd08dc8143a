"""FROC: the share of lesions that are hit against the number of false positives per image, when the
threshold on the score is lowered (Chakraborty 1989; the rates are those of LUNA16).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medres.evaluate.detection.boxes import (
    BoolArray,
    Boxes,
    contains_center,
    overlaps,
    per_image,
)
from medres.evaluate.scores.sample import Float64Array, Int64Array

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per image
HIT_IOU = 0.5
HIT_RULES = {
    "center": "the center of the prediction lies in the reference box",
    "iou": f"the intersection over union is at least {HIT_IOU}",
}


@dataclass(frozen=True)
class Marks:
    """The predictions of one class, from the highest score down, after matching.

    order (n,): their positions among the predictions. score, image (n,). lesion (n,): position of
    the lesion that a prediction is the first to hit, else -1. false (n,): it hits none. Predictions
    that are neither hit a lesion again; those in a region to ignore are left out. lesions
    (images,): references. lesion_image (lesions,): the image of each.
    last (k,): the last mark of each score: marks with equal scores are called together.
    """

    order: Int64Array
    score: Float64Array
    image: Int64Array
    lesion: Int64Array
    false: BoolArray
    lesions: Int64Array
    lesion_image: Int64Array
    last: Int64Array
    duplicates: int

    def curve(self, weight: Float64Array | None = None) -> tuple[Float64Array, Float64Array]:
        """(k + 1,) false positives per image and sensitivity, from no mark to all of them; the
        sensitivity is NaN without lesions. weight (images,): how often each image counts.
        """
        hits, false, lesions, images = self._totals(weight)
        if not images or not lesions:
            return false / max(images, 1.0), np.full(hits.size, np.nan)
        return false / images, hits / lesions

    def sensitivities(
        self, rates: Float64Array, weight: Float64Array | None = None
    ) -> Float64Array:
        """(r,) sensitivity at `rates`: the step curve, carried forward beyond its end."""
        rate, sensitivity = self.curve(weight)
        return sensitivity[np.searchsorted(rate, rates + 1e-12, side="right") - 1]

    def reaches(self) -> float:
        """False positives per image when all marks are called: the end of the curve."""
        return float(self.curve()[0][-1])

    def threshold_at(self, rate: float) -> float:
        """The lowest score at which there are at most `rate` false positives per image; infinite if
        there is none.
        """
        false = self.curve()[0]
        last = int(np.searchsorted(false, rate + 1e-12, side="right")) - 1
        return float("inf") if last == 0 else float(self.score[self.last[last - 1]])

    def hits(self, threshold: float) -> BoolArray:
        """(lesions,) whether a mark with `score >= threshold` hits the lesion."""
        out = np.zeros(self.lesion_image.size, dtype=bool)
        out[self.lesion[(self.score >= threshold) & (self.lesion >= 0)]] = True
        return out

    def false_marks(self, threshold: float) -> Int64Array:
        """(images,) number of false marks with `score >= threshold`."""
        called = self.image[(self.score >= threshold) & self.false]
        return np.bincount(called, minlength=self.lesions.size)

    def _totals(
        self, weight: Float64Array | None
    ) -> tuple[Float64Array, Float64Array, float, float]:
        each = np.ones(self.image.size) if weight is None else weight[self.image]
        hits = np.append(0.0, np.cumsum(each * (self.lesion >= 0)))
        false = np.append(0.0, np.cumsum(each * self.false))
        ends = np.append(0, self.last + 1)
        images = float(self.lesions.size if weight is None else weight.sum())
        lesions = float(self.lesions.sum() if weight is None else weight @ self.lesions)
        return hits[ends], false[ends], lesions, images


def match_marks(predicted: Boxes, reference: Boxes, n_images: int, rule: str = "center") -> Marks:
    """Match the predictions of one class with its lesions. Each prediction, from the highest score
    down, hits one lesion at most: of those that no other has hit, the one with the greatest
    overlap.
    """
    counted = np.flatnonzero(~reference.ignore)
    lesion = np.full(len(predicted), -1)
    false = np.zeros(len(predicted), dtype=bool)
    kept = np.ones(len(predicted), dtype=bool)
    duplicates = 0
    for _, mine, true in per_image(predicted, reference, n_images):
        ignore = reference.ignore[true]
        corners = predicted.corners[mine], reference.corners[true]
        overlap = overlaps(*corners, np.zeros_like(ignore))
        hit = contains_center(*corners) if rule == "center" else overlap >= HIT_IOU
        free = ~ignore
        for row, p in enumerate(mine):
            candidates = hit[row] & free
            if candidates.any():
                best = int(np.where(candidates, overlap[row], -1.0).argmax())
                free[best] = False
                lesion[p] = true[best]
            elif (hit[row] & ~ignore).any():
                duplicates += 1
            elif _in_ignored(corners[0][row], corners[1][ignore]):
                kept[p] = False
            else:
                false[p] = True
    position = np.full(len(reference), -1)
    position[counted] = np.arange(counted.size)
    order = np.argsort(-predicted.score, kind="stable")
    order = order[kept[order]]
    score = predicted.score[order]
    lesion = lesion[order]
    return Marks(
        order,
        score,
        predicted.image[order],
        np.where(lesion >= 0, position[lesion], -1) if counted.size else lesion,
        false[order],
        np.bincount(reference.image[counted], minlength=n_images),
        reference.image[counted],
        np.flatnonzero(np.append(score[1:] != score[:-1], score.size > 0)),
        duplicates,
    )


def _in_ignored(box: Float64Array, regions: Float64Array) -> bool:
    """Whether the center of a prediction lies in a region to ignore."""
    return bool(contains_center(box[None], regions).any())

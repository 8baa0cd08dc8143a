"""Boxes of many images as arrays. Corners are edges in pixels of the original image: the first
pixel reaches from 0 to 1, and a box is half open, as in COCO.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.scores.sample import Float64Array, Int64Array

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Boxes:
    """Boxes of one class or of several, in any order.

    image (n,): position of the image in `Images`. category (n,): position in `classes`. corners
    (n, 4): x_min, y_min, x_max, y_max. score (n,): of predictions; 0 of references. area (n,): in
    square pixels, as the file states it. ignore (n,): reference regions in which predictions do
    not count (COCO's crowd).
    """

    image: Int64Array
    category: Int64Array
    corners: Float64Array
    score: Float64Array
    area: Float64Array
    ignore: BoolArray

    def __len__(self) -> int:
        return int(self.image.size)

    def take(self, index: NDArray[np.generic]) -> Boxes:
        """The boxes at these positions (or where a mask is True)."""
        return Boxes(
            self.image[index],
            self.category[index],
            self.corners[index],
            self.score[index],
            self.area[index],
            self.ignore[index],
        )

    def of_class(self, category: int) -> Boxes:
        return self.take(self.category == category)


@dataclass(frozen=True)
class Images:
    """The images that were assessed, with boxes or without.

    ids: as in the reference. names: of their files, empty if none is given. width, height (n,): in
    pixels, 0 if not given. patient (n,): codes from 0; each image is its own patient if none is
    given. clustered: whether patients are given.
    """

    ids: list[int | str]
    names: list[str]
    width: Int64Array
    height: Int64Array
    patient: Int64Array
    clustered: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Int64Array) -> Images:
        """The images at these positions; patients are counted anew."""
        at = index.tolist()
        return Images(
            [self.ids[i] for i in at],
            [self.names[i] for i in at],
            self.width[index],
            self.height[index],
            np.unique(self.patient[index], return_inverse=True)[1].astype(np.int64),
            self.clustered,
        )


def per_image(
    predicted: Boxes, reference: Boxes, n: int
) -> Iterator[tuple[int, Int64Array, Int64Array]]:
    """(image, positions of its predictions, positions of its references) of every image that has
    any box; predictions from the highest score down, ties in their order.
    """
    by_score = np.lexsort((np.arange(len(predicted)), -predicted.score, predicted.image))
    by_image = np.argsort(reference.image, kind="stable")
    ends = [
        np.searchsorted(boxes.image[order], np.arange(n + 1))
        for boxes, order in ((predicted, by_score), (reference, by_image))
    ]
    for image in range(n):
        mine = by_score[ends[0][image] : ends[0][image + 1]]
        true = by_image[ends[1][image] : ends[1][image + 1]]
        if mine.size or true.size:
            yield image, mine, true


def overlaps(predicted: Float64Array, reference: Float64Array, ignore: BoolArray) -> Float64Array:
    """(p, r) intersection over union; over the area of the prediction where the reference is a
    region to ignore (as pycocotools does with crowds).

    >>> box = np.array([[0.0, 0.0, 2.0, 2.0]])
    >>> overlaps(box, np.array([[1.0, 0.0, 3.0, 2.0]]), np.array([False])).round(3).tolist()
    [[0.333]]
    """
    low = np.maximum(predicted[:, None, :2], reference[None, :, :2])
    high = np.minimum(predicted[:, None, 2:], reference[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=2)
    own = (predicted[:, 2:] - predicted[:, :2]).prod(axis=1)[:, None]
    other = (reference[:, 2:] - reference[:, :2]).prod(axis=1)[None, :]
    union = np.where(ignore[None, :], own, own + other - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0.0)


def contains_center(predicted: Float64Array, reference: Float64Array) -> BoolArray:
    """(p, r): whether the center of the prediction lies in the reference; half open."""
    center = 0.5 * (predicted[:, :2] + predicted[:, 2:])[:, None, :]
    inside = (center >= reference[None, :, :2]) & (center < reference[None, :, 2:])
    return np.asarray(inside.all(axis=2))

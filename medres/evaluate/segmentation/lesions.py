"""Lesions of a reference mask against those of a prediction, each a connected component."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medres.evaluate.segmentation.surfaces import Mask, bounding_box

HIT_IOU = 0.1  # above it a lesion counts as found
FRAGMENT = 0.5  # share of a component within lesions from which it is a piece of them
BINS = {  # upper edges of the sizes of lesions, by the number of axes
    3: (100.0, 1_000.0, 10_000.0),  # mm3
    2: (10.0, 100.0, 1_000.0),  # mm2
}

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LesionMatch:
    """Sizes in voxels. found (L,): whether each lesion was hit. false_size (F,): of the false
    positive components. n_split: lesions that several components overlap. n_merged: components
    that overlap several lesions.
    """

    size: IntArray
    found: NDArray[np.bool_]
    false_size: IntArray
    n_split: int
    n_merged: int


def match_lesions(reference: Mask, prediction: Mask, hit_iou: float = HIT_IOU) -> LesionMatch:
    """Match components (26-connected, 8 in two dimensions) one to one, those of the greatest
    overlap first (voxels in common; ties in the order of the lesions), if their IoU is above
    `hit_iou`.

    A component that is not matched is false, unless half of it or more lies within lesions that
    were hit: that is a fragment, which counts as a split only.
    """
    either = reference | prediction
    if not either.any():
        return LesionMatch(
            np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.int64), 0, 0
        )
    box = bounding_box(either)
    (truth, n_truth), (answer, n_answer) = _components(reference[box]), _components(prediction[box])
    common = _overlaps(truth, n_truth, answer, n_answer)
    size, answer_size = (
        np.bincount(labels.ravel(), minlength=n + 1)[1:].astype(np.int64)
        for labels, n in ((truth, n_truth), (answer, n_answer))
    )
    found, matched = np.zeros(n_truth, np.bool_), np.zeros(n_answer, np.bool_)
    lesion, component, voxels = common
    for i in np.argsort(-voxels, kind="stable"):
        a, b = lesion[i], component[i]
        iou = voxels[i] / (size[a] + answer_size[b] - voxels[i])
        if iou > hit_iou and not found[a] and not matched[b]:
            found[a] = matched[b] = True
    in_hit = np.bincount(component, voxels * found[lesion], minlength=n_answer)
    false = ~matched & (in_hit < FRAGMENT * answer_size)
    return LesionMatch(
        size,
        found,
        answer_size[false],
        n_split=int(np.count_nonzero(np.bincount(lesion, minlength=1) > 1)),
        n_merged=int(np.count_nonzero(np.bincount(component, minlength=1) > 1)),
    )


def bin_names(edges: tuple[float, ...], unit: str) -> list[str]:
    """Names of the bins of size.

    >>> bin_names((100.0, 1000.0), "mm3")
    ['below 100 mm3', '100 to 1000 mm3', 'at least 1000 mm3']
    """
    between = [f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g} {unit}", *between, f"at least {edges[-1]:g} {unit}"]


def _components(mask: Mask) -> tuple[NDArray[np.int32], int]:
    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return np.asarray(labels, np.int32), int(count)


def _overlaps(
    truth: NDArray[np.int32], n_truth: int, answer: NDArray[np.int32], n_answer: int
) -> tuple[IntArray, IntArray, IntArray]:
    """(lesion, component, voxels in common) of the pairs that overlap."""
    both = (truth > 0) & (answer > 0)
    if not both.any():
        return (np.empty(0, np.int64),) * 3
    code = (truth[both].astype(np.int64) - 1) * n_answer + answer[both] - 1
    pairs, voxels = np.unique(code, return_counts=True)
    return pairs // n_answer, pairs % n_answer, voxels.astype(np.int64)

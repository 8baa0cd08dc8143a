"""Distances between the surfaces of two masks, by one of two conventions.

surface: the surface runs between voxels, and its pieces weigh by their area (DeepMind's
surface-distance). boundary: the voxels of a mask that touch the outside, which weigh the same
(MONAI, nnU-Net). Both give other numbers for the same masks, so reports name the convention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from medres.evaluate.segmentation.surface_elements import FloatArray, corners, element_sizes

Mask = NDArray[np.bool_]
PERCENT = 95.0


@dataclass(frozen=True, eq=False)
class Directed:
    """Distances from each piece of a surface to the other surface, ascending, and the sizes of the
    pieces.
    """

    distance: FloatArray
    size: FloatArray

    @property
    def total(self) -> float:
        return float(self.size.sum())

    def within(self, tolerance: float) -> float:
        """The size of the surface that is no farther than this."""
        return float(self.size[self.distance <= tolerance].sum())

    def weighted_percentile(self, percent: float) -> float:
        """The smallest distance that this share of the surface does not exceed."""
        share = np.cumsum(self.size) / self.size.sum()
        at = int(np.searchsorted(share, percent / 100.0))
        return float(self.distance[min(at, self.distance.size - 1)])

    def plain_percentile(self, percent: float) -> float:
        """The percentile of the distances, with linear interpolation."""
        return float(np.percentile(self.distance, percent))


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From the reference to the prediction, and back. Units are those of the spacing."""

    there: Directed
    back: Directed
    percentile: Callable[[Directed, float], float]

    def hausdorff(self, percent: float = PERCENT) -> float:
        """The greater of the two directed percentiles."""
        return max(self.percentile(self.there, percent), self.percentile(self.back, percent))

    def average(self) -> float:
        """The mean distance over both surfaces together (ASSD)."""
        both = (self.there, self.back)
        total = sum(float(np.dot(side.distance, side.size)) for side in both)
        return total / (self.there.total + self.back.total)

    def surface_dice(self, tolerance: float) -> float:
        """The share of both surfaces within the tolerance of the other (NSD)."""
        near = self.there.within(tolerance) + self.back.within(tolerance)
        return near / (self.there.total + self.back.total)


#: (mask, spacing) -> where the surface is, and the size of each of its pieces
Surface = Callable[[Mask, tuple[float, ...]], tuple[Mask, FloatArray]]


@dataclass(frozen=True)
class Convention:
    """What counts as the surface, and which percentile is taken of its distances."""

    name: str
    words: str
    surface: Surface
    percentile: Callable[[Directed, float], float]


def surface_distances(
    reference: Mask, prediction: Mask, spacing: tuple[float, ...], convention: Convention
) -> SurfaceDistances:
    """Distances between the surfaces of two masks of the same shape, neither of them empty.

    spacing: between neighboring voxels along each axis. Only the box that holds both masks is
    looked at.
    """
    box = bounding_box(reference | prediction)
    (a, a_size), (b, b_size) = (
        convention.surface(np.pad(mask[box], 1), spacing) for mask in (reference, prediction)
    )
    return SurfaceDistances(
        _directed(a, a_size, b, spacing), _directed(b, b_size, a, spacing), convention.percentile
    )


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds a mask that is not empty, and a margin as far as there is one."""
    box = []
    for axis, size in enumerate(mask.shape):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        at = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(0, int(at[0]) - margin), min(size, int(at[-1]) + 1 + margin)))
    return tuple(box)


def _directed(source: Mask, size: FloatArray, target: Mask, spacing: tuple[float, ...]) -> Directed:
    steps = np.asarray(spacing)
    distance = np.zeros(size.size)
    apart = ~target[source]
    if apart.any():
        # in the box of a large organ several times as fast as a distance transform
        tree = KDTree(np.argwhere(target) * steps, balanced_tree=False, compact_nodes=False)
        distance[apart] = tree.query((np.argwhere(source) * steps)[apart])[0]
    order = np.lexsort((size, distance))
    return Directed(distance[order], size[order])


def _elements(mask: Mask, spacing: tuple[float, ...]) -> tuple[Mask, FloatArray]:
    """Groups of neighboring voxels that are partly inside. mask: with an empty border."""
    code = np.zeros([size - 1 for size in mask.shape], np.uint8)
    for bit, corner in enumerate(corners(mask.ndim)):
        box = [slice(c, size - 1 + c) for c, size in zip(corner, mask.shape, strict=True)]
        shifted = mask[tuple(box)]
        code |= shifted.astype(np.uint8) << np.uint8(bit)
    is_surface = (code != 0) & (code != 2**2**mask.ndim - 1)
    return is_surface, element_sizes(spacing)[code[is_surface]]


def _boundary(mask: Mask, spacing: tuple[float, ...]) -> tuple[Mask, FloatArray]:
    """Voxels inside that have a neighbor outside across a face. mask: with an empty border."""
    is_boundary = mask & ~ndimage.binary_erosion(mask)
    return is_boundary, np.ones(int(is_boundary.sum()))


CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention(
            "surface",
            "surfaces run between voxels, and their pieces weigh by area (by length in two "
            "dimensions), as in DeepMind's surface-distance",
            _elements,
            Directed.weighted_percentile,
        ),
        Convention(
            "boundary",
            "surfaces are the voxels of a mask that touch the outside across a face, each of the "
            "same weight, as in MONAI",
            _boundary,
            Directed.plain_percentile,
        ),
    )
}

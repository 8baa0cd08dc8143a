"""The z-score of a volume whose values have no unit, as MR: (value - mean) / standard deviation.

Mean and standard deviation are those of the voxels of the volume that are not 0 and no padding:
skull-stripped and masked volumes have zeros around the body, in a share that differs from one to
another. Where all voxels that are not 0 have one value, zeros count as well. The volume is all
slices of one consistent group of a series (see `volumes.series.group_planes`), also for models of
single slices. Values beyond 32 standard deviations are clipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_pipelines.errors import Ineligible
from data_pipelines.kinds import ZSCORE

if TYPE_CHECKING:
    from data_pipelines.pixels.image import Image
    from data_pipelines.volumes.series import Group

MAX_DEVIATIONS = 32.0
_SMALLEST = 1e-12  # of the squared mean: a variance below it is rounding


class Moments(NamedTuple):
    """What one slice adds to the statistics of its volume.

    voxels, nonzero: their numbers, without padding. total, squares: sum of values and of squares.
    """

    voxels: int
    nonzero: int
    total: float
    squares: float


class Standard(NamedTuple):
    """The mean and the standard deviation of a volume, in the units of its file."""

    mean: float
    deviation: float


def moments_of(image: Image) -> Moments:
    """The moments of a slice, in float64."""
    inside = image.pixels if image.padding is None else image.pixels[~image.padding]
    values = inside.astype(np.float64).ravel()
    return Moments(
        values.size, int(np.count_nonzero(values)), float(values.sum()), float(values @ values)
    )


def standard_of(slices: Iterable[Moments]) -> Standard:
    """Mean and standard deviation of a volume; they do not depend on the order of its slices.

    Raises Ineligible (code constant_pixels) where all voxels have one value.

    >>> standard_of([Moments(voxels=4, nonzero=2, total=4.0, squares=10.0)])
    Standard(mean=2.0, deviation=1.0)
    """
    moments = list(slices)
    total = math.fsum(each.total for each in moments)
    squares = math.fsum(each.squares for each in moments)
    for count in (sum(each.nonzero for each in moments), sum(each.voxels for each in moments)):
        mean = total / max(count, 1)
        variance = squares / max(count, 1) - mean**2
        if variance > _SMALLEST * mean**2 and variance > 0:
            return Standard(mean, math.sqrt(variance))
    raise Ineligible("All voxels of the volume have the same value.", code="constant_pixels")


def standardized(image: Image, standard: Standard) -> Image:
    """The image in standard deviations of its volume, float32, clipped to +-32. Padding becomes the
    mean, 0.
    """
    pixels = (image.pixels.astype(np.float64) - standard.mean) / standard.deviation
    np.clip(pixels, -MAX_DEVIATIONS, MAX_DEVIATIONS, out=pixels)
    if image.padding is not None:
        pixels[image.padding] = 0.0
    record = {**image.voi, "mean": standard.mean, "deviation": standard.deviation}
    return replace(image, pixels=pixels.astype(np.float32), units=ZSCORE.name, voi=record)


def standards_of_groups(
    groups: Iterable[Group], moments: Sequence[Moments]
) -> dict[int, Standard | Ineligible]:
    """By the source_index of each plane, the mean and standard deviation of its group, or why it
    has none. moments: of each source_index.
    """
    standards: dict[int, Standard | Ineligible] = {}
    for group in groups:
        indices = [plane.source_index for plane in group.planes]
        try:
            standard: Standard | Ineligible = standard_of(moments[n] for n in indices)
        except Ineligible as error:
            standard = error
        standards |= dict.fromkeys(indices, standard)
    return standards

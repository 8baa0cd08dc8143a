"""Which slices make one sample (a sample of a cache, or one input of a model), and its integers:
images, 2.5D stacks, volumes.

Training and prediction both call `samples_of` and `prepare_samples`, so both see the same samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.preparation import check_units, prepare, to_integers
from data_pipelines.preprocessing.resize import at_spacing, fit_within, resize_image, stretch
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.resampling import spacing_of
from data_pipelines.volumes.series import Group, classify_spacing, group_planes
from data_pipelines.volumes.volume import ACCEPTED, assemble, grid_of

#: How far a neighbor may lie from its expected position, in steps of the series. Beyond it, the
#: slice before the gap is repeated.
NEIGHBOR_TOLERANCE = 0.25


@dataclass(frozen=True)
class SampleSlices:
    """The slices of one sample, as indices into a list of planes.

    An image: its one slice. A stack: `spec.slices` neighbors around the middle slice, repeated at
    the ends of the series. A volume: all slices of a consistent group, ascending along row x
    column. interpolated: share of its slices (0..1) that no stored slice supports.
    """

    slice_indices: tuple[int, ...]
    interpolated: float = 0.0

    @property
    def middle(self) -> int:
        """The slice that represents the sample: the image itself, or the middle slice."""
        return self.slice_indices[len(self.slice_indices) // 2]


def samples_of(
    planes: Sequence[Plane], spec: PreprocessSpec
) -> tuple[list[SampleSlices], dict[str, int]]:
    """Samples of the given slices, in the order of their first slices, and the number of series
    that were left out for each reason: a verdict, GAP_TOO_LARGE or TOO_INTERPOLATED.

    Images and stacks leave nothing out; a volume is made of each consistent group that the spec's
    policy accepts, within the limits of its `resampling`.
    """
    if spec.layout == "image":
        return [SampleSlices((n,)) for n in range(len(planes))], {}
    groups = group_planes([_numbered(plane, n) for n, plane in enumerate(planes)])
    if spec.layout == "stack":
        samples = [sample for group in groups for sample in _stacks(group, spec.slices)]
        return sorted(samples, key=lambda sample: sample.middle), {}
    left_out: Counter[str] = Counter()
    samples = []
    for group in groups:
        reason, interpolated = _acceptance(group, spec)
        if reason:
            left_out[reason] += 1
        else:
            indices = tuple(plane.source_index for plane in group.planes)
            samples.append(SampleSlices(indices, interpolated))
    samples.sort(key=lambda sample: min(sample.slice_indices))
    return samples, dict(sorted(left_out.items()))


def _acceptance(group: Group, spec: PreprocessSpec) -> tuple[str, float]:
    """Why a group makes no volume ('' where it does), and the share of interpolated slices."""
    if group.verdict not in ACCEPTED[spec.policy]:
        return group.verdict, 0.0
    if not _is_resampled(group, spec):
        return "", 0.0
    grid = grid_of(group, spec.resampling)
    return grid.refusal(spec.resampling).upper(), grid.interpolated_share


def _is_resampled(group: Group, spec: PreprocessSpec) -> bool:
    return spec.policy == "resample" and group.verdict != "REGULAR"


def prepare_samples(
    samples: Sequence[SampleSlices],
    planes: Sequence[Plane],
    read: Callable[[int], Image],
    spec: PreprocessSpec,
) -> Iterator[np.ndarray]:
    """Prepared integers (*spec.prepared_shape) of each sample.

    planes: only used for volumes. read: gives the image of an index into `planes`; each image is
        read once if the samples of a series follow one another.
    Raises SpecError if an image has other units than the spec (code wrong_units), or values that
    are not finite (code not_finite).
    """
    if spec.layout == "volume":
        for sample in samples:
            group = classify_spacing([_numbered(planes[n], n) for n in sample.slice_indices])
            yield _volume((read(plane.source_index) for plane in group.planes), group, spec)
        return
    prepared = lru_cache(maxsize=2 * spec.slices)(lambda n: prepare(read(n), spec))
    for sample in samples:
        if spec.layout == "image":
            yield prepared(sample.slice_indices[0])
        else:
            yield np.stack([prepared(n) for n in sample.slice_indices], axis=-1)


def _stacks(group: Group, count: int) -> Iterator[SampleSlices]:
    """One stack around each slice. A gap in the series is an edge: the last slice before it is
    repeated.
    """
    heights, step = _heights(group), group.step_mm or 0.0
    for index, plane in enumerate(group.planes):
        sides = {}
        for sign in (-1, 1):
            neighbors, last = [], plane
            for distance in range(1, count // 2 + 1):
                height = heights[index] + sign * distance * step
                last = _at_height(group, heights, height) or last
                neighbors.append(last.source_index)
            sides[sign] = neighbors
        yield SampleSlices((*reversed(sides[-1]), plane.source_index, *sides[1]))


def _heights(group: Group) -> np.ndarray:
    """mm along the normal; zeros if the group has no step."""
    if group.step_mm is None:
        return np.zeros(len(group.planes))
    axes = np.asarray(group.planes[0].orientation, np.float64).reshape(2, 3)
    positions = np.asarray([plane.position for plane in group.planes], np.float64)
    return positions @ np.cross(axes[0], axes[1])


def _at_height(group: Group, heights: np.ndarray, height: float) -> Plane | None:
    if group.step_mm is None:
        return None
    nearest = int(np.abs(heights - height).argmin())
    is_close = abs(heights[nearest] - height) <= NEIGHBOR_TOLERANCE * group.step_mm
    return group.planes[nearest] if is_close else None


def _volume(images: Iterator[Image], group: Group, spec: PreprocessSpec) -> np.ndarray:
    """Resized within each slice, then along the slices."""
    checked = (_checked(image, spec) for image in images)
    slices: Iterator[np.ndarray]
    if _is_resampled(group, spec):
        volume = assemble(group, list(checked), spec.resampling)
        slices, affine, count = iter(volume.pixels), volume.affine, len(volume.pixels)
    else:
        slices = (image.pixels for image in checked)
        affine, count = np.asarray(group.affine), len(group.planes)
    first = next(slices)
    sizes, spacings, output_sizes = (count, *first.shape), spacing_of(affine), spec.prepared_shape
    if spec.spacing_mm is not None:
        axes = at_spacing(sizes, spacings, output_sizes, spec.spacing_mm)
    elif spec.fit == "stretch":
        axes = stretch(sizes, output_sizes)
    else:
        axes = fit_within(sizes, spacings, output_sizes)
    resized = np.stack([resize_image(each, axes[1:], spec.fill) for each in (first, *slices)])
    return to_integers(axes[0].apply(resized, spec.fill), spec)


def _checked(image: Image, spec: PreprocessSpec) -> Image:
    check_units(image, spec)
    return image


def _numbered(plane: Plane, index: int) -> Plane:
    return replace(plane, source_index=index)

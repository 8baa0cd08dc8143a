"""Which slices make one record of a cache, or one input of a model, and the record itself: images,
2.5D stacks, volumes.

Training and prediction both call `units_of` and `prepare_units`: what one sees, the other sees.
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
from data_pipelines.volumes.volume import ACCEPTED, assemble

#: A neighbour may lie this far from where the series' step puts it, in steps; beyond, the slice
#: before it is repeated.
NEIGHBOUR_TOLERANCE = 0.25


@dataclass(frozen=True)
class SampleSlices:
    """The slices of one record, as places in a list of planes.

    An image: its one slice. A stack: `spec.slices` neighbours around the middle one, repeated where
    there is none. A volume: all slices of a consistent group, ascending along row x column.
    """

    members: tuple[int, ...]

    @property
    def middle(self) -> int:
        """The slice that stands for the record: itself, or the middle one."""
        return self.members[len(self.members) // 2]


def units_of(
    planes: Sequence[Plane], spec: PreprocessSpec
) -> tuple[list[SampleSlices], dict[str, int]]:
    """Records of the given slices, in the order of their first slices, and what was left out:
    verdict -> series.

    Images and stacks leave nothing out; a volume is made of each consistent group that the spec's
    policy accepts.
    """
    if spec.form == "image":
        return [SampleSlices((n,)) for n in range(len(planes))], {}
    groups = group_planes([_numbered(plane, n) for n, plane in enumerate(planes)])
    if spec.form == "stack":
        units = [unit for group in groups for unit in _stacks(group, spec.slices)]
        return sorted(units, key=lambda unit: unit.middle), {}
    taken = [group for group in groups if group.verdict in ACCEPTED[spec.policy]]
    left_out = Counter(group.verdict for group in groups if group not in taken)
    units = [SampleSlices(tuple(plane.source_index for plane in group.planes)) for group in taken]
    return sorted(units, key=lambda unit: min(unit.members)), dict(sorted(left_out.items()))


def prepare_units(
    units: Sequence[SampleSlices],
    planes: Sequence[Plane],
    read: Callable[[int], Image],
    spec: PreprocessSpec,
) -> Iterator[np.ndarray]:
    """Prepared integers (*spec.prepared_shape) of each unit; `read` gives the image of a place in
    `planes`.

    Each image is read once where the units of a series follow one another. Raises SpecError where
    an image is in another unit than the spec's.
    """
    if spec.form == "volume":
        for unit in units:
            group = classify_spacing([_numbered(planes[n], n) for n in unit.members])
            yield _volume((read(plane.source_index) for plane in group.planes), group, spec)
        return
    single = lru_cache(maxsize=2 * spec.slices)(lambda n: prepare(read(n), spec))
    for unit in units:
        yield (
            single(unit.members[0])
            if spec.form == "image"
            else np.stack([single(n) for n in unit.members], axis=-1)
        )


def _stacks(group: Group, count: int) -> Iterator[SampleSlices]:
    """One stack around each slice. A gap in the series is an edge: the last slice before it is
    repeated.
    """
    reach = range(1, count // 2 + 1)
    heights = _heights(group)
    for at, plane in enumerate(group.planes):
        sides = {}
        for sign in (-1, 1):
            found, last = [], plane
            for distance in reach:
                last = (
                    _at_height(
                        group, heights, heights[at] + sign * distance * (group.step_mm or 0.0)
                    )
                    or last
                )
                found.append(last.source_index)
            sides[sign] = found
        yield SampleSlices((*reversed(sides[-1]), plane.source_index, *sides[1]))


def _heights(group: Group) -> np.ndarray:
    """mm along the normal; zeros where the group has no step."""
    if group.step_mm is None:
        return np.zeros(len(group.planes))
    axes = np.asarray(group.planes[0].orientation, np.float64).reshape(2, 3)
    return np.asarray([plane.position for plane in group.planes], np.float64) @ np.cross(
        axes[0], axes[1]
    )


def _at_height(group: Group, heights: np.ndarray, wanted: float) -> Plane | None:
    if group.step_mm is None:
        return None
    nearest = int(np.abs(heights - wanted).argmin())
    near = abs(heights[nearest] - wanted) <= NEIGHBOUR_TOLERANCE * group.step_mm
    return group.planes[nearest] if near else None


def _volume(images: Iterator[Image], group: Group, spec: PreprocessSpec) -> np.ndarray:
    """Resized within each slice, then along the stack."""
    checked = (_checked(image, spec) for image in images)
    slices: Iterator[np.ndarray]
    if spec.policy == "resample" and group.verdict != "REGULAR":
        volume = assemble(group, list(checked), regular=True)
        slices, affine, count = iter(volume.pixels), volume.affine, len(volume.pixels)
    else:
        slices, affine, count = (
            (image.pixels for image in checked),
            np.asarray(group.affine),
            len(group.planes),
        )
    first = next(slices)
    sizes, pitches, outs = (count, *first.shape), spacing_of(affine), spec.prepared_shape
    if spec.spacing_mm is not None:
        axes = at_spacing(sizes, pitches, outs, spec.spacing_mm)
    else:
        axes = stretch(sizes, outs) if spec.fit == "stretch" else fit_within(sizes, pitches, outs)
    flat = np.stack([resize_image(each, axes[1:], spec.fill) for each in (first, *slices)])
    return to_integers(axes[0].apply(flat, spec.fill), spec)


def _checked(image: Image, spec: PreprocessSpec) -> Image:
    check_units(image, spec)
    return image


def _numbered(plane: Plane, source_index: int) -> Plane:
    return replace(plane, source_index=source_index)

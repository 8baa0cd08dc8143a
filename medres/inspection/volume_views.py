"""Series as volumes, for the page: three slices, two reformats, and the gaps between the slices.
Workers read the files; they load neither pandas nor TensorFlow for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from data_pipelines.cache.worker import FileRef, image_reader, planes_of_files
from data_pipelines.errors import DicomError
from data_pipelines.kinds import UNITS
from data_pipelines.pixels.image import Image
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.object_stores import joined
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.resampling import to_regular_grid
from data_pipelines.volumes.series import Group, group_planes
from data_pipelines.volumes.slice_grid import Resampling, modal_step, slice_grid
from medres.inspection.display_windows import Window, caption, to_gray, window_of_image

MAX_SLICES = 300  # of a series that are read for the reformats
MAX_GRID = 640  # slices of the grid of a reformat
SIDE = 320  # pixels along the longer side of a view
_IN_PLANE = 192  # pixels along the longer side of a slice before it is reformatted
_MARK = (240, 140, 0)  # color of interpolated slices
_MARK_COLUMNS = 6
_FILES_PER_TIME_LIMIT = 8

Gray = NDArray[np.uint8]


class SeriesItem(NamedTuple):
    """A series of the manifest. owners: patient and study of each file, as pseudonyms. window: the
    one chosen for it (None: that of its file).
    """

    files: tuple[FileRef, ...]
    owners: tuple[tuple[str, str], ...]
    window: Window | None


@dataclass(frozen=True)
class Gap:
    """after: number of the slice before it, from 1. slices: how many are missing. mm: from the
    slice before it to the next.
    """

    after: int
    slices: int
    mm: float


@dataclass(frozen=True)
class Geometry:
    """The largest group of slices of a series. verdict: of the group. others: slices of the series
    outside the group. step_mm: the step that occurs most often, None without one. refusal: why no
    volume is made of it with the default limits, or ''.
    """

    slices: int
    verdict: str
    others: int
    step_mm: float | None
    gaps: tuple[Gap, ...] = ()
    interpolated_share: float = 0.0
    refusal: str = ""

    @property
    def missing(self) -> int:
        """Slices that are missing in all gaps."""
        return sum(gap.slices for gap in self.gaps)


@dataclass(frozen=True)
class View:
    """title: what it shows. pixels: uint8 (rows, columns[, 3])."""

    title: str
    pixels: Gray


@dataclass(frozen=True)
class VolumeViews:
    """views: three slices, then two reformats. caption: the window. note: what the reformats show;
    the marks, or why they are not to scale.
    """

    geometry: Geometry
    views: tuple[View, ...]
    caption: str
    note: str


def read_geometries(
    items: Sequence[SeriesItem],
    *,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[Geometry | None]:
    """The geometry of each series, from the headers; None where one cannot be read."""
    answers = map_isolated(
        geometry_of_series, items, workers=workers, timeout_s=_seconds, progress=progress
    )
    return [None if isinstance(answer, DicomError) else answer for _, answer in answers]


def read_volume_views(
    items: Sequence[SeriesItem],
    *,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[VolumeViews | None]:
    """The views of each series; None where a file cannot be read."""
    answers = map_isolated(
        views_of_series, items, workers=workers, timeout_s=_seconds, progress=progress
    )
    return [None if isinstance(answer, DicomError) else answer for _, answer in answers]


def geometry_of_series(item: SeriesItem) -> Geometry:
    """Runs in a worker."""
    return _geometry(*_largest_group(item))


def views_of_series(item: SeriesItem) -> VolumeViews:
    """Runs in a worker. Only reduced slices are kept in memory."""
    group, total = _largest_group(item)
    geometry, count = _geometry(group, total), len(group.planes)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_SLICES)).round().astype(int))
    edge = (count - 1) // 4
    levels = [edge, (count - 1) // 2, count - 1 - edge]
    read = image_reader(item.files)
    views, small = [], []
    images = {n: read(group.planes[n].source_index) for n in levels}
    first = images[levels[1]]
    file = item.files[group.planes[levels[1]].source_index]
    window = item.window or window_of_image(first, joined(file.source, file.path))
    for number, image in images.items():
        title = f"{_plane_name(group.planes[0], 2)} slice {number + 1} of {count}"
        views.append(View(title, _resized(to_gray(image, window), image.aspect)))
    for n in chosen:
        small.append(_reduced(images.get(int(n)) or read(group.planes[n].source_index)))
    planes = [group.planes[n] for n in chosen]
    stack = _stacked(group, planes, np.stack(small), UNITS[first.units].air)
    note = stack.note
    if len(chosen) < count:
        note += f" Drawn from {len(chosen)} of {count} slices."
    reformats = _reformats(stack, planes[0], first, window)
    return VolumeViews(geometry, (*views, *reformats), caption(first, window), note)


def _seconds(item: SeriesItem) -> float:
    """The time limit of a series grows with its files."""
    return active_limits().seconds * (1 + len(item.files) / _FILES_PER_TIME_LIMIT)


def _largest_group(item: SeriesItem) -> tuple[Group, int]:
    """The largest group of consistent slices, and how many slices the series has."""
    planes = [
        replace(plane, source_index=n, patient=patient, study=study, series="")
        for n, (plane, (patient, study)) in enumerate(
            zip(planes_of_files(item.files), item.owners, strict=True)
        )
    ]
    largest = max(group_planes(planes), key=lambda group: len(group.planes))
    if len(largest.planes) == 1:  # no slice has a position: those of one size, in their order
        size = planes[0].rows, planes[0].columns
        same = tuple(plane for plane in planes if (plane.rows, plane.columns) == size)
        largest = Group(same, "NOT_A_VOLUME" if len(same) > 1 else largest.verdict)
    return largest, len(planes)


def _geometry(group: Group, total: int) -> Geometry:
    count, heights = len(group.planes), _heights(group)
    others = total - count
    if heights is None:
        return Geometry(count, group.verdict, others, None)
    step, steps = modal_step(heights), np.diff(heights)
    missing = np.rint(steps / step).astype(int) - 1
    gaps = tuple(
        Gap(int(n) + 1, int(missing[n]), float(steps[n])) for n in np.flatnonzero(missing > 0)
    )
    if group.verdict == "REGULAR" or heights[-1] > MAX_GRID * 100 * step:
        return Geometry(count, group.verdict, others, step, gaps)
    grid, limits = slice_grid(heights, "modal"), Resampling()
    share, refusal = grid.interpolated_share, grid.refusal(limits)
    return Geometry(count, group.verdict, others, step, gaps, share, refusal)


def _heights(group: Group) -> NDArray[np.float64] | None:
    """mm of each slice along the normal, from the first one; None where they are not distinct."""
    if group.step_mm is None or len(group.planes) < 2:
        return None
    return _positions(group.planes) @ _normal(group.planes[0])


def _positions(planes: Sequence[Plane]) -> NDArray[np.float64]:
    positions = np.asarray([plane.position for plane in planes], np.float64)
    return np.asarray(positions - positions[0])


def _axes(plane: Plane) -> NDArray[np.float64]:
    """(2, 3): the cosines along a row and down a column."""
    return np.asarray(plane.orientation or (1, 0, 0, 0, 1, 0), np.float64).reshape(2, 3)


def _normal(plane: Plane) -> NDArray[np.float64]:
    return np.asarray(np.cross(*_axes(plane)))


def _plane_name(plane: Plane, axis: int) -> str:
    """The name of the plane across an axis of the stack: 0 along a row, 1 down a column, 2 from
    slice to slice.
    """
    if plane.orientation is None:
        return ("Columns", "Rows", "Stored")[axis]
    direction = (*_axes(plane), _normal(plane))[axis]
    return ("Sagittal", "Coronal", "Axial")[int(np.abs(direction).argmax())]


class _Stack(NamedTuple):
    """A volume of reduced slices. spacing: mm along (slice, row, column). marks: True for each
    interpolated slice.
    """

    pixels: NDArray[np.float32]
    spacing: tuple[float, float, float]
    marks: NDArray[np.bool_]
    note: str


def _stacked(
    group: Group, planes: Sequence[Plane], slices: NDArray[np.float32], air: float | None
) -> _Stack:
    """The slices of `planes` on a regular grid; in their order where they have no common step."""
    rows, cols = (
        mm * size / reduced
        for mm, size, reduced in zip(
            planes[0].spacing or (1.0, 1.0),
            (planes[0].rows, planes[0].columns),
            slices.shape[1:],
            strict=True,
        )
    )
    heights = _heights(group)
    if heights is None:
        step = max(rows * slices.shape[1], cols * slices.shape[2]) / len(slices)
        note = "Reformats in the order of the slices, not to scale: they have no common step."
        return _Stack(slices, (step, rows, cols), np.zeros(len(slices), np.bool_), note)
    step = max(modal_step(heights), heights[-1] / MAX_GRID)
    grid = slice_grid(heights, step)
    marks = grid.interpolated & (group.verdict != "REGULAR")
    fill = float(slices.min()) if air is None else air
    pixels, _ = to_regular_grid(
        slices, _positions(planes), _axes(planes[0]), (rows, cols), fill, step
    )
    step = float(heights[-1] / (len(pixels) - 1))
    note = f"Reformats to scale, {step:.3g} mm from slice to slice; " + (
        f"{int(marks.sum())} of {len(marks)} slices are interpolated: orange on the left."
        if marks.any()
        else "no slice is interpolated."
    )
    return _Stack(pixels, (step, rows, cols), marks, note)


def _reformats(stack: _Stack, plane: Plane, sample: Image, window: Window | None) -> list[View]:
    """Two cuts through the middle, across the rows and across the columns. sample: any slice."""
    views, order = [], slice(None, None, -1 if _is_upwards(plane) else 1)
    for axis, across in ((1, 2), (2, 1)):
        cut = np.take(stack.pixels, stack.pixels.shape[axis] // 2, axis=axis)
        gray = to_gray(replace(sample, pixels=cut), window)[order]
        aspect = stack.spacing[0] / stack.spacing[across]
        pixels = _with_marks(_resized(gray, aspect, rows=True), stack.marks[order])
        views.append(View(f"{_plane_name(plane, 2 - axis)} reformat", pixels))
    return views


def _is_upwards(plane: Plane) -> bool:
    """Whether the last slice belongs at the top: head above feet, face above back."""
    direction = _normal(plane)
    axis = int(np.abs(direction).argmax())
    return bool(direction[axis] > 0) if axis == 2 else bool(direction[axis] < 0)


def _reduced(image: Image) -> NDArray[np.float32]:
    """At most _IN_PLANE pixels along each side."""
    rows, cols = image.pixels.shape
    ratio = min(1.0, _IN_PLANE / max(rows, cols))
    size = (max(1, round(cols * ratio)), max(1, round(rows * ratio)))
    picture = Pillow.fromarray(np.ascontiguousarray(image.pixels, np.float32))
    return np.asarray(picture.resize(size, Pillow.Resampling.BOX), np.float32)


def _resized(gray: Gray, aspect: float, *, rows: bool = False) -> Gray:
    """With SIDE pixels along the longer side. aspect: height of a pixel divided by its width. rows:
    each row stays visible as one band.
    """
    height = gray.shape[0] * aspect
    ratio = SIDE / max(height, gray.shape[1])
    cols, new_rows = max(1, round(gray.shape[1] * ratio)), max(1, round(height * ratio))
    picture = Pillow.fromarray(gray)
    if rows:
        smooth = picture.resize((cols, gray.shape[0]), Pillow.Resampling.BILINEAR)
        vertical = Pillow.Resampling.NEAREST if new_rows >= gray.shape[0] else Pillow.Resampling.BOX
        return np.asarray(smooth.resize((cols, new_rows), vertical))
    return np.asarray(picture.resize((cols, new_rows), Pillow.Resampling.BILINEAR))


def _with_marks(gray: Gray, marks: NDArray[np.bool_]) -> Gray:
    """RGB, with a bar on the left of each row that belongs to an interpolated slice."""
    if not marks.any():
        return gray
    color = np.repeat(gray[:, :, None], 3, axis=2)
    bar = np.full((len(gray), _MARK_COLUMNS, 3), 40, np.uint8)
    for n in np.flatnonzero(marks):
        start = int(n * len(gray) / len(marks))
        bar[start : max(start + 1, int((n + 1) * len(gray) / len(marks)))] = _MARK
    return np.concatenate([bar, color], axis=1)

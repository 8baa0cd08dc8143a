"""Reads a series as a volume: (slices, rows, columns) in HU with an exact affine, or an error that
names the verdict. PS3.3 C.7.6.2.1.1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.dicom.header import Header, header_of
from data_pipelines.dicom.reader import ParsedDataset, parse
from data_pipelines.errors import Ineligible, LimitExceeded, NotDicom, SeriesError, SpecError
from data_pipelines.kinds import UNITS, UnitName
from data_pipelines.pixels.grayscale import Mask
from data_pipelines.pixels.image import Image, image_of
from data_pipelines.volumes.plane import Plane, planes_of
from data_pipelines.volumes.resampling import Affine, Voxels, crop, resample, to_regular_grid
from data_pipelines.volumes.series import (
    Group,
    Verdict,
    classify_spacing,
    group_planes,
    series_verdict,
)
from data_pipelines.volumes.slice_grid import Resampling, SliceGrid, slice_grid

Policy = Literal["reject", "shear", "resample"]

DEFAULT_RESAMPLING = Resampling()

MAX_VOLUME_BYTES = 4 << 30
#: policy -> the verdicts that it accepts
ACCEPTED: dict[str, frozenset[str]] = {
    "reject": frozenset({"REGULAR"}),
    "shear": frozenset({"REGULAR", "TILTED"}),
    "resample": frozenset({"REGULAR", "TILTED", "MISSING", "IRREGULAR"}),
}
_REMEDIES = {
    "TILTED": 'policy="shear" keeps the tilt in the affine, policy="resample" removes it',
    "MISSING": 'policy="resample" interpolates across the gaps',
    "IRREGULAR": 'policy="resample" puts the slices on a regular grid',
}


@dataclass(frozen=True)
class Volume:
    """A stack of slices ascending along row x column.

    pixels: float32 (slices, rows, columns) in `units`.
    affine: 4 x 4 float64, maps (slice, row, column, 1) to LPS mm.
    sop_instance_uids, frames: the file and the frame of each slice; after resampling, of the
        nearest slice.
    tilt_degrees: angle between the step of the stack and the normal of the slices; 0 after
        resampling.
    verdict: of the series as it was stored (see `Group`).
    units: "HU", "display" or "raw", as in `Image`.
    padding: pixels outside the image; None where there are none, and after resampling.
    repairs: the codes of all slices, and "resampled" or "cropped".
    interpolated: share of the slices (0..1) that no stored slice supports, when the series was put
        on a regular grid.
    """

    pixels: Voxels
    affine: Affine
    sop_instance_uids: tuple[str, ...] = field(repr=False)
    frames: tuple[int, ...]
    tilt_degrees: float
    verdict: Verdict
    units: UnitName
    padding: Mask | None
    repairs: tuple[str, ...]
    interpolated: float = 0.0

    def resampled(self, spacing_mm: tuple[float, float, float]) -> Volume:
        """The volume on a grid of `spacing_mm` (slice, row, column) over the same extent; see
        data_pipelines.volumes.resampling.resample.

        Each slice has the SOP instance UID of the nearest original slice. Raises SpecError
        (`bad_spacing`) unless the spacing is three lengths above 0 mm.
        """
        pixels, affine = resample(self.pixels, self.affine, spacing_mm)
        positions = (np.arange(len(pixels)) + 0.5) * len(self.pixels) / len(pixels) - 0.5
        return self._with_slices(pixels, affine, np.rint(positions).astype(int), "resampled")

    def cropped(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Volume:
        """The box of `shape` voxels whose first voxel is `start`.

        Outside the volume the box has air (HU) or the minimum value. Each slice has the SOP
        instance UID of the nearest original slice. Raises SpecError (`bad_shape`) unless all three
        sizes are above 0.
        """
        if min(shape) < 1:
            raise SpecError(
                f"The shape of the box is {shape}: give three sizes above 0.", code="bad_shape"
            )
        pixels, affine = crop(self.pixels, self.affine, start, shape, self._fill)
        return self._with_slices(
            pixels, affine, np.arange(start[0], start[0] + shape[0]), "cropped"
        )

    @property
    def _fill(self) -> float:
        air = UNITS[self.units].air
        return float(self.pixels.min()) if air is None else air

    def _with_slices(
        self, pixels: Voxels, affine: Affine, slices: NDArray[np.integer], change: str
    ) -> Volume:
        nearest = np.clip(slices, 0, len(self.pixels) - 1)
        return replace(
            self,
            pixels=pixels,
            affine=affine,
            sop_instance_uids=tuple(self.sop_instance_uids[i] for i in nearest),
            frames=tuple(self.frames[i] for i in nearest),
            padding=None,
            repairs=(*self.repairs, change),
        )


Sources = str | Path | Iterable[str | Path]


def read_volume(
    source: Sources, *, policy: Policy = "reject", resampling: Resampling = DEFAULT_RESAMPLING
) -> Volume:
    """Read the single volume in a folder, a list of paths, or an enhanced multi-frame file.

    policy: "reject" accepts only a REGULAR series; "shear" also a TILTED one, and the tilt stays in
    the affine; "resample" also MISSING and IRREGULAR ones, and interpolates them linearly to a
    regular grid without tilt. resampling: the step of that grid, and the limits on gaps and on the
    share of interpolated slices.

    Files that are not slices (localizers, reports, color summaries, other formats) are skipped.
    Raises SeriesError, whose code is the verdict in lower case, unless there is exactly one group
    of slices and the policy accepts it (or `gap_too_large` or `too_interpolated` beyond a limit of
    `resampling`); SpecError (`unknown_policy`); and the errors of
    `read_image`.
    """
    stack = _Stack.read(source, policy)
    if len(stack.groups) != 1:
        raise SeriesError(
            f"The files have {len(stack.groups)} consistent groups of slices instead of one. Use "
            f"read_volumes to read each of them.",
            code=series_verdict(stack.groups).lower(),
        )
    return stack.volume(stack.groups[0], policy, resampling)


def read_volumes(
    source: Sources, *, policy: Policy = "reject", resampling: Resampling = DEFAULT_RESAMPLING
) -> list[Volume]:
    """As `read_volume`, with one volume for each consistent group of slices. Raises SeriesError
    where the policy refuses one of them.
    """
    stack = _Stack.read(source, policy)
    return [stack.volume(group, policy, resampling) for group in stack.groups]


@dataclass(frozen=True)
class _Stack:
    """The readable files of a source, and their slices in groups."""

    paths: tuple[Path, ...]
    headers: tuple[Header, ...]
    groups: tuple[Group, ...]

    @classmethod
    def read(cls, source: Sources, policy: str) -> _Stack:
        if policy not in ACCEPTED:
            raise SpecError(
                f"Unknown policy {policy!r}: give one of {', '.join(ACCEPTED)}.",
                code="unknown_policy",
            )
        paths: list[Path] = []
        headers: list[Header] = []
        planes: list[Plane] = []
        for path in _files(source):
            try:
                parsed = parse(path, pixels=False)
                header = header_of(parsed)
            except (NotDicom, Ineligible):
                continue
            planes += planes_of(parsed.dataset, header, len(paths))
            paths.append(path)
            headers.append(header)
        groups = group_planes(planes)
        slices = tuple(group for group in groups if not group.planes[0].non_slice_reason)
        if not slices:
            code = (
                "localizer"
                if any(group.verdict == "LOCALIZER" for group in groups)
                else "not_a_volume"
            )
            raise SeriesError("The files have no slice with a position in a volume.", code=code)
        return cls(tuple(paths), tuple(headers), slices)

    def volume(self, group: Group, policy: str, resampling: Resampling) -> Volume:
        images: list[Image] = []
        if group.verdict == "DUPLICATE":
            images = self._images(group.planes)
            group, images = _without_copies(group, images)
        if group.verdict not in ACCEPTED[policy]:
            remedy = _REMEDIES.get(group.verdict, "No policy accepts it")
            raise SeriesError(
                f"{len(group.planes)} slices are {group.label}; policy {policy!r} refuses it. "
                f"{remedy}.",
                code=group.verdict.lower(),
            )
        regular = policy == "resample" and group.verdict != "REGULAR"
        _require_few_gaps(group, resampling if regular else None)
        images = images or self._images(group.planes)
        if len({image.units for image in images}) > 1:
            raise SeriesError("The slices of one series have different units.", code="mixed_units")
        return assemble(group, images, resampling if regular else None)

    def _images(self, planes: Sequence[Plane]) -> list[Image]:
        size = 4 * len(planes) * planes[0].rows * planes[0].columns
        if size > MAX_VOLUME_BYTES:
            raise LimitExceeded(
                f"The volume would take {size} bytes; the limit is {MAX_VOLUME_BYTES}."
            )
        parsed: dict[int, ParsedDataset] = {}
        images = []
        for plane in planes:
            if plane.source_index not in parsed:
                parsed = {plane.source_index: parse(self.paths[plane.source_index], pixels=True)}
            images.append(
                image_of(
                    parsed[plane.source_index].dataset,
                    self.headers[plane.source_index],
                    plane.frame,
                )
            )
        return images


def grid_of(group: Group, resampling: Resampling) -> SliceGrid:
    """The regular grid on which a group with a step would be resampled."""
    return slice_grid(_heights(group), resampling.step)


def _heights(group: Group) -> NDArray[np.float64]:
    """mm of each slice along the normal, from the first one."""
    axes = np.asarray(group.planes[0].orientation, np.float64).reshape(2, 3)
    positions = np.asarray([plane.position for plane in group.planes], np.float64)
    return (positions - positions[0]) @ np.cross(axes[0], axes[1])


def _require_few_gaps(group: Group, resampling: Resampling | None) -> None:
    """Raise SeriesError where a series that would be resampled exceeds a limit."""
    if resampling is None:
        return
    grid = grid_of(group, resampling)
    code = grid.refusal(resampling)
    if code:
        raise SeriesError(
            f"{len(group.planes)} slices are {group.label}. The largest gap is {grid.gap_mm:.1f} "
            f"mm or {grid.gap_slices} slices; the limits are {resampling.max_gap_mm:g} mm and "
            f"{resampling.max_gap_slices} slices. {grid.interpolated_share:.0%} of them would "
            f"be interpolated; the limit is {resampling.max_interpolated:.0%}. Fetch the missing "
            f"slices, or raise the limit.",
            code=code,
        )


def assemble(group: Group, images: Sequence[Image], resampling: Resampling | None) -> Volume:
    """The images of a group's planes, in their order, as a volume. resampling: put them on a
    regular grid along the normal; the caller has checked its limits. None: keep the slices.
    """
    pixels = np.stack([image.pixels for image in images])
    uids = [image.header.identifiers.sop_instance_uid for image in images]
    frames = [image.frame for image in images]
    masks = [
        np.zeros(pixels.shape[1:], np.bool_) if i.padding is None else i.padding for i in images
    ]
    volume = Volume(
        pixels=pixels,
        affine=np.eye(4) if group.affine is None else group.affine,
        sop_instance_uids=tuple(uids),
        frames=tuple(frames),
        tilt_degrees=group.tilt_degrees,
        verdict=group.verdict,
        units=images[0].units,
        padding=np.stack(masks) if any(image.padding is not None for image in images) else None,
        repairs=tuple(dict.fromkeys(code for image in images for code in image.repairs)),
    )
    return volume if resampling is None else _regular_grid(volume, group, resampling)


def _regular_grid(volume: Volume, group: Group, resampling: Resampling) -> Volume:
    first = group.planes[0]
    axes = np.asarray(first.orientation, np.float64).reshape(2, 3)
    positions = np.asarray([plane.position for plane in group.planes], np.float64)
    pixels, affine = to_regular_grid(
        volume.pixels,
        positions,
        axes,
        first.spacing or (1.0, 1.0),
        volume._fill,
        resampling.step,
    )
    grid = grid_of(group, resampling)
    nearest = np.abs(grid.heights[:, None] - _heights(group)).argmin(axis=1)
    resampled = volume._with_slices(pixels, affine, nearest, "resampled")
    return replace(resampled, tilt_degrees=0.0, interpolated=grid.interpolated_share)


def _without_copies(group: Group, images: list[Image]) -> tuple[Group, list[Image]]:
    """Drop slices with the same position and the same pixels as an earlier one, and classify the
    rest again.
    """
    first_copies: dict[tuple[object, str], Plane] = {}
    for plane, image in zip(group.planes, images, strict=True):
        first_copies.setdefault((plane.position, image.pixel_sha256), plane)
    remaining = classify_spacing(list(first_copies.values()))
    by_plane = dict(zip(group.planes, images, strict=True))
    return remaining, [by_plane[plane] for plane in remaining.planes]


def _files(source: Sources) -> list[Path]:
    """The regular files below a folder in sorted order, or the paths of a list."""
    if not isinstance(source, str | Path):
        return [Path(path) for path in source]
    root = Path(source)
    if not root.is_dir():
        return [root]
    paths = (Path(folder) / name for folder, _, names in os.walk(root) for name in names)
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())

"""Series read as volumes: (slices, rows, columns) in HU with an exact affine, or a named refusal.
PS3.3 C.7.6.2.1.1.
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
from data_pipelines.kinds import UnitName
from data_pipelines.pixels.grayscale import Mask
from data_pipelines.pixels.image import AIR_HU, Image, image_of
from data_pipelines.volumes.plane import Plane, planes_of
from data_pipelines.volumes.resampling import Affine, Voxels, crop, resample, to_regular_grid
from data_pipelines.volumes.series import (
    Group,
    Verdict,
    classify_spacing,
    group_planes,
    series_verdict,
)

Policy = Literal["reject", "shear", "resample"]

MAX_VOLUME_BYTES = 4 << 30
#: policy -> verdicts that it makes a volume of
ACCEPTED: dict[str, frozenset[str]] = {
    "reject": frozenset({"REGULAR"}),
    "shear": frozenset({"REGULAR", "TILTED"}),
    "resample": frozenset({"REGULAR", "TILTED", "MISSING", "IRREGULAR"}),
}
_REMEDY = {
    "TILTED": 'policy="shear" keeps the tilt in the affine, policy="resample" removes it',
    "MISSING": 'policy="resample" interpolates across the gaps',
    "IRREGULAR": 'policy="resample" puts it on a regular grid',
}


@dataclass(frozen=True)
class Volume:
    """A stack of slices ascending along row x column.

    `pixels` float32 (slices, rows, columns) in `units`; `affine` 4 x 4 float64, (slice, row,
    column, 1) -> LPS mm;
    `sop_instance_uids` and `frames`: the file and frame of each slice (of the nearest one after
    resampling);
    `tilt_degrees`: angle between the stack's step and the slices' normal, 0 after resampling;
        `verdict`: of the series as it was stored; `padding`: pixels outside the image, None where
        there are none or after resampling.
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

    def resampled(self, spacing_mm: tuple[float, float, float]) -> Volume:
        """On a grid of `spacing_mm` (slice, row, column) over the same extent; see
        data_pipelines.volumes.resampling.resample.

        Each slice keeps the name of the nearest one. Raises SpecError unless the spacing is three
        lengths above 0 mm.
        """
        try:
            pixels, affine = resample(self.pixels, self.affine, spacing_mm)
        except ValueError as error:
            raise SpecError(str(error)) from None
        places = (np.arange(len(pixels)) + 0.5) * len(self.pixels) / len(pixels) - 0.5
        return self._with_slices(pixels, affine, np.rint(places).astype(int), "resampled")

    def cropped(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Volume:
        """The box of `shape` voxels whose first is `start`; outside the volume it holds air (HU) or
        the least value, and its slices are named as the nearest one. Raises SpecError where the
        shape is not above 0.
        """
        if min(shape) < 1:
            raise SpecError(f"a box has a shape above 0, not {shape}")
        pixels, affine = crop(self.pixels, self.affine, start, shape, self._fill)
        return self._with_slices(
            pixels, affine, np.arange(start[0], start[0] + shape[0]), "cropped"
        )

    @property
    def _fill(self) -> float:
        return AIR_HU if self.units == "HU" else float(self.pixels.min())

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


def read_volume(source: Sources, *, policy: Policy = "reject") -> Volume:
    """The one volume in a folder, a list of paths, or an enhanced multi-frame file.

    policy: "reject" takes only a REGULAR series, "shear" a TILTED one too (the tilt stays in the
        affine), "resample" also MISSING and IRREGULAR ones and puts all on an upright regular grid
        by linear interpolation. Raises SeriesError, whose code is the verdict in lower case, unless
        there is exactly one consistent group; files that are no slices (localizers, reports, colour
        summaries, other formats) are passed over; errors of `read_image` as they come.
    """
    stack = _Stack.read(source, policy)
    if len(stack.groups) != 1:
        raise SeriesError(
            f"{len(stack.groups)} consistent groups of slices, where one volume was asked for. "
            f"read_volumes gives each.",
            code=series_verdict(stack.groups).lower(),
        )
    return stack.volume(stack.groups[0], policy)


def read_volumes(source: Sources, *, policy: Policy = "reject") -> list[Volume]:
    """As `read_volume`, one volume for each consistent group; SeriesError where the policy refuses
    any of them.
    """
    stack = _Stack.read(source, policy)
    return [stack.volume(group, policy) for group in stack.groups]


@dataclass(frozen=True)
class _Stack:
    """The readable files of a source, and their slices in groups."""

    paths: tuple[Path, ...]
    headers: tuple[Header, ...]
    groups: tuple[Group, ...]

    @classmethod
    def read(cls, source: Sources, policy: str) -> _Stack:
        if policy not in ACCEPTED:
            raise SpecError(f"policy {policy!r} is not known. Give one of {', '.join(ACCEPTED)}.")
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
        slices = tuple(group for group in groups if not group.planes[0].not_a_slice)
        if not slices:
            code = (
                "localizer"
                if any(group.verdict == "LOCALIZER" for group in groups)
                else "not_a_volume"
            )
            raise SeriesError(
                "No slice was found: nothing that has a place in a volume.", code=code
            )
        return cls(tuple(paths), tuple(headers), slices)

    def volume(self, group: Group, policy: str) -> Volume:
        images: list[Image] = []
        if group.verdict == "DUPLICATE":
            images = self._images(group.planes)
            group, images = _without_copies(group, images)
        if group.verdict not in ACCEPTED[policy]:
            remedy = _REMEDY.get(group.verdict, "No policy makes a volume of it")
            raise SeriesError(
                f"{len(group.planes)} slices are {group.label}; policy {policy!r} refuses it. "
                f"{remedy}.",
                code=group.verdict.lower(),
            )
        images = images or self._images(group.planes)
        if len({image.units for image in images}) > 1:
            raise SeriesError("Slices of one series have different units.", code="mixed_units")
        return assemble(group, images, upright=policy == "resample" and group.verdict != "REGULAR")

    def _images(self, planes: Sequence[Plane]) -> list[Image]:
        size = 4 * len(planes) * planes[0].rows * planes[0].columns
        if size > MAX_VOLUME_BYTES:
            raise LimitExceeded(
                f"The volume would take {size} bytes; the limit is {MAX_VOLUME_BYTES}."
            )
        parsed: dict[int, ParsedDataset] = {}
        images = []
        for plane in planes:
            if plane.member not in parsed:
                parsed = {plane.member: parse(self.paths[plane.member], pixels=True)}
            images.append(
                image_of(parsed[plane.member].dataset, self.headers[plane.member], plane.frame)
            )
        return images


def assemble(group: Group, images: Sequence[Image], *, upright: bool) -> Volume:
    """Images of a group's planes, in their order, as a volume; `upright` puts it on a regular grid
    along the normal.
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
    return _upright(volume, group) if upright else volume


def _upright(volume: Volume, group: Group) -> Volume:
    first = group.planes[0]
    axes = np.asarray(first.orientation, np.float64).reshape(2, 3)
    places = np.asarray([plane.position for plane in group.planes], np.float64)
    pixels, affine = to_regular_grid(
        volume.pixels, places, axes, first.spacing or (1.0, 1.0), volume._fill
    )
    heights = (places - places[0]) @ np.cross(*axes)
    nearest = np.abs(np.linspace(0, heights[-1], len(pixels))[:, None] - heights).argmin(axis=1)
    return replace(volume._with_slices(pixels, affine, nearest, "resampled"), tilt_degrees=0.0)


def _without_copies(group: Group, images: list[Image]) -> tuple[Group, list[Image]]:
    """Drop slices with the same place and the same pixels as an earlier one; judge the rest
    anew.
    """
    kept: dict[tuple[object, str], int] = {}
    for at, (plane, image) in enumerate(zip(group.planes, images, strict=True)):
        kept.setdefault((plane.position, image.pixel_sha256), at)
    left = classify_spacing([group.planes[at] for at in kept.values()])
    by_plane = dict(zip(group.planes, images, strict=True))
    return left, [by_plane[plane] for plane in left.planes]


def _files(source: Sources) -> list[Path]:
    """Regular files below a folder in sorted order, or the paths given."""
    if not isinstance(source, str | Path):
        return [Path(path) for path in source]
    root = Path(source)
    if not root.is_dir():
        return [root]
    found = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())

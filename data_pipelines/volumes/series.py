"""Groups slices: which slices belong together, in which order, and whether they form a volume. Pure
functions.

PS3.3 C.7.6.2.1.1 (position and orientation). Order, step and tilt are computed from
ImagePositionPatient only, never from InstanceNumber, SliceLocation, file names, SliceThickness or
SpacingBetweenSlices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.dicom.sop_classes import SLICE_MODALITIES
from data_pipelines.volumes.image_types import merge_image_types
from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.study_identity import series_of_unreliable_studies

Verdict = Literal[
    "SINGLE",
    "REGULAR",
    "TILTED",
    "MISSING",
    "IRREGULAR",
    "DUPLICATE",
    "LOCALIZER",
    "MIXED_ORIENTATION",
    "NOT_A_VOLUME",
]
Affine = NDArray[np.float64]

COSINE_TOLERANCE = 1e-3
SPACING_TOLERANCE_MM = 1e-4
SAME_POSITION_MM = 1e-3
STEP_TOLERANCE = 0.05
STEP_TOLERANCE_MM = 0.05
TILT_TOLERANCE_DEGREES = 0.1
MIN_SLICES = 3
MAX_MISSING_SHARE = 0.25


@dataclass(frozen=True)
class Group:
    """Slices that share a grid, ascending along row x column, and their verdict:

    - SINGLE: one image.
    - REGULAR: one constant step along the normal.
    - TILTED: one constant step at an angle (`tilt_degrees`) to the normal.
    - MISSING: gaps of whole steps; `missing` slices in total.
    - IRREGULAR: other gaps, or slices that are shifted within the plane.
    - DUPLICATE: several slices at one position.
    - LOCALIZER: not a slice of the series.
    - NOT_A_VOLUME: no geometry, one position acquired several times, or only two slices (nothing
      confirms their step).

    step_mm: None where there is no step. affine: maps (slice, row, column, 1) to LPS mm, None where
    the steps differ.
    """

    planes: tuple[Plane, ...]
    verdict: Verdict
    missing: int = 0
    step_mm: float | None = None
    tilt_degrees: float = 0.0
    affine: Affine | None = None

    @property
    def label(self) -> str:
        """The verdict for people: MISSING(2) instead of MISSING."""
        return f"{self.verdict}({self.missing})" if self.verdict == "MISSING" else self.verdict


def group_planes(planes: Sequence[Plane]) -> list[Group]:
    """Groups of slices with the same patient, study, series, frame of reference, orientation,
    matrix, spacing, kernel and ImageType (see volumes.image_types for types that are merged).

    Slices at the same position are separated by dimension index, temporal position, acquisition
    number, phase, or all of these together, where no duplicate remains. An image that is not a
    slice forms its own group.
    """
    single = [
        Group((plane,), _verdict_without_position(plane)) for plane in planes if not plane.is_slice
    ]
    slices = [plane for plane in planes if plane.is_slice]
    unreliable = series_of_unreliable_studies(slices)

    def key(plane: Plane) -> tuple[str, ...]:
        study = "" if (plane.patient, plane.series) in unreliable else plane.study
        return (study, *_exact_key(plane))

    slices.sort(key=lambda plane: (*key(plane), *plane.image_type))
    groups = []
    for _, same_key in groupby(slices, key=key):
        for same_geometry in _within_tolerance(list(same_key)):
            for part in merge_image_types(same_geometry, is_one_volume):
                groups += [classify_spacing(phase) for phase in _split_acquisitions(part)]
    return groups + single


def series_verdict(groups: Sequence[Group]) -> Verdict:
    """One verdict for all groups of a series: that of the group where there is only one,
    MIXED_ORIENTATION where orientations differ, else NOT_A_VOLUME.
    """
    slices = [group for group in groups if group.verdict != "LOCALIZER"]
    if len(slices) <= 1:
        return (slices or list(groups))[0].verdict
    orientations = [group.planes[0].orientation for group in slices]
    cosines = [np.asarray(o) for o in orientations if o is not None]
    mixed = any(np.abs(o - cosines[0]).max() > COSINE_TOLERANCE for o in cosines)
    return "MIXED_ORIENTATION" if mixed else "NOT_A_VOLUME"


def classify_spacing(planes: Sequence[Plane]) -> Group:
    """The order and the verdict of slices that share orientation and matrix."""
    axes = np.asarray(planes[0].orientation, np.float64).reshape(2, 3)
    normal = np.cross(axes[0], axes[1])
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-2):
        return Group(tuple(planes), "NOT_A_VOLUME")
    normal /= np.linalg.norm(normal)
    positions = np.asarray([plane.position for plane in planes], np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    ordered, positions = tuple(planes[i] for i in order), positions[order]
    if len(planes) == 1:
        return Group(ordered, "SINGLE")
    steps = np.diff(positions @ normal)
    if (steps < SAME_POSITION_MM).any():
        repeated = len({_acquisition_key(plane) for plane in planes}) == len(planes)
        return Group(
            ordered,
            "NOT_A_VOLUME" if repeated and (steps < SAME_POSITION_MM).all() else "DUPLICATE",
        )
    return _classify_steps(ordered, positions, normal, axes)


def is_one_volume(planes: Sequence[Plane]) -> bool:
    """Whether slices form a volume in which few slices are missing."""
    group = classify_spacing(planes)
    few_missing = group.missing <= MAX_MISSING_SHARE * len(planes)
    return group.verdict in ("REGULAR", "TILTED") or (group.verdict == "MISSING" and few_missing)


def _classify_steps(
    planes: tuple[Plane, ...],
    positions: NDArray[np.float64],
    normal: NDArray[np.float64],
    axes: NDArray[np.float64],
) -> Group:
    steps = np.diff(positions @ normal)
    step = float(np.median(steps))
    counts = np.concatenate([[0], np.cumsum(np.maximum(np.rint(steps / step), 1))])
    vector = (positions[-1] - positions[0]) / counts[-1]
    off_grid = np.linalg.norm(positions - positions[0] - counts[:, None] * vector, axis=1).max()
    if off_grid > max(STEP_TOLERANCE * step, min(STEP_TOLERANCE_MM, 0.2 * step)):
        return Group(planes, "IRREGULAR", step_mm=step)
    tilt = float(
        np.degrees(np.arctan2(np.linalg.norm(vector - (vector @ normal) * normal), vector @ normal))
    )
    missing = int(counts[-1]) - len(planes) + 1
    if missing:
        return Group(planes, "MISSING", missing, step, tilt)
    if len(planes) < MIN_SLICES:
        return Group(planes, "NOT_A_VOLUME", step_mm=step, tilt_degrees=tilt)
    tilted = tilt > TILT_TOLERANCE_DEGREES
    return Group(
        planes,
        "TILTED" if tilted else "REGULAR",
        0,
        step,
        tilt,
        affine_of(planes[0], axes, positions[0], vector),
    )


def affine_of(plane: Plane, axes: NDArray, origin: NDArray, step: NDArray) -> Affine:
    """The affine (slice, row, column, 1) -> LPS mm. A step of the row index moves along the column
    cosines by the row spacing (C.7.6.2.1.1).

    axes: (2, 3), row and column cosines. origin: position of the first voxel. step: vector from one
    slice to the next, mm.
    """
    row_spacing, column_spacing = plane.spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = axes[1] * row_spacing
    affine[:3, 2] = axes[0] * column_spacing
    affine[:3, 3] = origin
    return affine


def _verdict_without_position(plane: Plane) -> Verdict:
    if plane.non_slice_reason == "localizer":
        return "LOCALIZER"
    if plane.non_slice_reason or plane.modality in SLICE_MODALITIES:
        return "NOT_A_VOLUME"
    return "SINGLE"


def _exact_key(plane: Plane) -> tuple[str, ...]:
    exact = (
        plane.patient,
        plane.series,
        plane.frame_of_reference,
        plane.modality,
        plane.rows,
        plane.columns,
        plane.kernel,
        plane.stack,
    )
    return tuple(map(str, exact))


def _within_tolerance(planes: list[Plane]) -> list[list[Plane]]:
    """Split by orientation and spacing, with a tolerance."""
    groups: list[list[Plane]] = []
    for plane in planes:
        match = next((group for group in groups if _same_geometry(group[0], plane)), None)
        if match is None:
            groups.append([plane])
        else:
            match.append(plane)
    return groups


def _same_geometry(a: Plane, b: Plane) -> bool:
    rotation = np.abs(np.subtract(a.orientation, b.orientation)).max()  # type: ignore[arg-type]
    scaling = np.abs(np.subtract(a.spacing, b.spacing)).max()  # type: ignore[arg-type]
    return bool(rotation <= COSINE_TOLERANCE and scaling <= SPACING_TOLERANCE_MM)


def _split_acquisitions(planes: list[Plane]) -> list[list[Plane]]:
    """Split slices at the same positions by acquisition. They stay together where no number
    separates them.
    """
    if classify_spacing(planes).verdict != "DUPLICATE":
        return [planes]
    keys: tuple[Callable[[Plane], Hashable], ...] = (
        lambda plane: plane.dimensions,
        lambda plane: plane.temporal,
        lambda plane: plane.acquisition,
        *(partial(_phase, index) for index in range(len(planes[0].phases))),
        _acquisition_key,
    )
    for key in keys:
        parts = [
            list(part) for _, part in groupby(sorted(planes, key=lambda p: str(key(p))), key=key)
        ]
        verdicts = {classify_spacing(part).verdict for part in parts}
        if (
            len(parts) > 1
            and not verdicts & {"DUPLICATE", "NOT_A_VOLUME"}
            and verdicts != {"SINGLE"}
        ):
            return parts
    return [planes]


def _phase(index: int, plane: Plane) -> float | None:
    return plane.phases[index] if index < len(plane.phases) else None


def _acquisition_key(plane: Plane) -> tuple[Hashable, ...]:
    return plane.dimensions, plane.temporal, plane.acquisition, plane.phases

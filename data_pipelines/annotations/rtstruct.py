"""Reads a DICOM RT structure set (C.8.8.5, C.8.8.6): contours in patient coordinates, filled on the
slices of its image.

A pixel is inside where its center is (see `fill_polygons`). Contours of one region on one plane are
combined by XOR, which holes and keyholes both need. Slices without a contour stay empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from data_pipelines.annotations.grids import TOLERANCE_MM, Grid
from data_pipelines.annotations.label_map import ClassNames, LabelMap
from data_pipelines.annotations.polygon_fill import Points, fill_polygons
from data_pipelines.annotations.raw_mask import RawMask
from data_pipelines.dicom.elements import Elements
from data_pipelines.errors import AnnotationError

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
MAX_REGIONS = 1000
_FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_XOR = "CLOSEDPLANAR_XOR"
#: a contour lies on a slice within this share of the step between slices
_ON_PLANE = 0.1
_ON_SINGLE_PLANE_MM = 0.1

#: one contour: its type, and its points (x, y) in pixels
Contour = tuple[str, Points]


def read_structures(dataset: Dataset, grid: Grid | None, names: ClassNames) -> RawMask:
    """The regions of a structure set on the slices of `grid`, the one of its image.

    Flags: contours_overlap (two contours that are not XOR share pixels), contours_skip_slices (a
    slice between contours of a region has none), point_regions (regions of points only, which
    have no area, are left out), empty_regions.

    Raises AnnotationError: no_position (the image has none), contour_type (a region has an open
    contour, or every region has only points), contour_off_plane (a contour does not lie on a slice
    of the image), off_image (a contour lies outside the image), bad_contour (fewer than three
    points), duplicate_slices,
    too_many_segments, unknown_label.
    """
    if grid is None:
        raise AnnotationError(
            "The image has no position in the patient, so that contours cannot be placed on it.",
            code="no_position",
        )
    if len(grid.origins) > 1 and np.diff(grid.origins @ grid.normal).min() <= TOLERANCE_MM:
        raise AnnotationError(
            "The image has several slices at one position: which of them a contour is for is "
            "unknown.",
            code="duplicate_slices",
        )
    e = Elements(dataset)
    titles = {
        item.integer("ROINumber"): item.text("ROIName")
        for item in map(Elements, e.items("StructureSetROISequence"))
    }
    regions = [Elements(item) for item in e.items("ROIContourSequence")]
    if len(regions) > MAX_REGIONS:
        raise AnnotationError(
            f"The structure set has {len(regions)} regions; at most {MAX_REGIONS} are read.",
            code="too_many_segments",
        )
    flags: dict[str, None] = {}
    areas = [region for region in regions if _has_area(region, flags)]
    if regions and not areas and "point_regions" in flags:
        raise _contour_type("It has points only")
    labels = [_title(titles, region) for region in areas]
    classes = [names.of(label) for label in labels]
    label_map = LabelMap.empty(grid.shape, tuple(dict.fromkeys(filter(None, classes))))
    for region, name in zip(areas, classes, strict=True):
        if name:
            label_map = _with_region(label_map, region, name, grid, flags)
    return RawMask(label_map, grid, (None,) * len(grid.origins), sparse=True, flags=tuple(flags))


def _title(titles: dict[int | None, str], region: Elements) -> str:
    number = region.integer("ReferencedROINumber")
    return titles.get(number) or f"region {number}"


def _has_area(region: Elements, flags: dict[str, None]) -> bool:
    types = {
        Elements(item).code("ContourGeometricType") for item in region.items("ContourSequence")
    }
    if not types:
        flags["empty_regions"] = None
        return False
    if types == {"POINT"}:
        flags["point_regions"] = None
        return False
    if not types <= set(_FILLED):
        raise _contour_type("A region has an open contour or a point among its contours")
    return True


def _contour_type(what: str) -> AnnotationError:
    return AnnotationError(
        f"The structure set cannot be filled. {what}; CLOSED_PLANAR and CLOSEDPLANAR_XOR have an "
        f"area.",
        code="contour_type",
    )


def _with_region(
    label_map: LabelMap, region: Elements, name: str, grid: Grid, flags: dict[str, None]
) -> LabelMap:
    by_slice: dict[int, list[Contour]] = {}
    for item in map(Elements, region.items("ContourSequence")):
        number, points = _on_slice(item, grid)
        contour = (item.code("ContourGeometricType"), points)
        by_slice.setdefault(number, []).append(contour)
    span = max(by_slice) - min(by_slice) + 1
    if len(by_slice) < span:
        flags["contours_skip_slices"] = None
    for number, contours in by_slice.items():
        if _overlap(contours, grid):
            flags["contours_overlap"] = None
        mask = fill_polygons([points for _, points in contours], grid.rows, grid.columns)
        label_map = label_map.with_plane(name, mask, number)
    return label_map


def _on_slice(contour: Elements, grid: Grid) -> tuple[int, Points]:
    """The slice that a contour lies on, and its points (x, y) in pixels."""
    values = contour.numbers("ContourData") or ()
    if len(values) < 9 or len(values) % 3:
        raise AnnotationError(
            "A contour has fewer than three points, or points without three coordinates.",
            code="bad_contour",
        )
    points = np.asarray(values, np.float64).reshape(-1, 3)
    heights = points @ grid.normal
    planes = grid.origins @ grid.normal
    number = int(np.abs(planes - heights.mean()).argmin())
    tolerance = _ON_SINGLE_PLANE_MM
    if len(planes) > 1:
        tolerance = _ON_PLANE * float(np.diff(planes).min())
    off = float(np.abs(heights - planes[number]).max())
    if off > tolerance:
        is_outside = not planes.min() - tolerance <= heights.mean() <= planes.max() + tolerance
        raise AnnotationError(
            f"A contour lies {off:.3g} mm off the nearest slice of the image.",
            code="off_image" if is_outside else "contour_off_plane",
        )
    relative = points - grid.origins[number]
    axes = np.stack([grid.column_step, grid.row_step])
    pixels = relative @ axes.T / (axes**2).sum(axis=1)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    if (high < -0.5).any() or (low > np.array([grid.columns, grid.rows]) - 0.5).any():
        raise AnnotationError("A contour lies outside the image.", code="off_image")
    return number, pixels


def _overlap(contours: Sequence[Contour], grid: Grid) -> bool:
    plain = [points for kind, points in contours if kind != _XOR]
    if len(plain) < 2:
        return False
    filled = [fill_polygons([points], grid.rows, grid.columns) for points in plain]
    return bool((np.sum(filled, axis=0) > 1).any())

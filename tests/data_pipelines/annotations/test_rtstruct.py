"""Structure sets: contours in patient coordinates on the slices of an image."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code
from mask_writers import rtstruct_bytes

from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.label_map import ClassNames
from data_pipelines.annotations.raw_mask import RawMask
from data_pipelines.annotations.rtstruct import read_structures
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import AnnotationError

#: slices 3 mm apart, rows 2 mm and columns 1 mm, first pixel at (-4, 10, 30)
AFFINE = np.array([[0, 0, 1, -4], [0, 2, 0, 10], [3, 0, 0, 30], [0, 0, 0, 1]], np.float64)
GRID = Grid.from_affine(AFFINE, (5, 8, 9))
CLOSED, XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"


def contour(corners: list, number: float, kind: str = CLOSED) -> tuple[str, np.ndarray]:
    """A polygon of (column, row) on a slice, in LPS mm."""
    points = np.array([(number, row, column, 1) for column, row in corners])
    return kind, (points @ AFFINE.T)[:, :3]


def square(left: float, top: float, side: float) -> list:
    return [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]


def read(regions: dict, names: ClassNames | None = None, grid: Grid | None = GRID) -> RawMask:
    dataset = parse(rtstruct_bytes(regions), pixels=False).dataset
    return read_structures(dataset, grid, names or ClassNames())


def test_contours_fill_the_pixels_whose_centers_they_hold() -> None:
    raw = read({"organ": [contour(square(1.5, 2.5, 3), n) for n in (1, 2)]})
    expected = np.zeros((5, 8, 9), bool)
    expected[1:3, 3:6, 2:5] = True
    np.testing.assert_array_equal(raw.label_map.plane("organ"), expected)
    assert raw.flags == ()


def test_contours_on_one_plane_are_combined_by_xor() -> None:
    outer, inner = square(0.5, 0.5, 6), square(2.5, 2.5, 2)
    for kind, flags in ((CLOSED, ("contours_overlap",)), (XOR, ())):
        raw = read({"ring": [contour(outer, 2, kind), contour(inner, 2, kind)]})
        plane = raw.label_map.plane("ring")[2]
        assert plane.sum() == 36 - 4
        assert not plane[3:5, 3:5].any()
        assert raw.flags == flags


def test_a_keyhole_is_a_hole() -> None:
    keyhole = [(0.5, 3), (0.5, 0.5), (6.5, 0.5), (6.5, 6.5), (0.5, 6.5), (0.5, 3), (2.5, 3)]
    keyhole += [(2.5, 4.5), (4.5, 4.5), (4.5, 2.5), (2.5, 2.5), (2.5, 3)]
    raw = read({"ring": [contour(keyhole, 2)]})
    assert raw.label_map.plane("ring").sum() == 36 - 4


def test_skipped_slices_are_flagged_and_stay_empty() -> None:
    raw = read({"organ": [contour(square(1.5, 1.5, 2), n) for n in (0, 2, 4)]})
    per_slice = raw.label_map.plane("organ").sum(axis=(1, 2))
    assert per_slice.tolist() == [4, 0, 4, 0, 4]
    assert raw.flags == ("contours_skip_slices",)


def test_regions_may_overlap_and_points_are_left_out() -> None:
    raw = read(
        {
            "a": [contour(square(0.5, 0.5, 4), 1)],
            "b": [contour(square(2.5, 2.5, 4), 1)],
            "isocenter": [("POINT", np.array([[0.0, 0, 0]]))],
            "nothing": [],
        }
    )
    assert raw.label_map.overlap_voxels == 4
    assert set(raw.flags) == {"point_regions", "empty_regions"}
    assert raw.label_map.classes == ("a", "b")


@pytest.mark.parametrize(
    ("contours", "code"),
    [
        ([("OPEN_PLANAR", contour(square(1, 1, 2), 1)[1])], "contour_type"),
        ([("POINT", np.zeros((1, 3)))], "contour_type"),
        ([contour(square(1, 1, 2), 1.4)], "contour_off_plane"),
        ([contour(square(1, 1, 2), 9)], "off_image"),
        ([contour(square(100, 1, 2), 1)], "off_image"),
        ([contour([(1, 1), (2, 2)], 1)], "bad_contour"),
    ],
)
def test_contours_that_cannot_be_filled(contours: list, code: str) -> None:
    with raises_code(AnnotationError, code):
        read({"organ": contours})


def test_a_tilted_contour_is_refused() -> None:
    kind, points = contour(square(1, 1, 4), 1)
    points[0, 2] += 1.5
    with raises_code(AnnotationError, "contour_off_plane"):
        read({"organ": [(kind, points)]})


def test_an_image_without_a_position_has_no_contours() -> None:
    with raises_code(AnnotationError, "no_position"):
        read({"organ": [contour(square(1, 1, 2), 1)]}, grid=None)


def test_names_choose_regions() -> None:
    regions = {"Liver": [contour(square(0.5, 0.5, 2), 1)], "skin": [contour(square(0, 0, 7), 1)]}
    raw = read(regions, ClassNames({"Liver": "liver", "*": ""}))
    assert raw.label_map.classes == ("liver",)
    assert raw.label_map.counts() == {"liver": 4}


def test_contours_side_by_side_do_not_overlap_and_the_rest_is_background() -> None:
    raw = read({"organ": [contour(square(0.5, 0.5, 2), 2), contour(square(4.5, 0.5, 2), 2)]})
    assert raw.label_map.plane("organ").sum() == 8
    assert (raw.flags, raw.sparse) == ((), True)


@pytest.mark.parametrize(("left", "top"), [(8.6, 3), (3, 7.6), (-2.6, 3), (3, -2.6)])
def test_a_contour_beyond_an_edge_of_the_image_is_refused(left: float, top: float) -> None:
    with raises_code(AnnotationError, "off_image"):
        read({"organ": [contour(square(left, top, 2), 2)]})
    inward = [left - np.sign(left - 3) * 0.2, top - np.sign(top - 3) * 0.2]  # reaches a pixel
    assert read({"organ": [contour(square(*inward, 2), 2)]}).flags == ()

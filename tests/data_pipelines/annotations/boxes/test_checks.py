"""Which boxes of an image can be used, and why the others cannot."""

from __future__ import annotations

import pytest

from data_pipelines.annotations.boxes.checks import MAX_BOXES, checked_boxes, rejection_of
from data_pipelines.annotations.boxes.readers.raw_boxes import RawBox
from data_pipelines.annotations.label_map import ClassNames

SIZE = (10, 20)  # rows, columns


def box(*edges: float, name: str = "cyst", **fields: object) -> RawBox:
    return RawBox("b", name, edges, **fields)


def check(*boxes: RawBox, names: dict | None = None, relative: bool = False):
    return checked_boxes(boxes, SIZE, ClassNames(names or {}), relative=relative)


@pytest.mark.parametrize(
    ("edges", "code", "rejection"),
    [
        ((3, 2, 6, 4), "", ""),
        ((0, 0, 20, 10), "", ""),
        ((3, 2, 3, 4), "zero_area", "no_box_left"),
        ((6, 2, 3, 4), "reversed_corners", "reversed_corners"),
        ((3, 4, 6, 2), "reversed_corners", "reversed_corners"),
        ((20, 2, 25, 4), "off_image", "no_box_left"),
        ((3, -9, 6, 0), "off_image", "no_box_left"),
    ],
)
def test_each_fault_has_its_code(edges: tuple, code: str, rejection: str) -> None:
    checked = check(box(*edges))
    assert [b.code for b in checked] == [code]
    assert rejection_of(checked) == rejection
    # beside a right box, only an object of an unknown place costs the image
    both = check(box(*edges), box(1, 1, 2, 2))
    assert rejection_of(both) == ("reversed_corners" if code == "reversed_corners" else "")


def test_a_box_that_reaches_out_is_clipped_and_flagged() -> None:
    cut, rounded = check(box(-4, 2, 25, 12), box(-0.001, 0, 20.002, 9))
    assert (cut.edges, cut.code, cut.flags) == ((0, 2, 20, 10), "", ("clipped",))
    assert (rounded.edges, rounded.flags) == ((0, 0, 20, 9), ())


def test_shares_become_pixels_of_the_image() -> None:
    (one,) = check(box(0.15, 0.2, 0.3, 0.4), relative=True)
    assert one.edges == pytest.approx((3, 2, 6, 4))


def test_duplicates_are_boxes_of_one_class_and_reader() -> None:
    first = box(3, 2, 6, 4)
    others = [
        box(3, 2, 6, 4),
        box(3, 2, 6, 4, name="mass"),
        box(3, 2, 6, 4, reader="B"),
        box(3, 2, 6, 4, ignore=True),
        box(3, 2, 6, 5),
    ]
    checked = check(first, *others)
    assert [b.code for b in checked] == ["", "duplicate_box", "", "", "", ""]
    assert rejection_of(checked) == ""


def test_classes_are_renamed_left_out_or_unknown() -> None:
    names = {"0": "car", "1": ""}
    checked = check(*(box(n, 0, n + 1, 1, name=str(n)) for n in range(3)), names=names)
    assert [(b.class_name, b.code) for b in checked] == [
        ("car", ""),
        ("", "class_left_out"),
        ("2", "unknown_class"),
    ]
    assert rejection_of(checked) == "unknown_class"
    assert rejection_of(checked[1:2]) == ""  # nothing of interest is there: a real negative


def test_too_many_boxes_are_refused() -> None:
    many = [box(n / MAX_BOXES, 0, n / MAX_BOXES + 1, 1) for n in range(MAX_BOXES)]
    assert rejection_of(check(*many)) == ""
    checked = check(*many, box(3, 2, 6, 4))
    assert {b.code for b in checked} == {"too_many_boxes"}
    assert rejection_of(checked) == "too_many_boxes"

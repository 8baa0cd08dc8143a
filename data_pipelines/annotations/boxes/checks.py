"""Which boxes of an image can be used, in its pixels; and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_pipelines.annotations.boxes.edge_boxes import Edges
from data_pipelines.annotations.boxes.readers.raw_boxes import RawBox
from data_pipelines.annotations.label_map import ClassNames
from data_pipelines.errors import AnnotationError

#: more boxes than any image of a person's annotations has; above it the image is rejected
MAX_BOXES = 2000
#: what lies further outside than this, in pixels, is not a rounding error
_ROUNDING = 0.01
#: such a box is no object: the image stays annotated without it. After all other codes an object
#: is there whose place or class is unknown, and the image is rejected.
NO_OBJECT = ("zero_area", "off_image", "duplicate_box", "class_left_out")
CLASS_LEFT_OUT = "class_left_out"
MESSAGES = {
    "bad_number": "The box has no four finite numbers, or its score or ignore is no number.",
    "no_class": "The box has no class.",
    "unknown_class": "The class of the box is none of the known ones.",
    "class_left_out": "box_classes leaves this class out.",
    "reversed_corners": "A high corner lies before the low one, or a size is negative.",
    "zero_area": "The box has no area.",
    "off_image": "The box lies outside of the image.",
    "duplicate_box": "The image has the same box of the same class twice.",
    "not_normalized": "The values are no shares of the image from 0 to 1.",
    "region_type": "The region is a point, an open line or another shape without an area.",
    "region_not_in_image": "The region is not in the pixels of one image.",
    "too_many_boxes": f"The image has more than {MAX_BOXES} boxes.",
    "no_box_left": "None of the boxes of the image is inside of it and has an area.",
    "other_box_rejected": "Another box of the image was rejected.",
}


@dataclass
class CheckedBox:
    """edges: in pixels of the image, clipped to it. code: '' where the box can be used."""

    raw: RawBox
    class_name: str
    edges: Edges
    code: str = ""
    flags: tuple[str, ...] = ()


def checked_boxes(
    boxes: Sequence[RawBox], size: tuple[int, int], names: ClassNames, *, relative: bool
) -> list[CheckedBox]:
    """The boxes of one image, each with its code. size: (rows, columns). relative: the edges are
    shares of the size. names: label -> class, see ClassNames.
    """
    checked: list[CheckedBox] = []
    present = set()
    for raw in boxes:
        box = _checked(raw, size, names, relative)
        identity = (box.class_name, box.edges, raw.reader, raw.ignore)
        if not box.code and identity in present:
            box.code = "duplicate_box"
        present.add(identity)
        checked.append(box)
    if len(checked) > MAX_BOXES:
        for box in checked:
            box.code = "too_many_boxes"
    return checked


def rejection_of(boxes: Sequence[CheckedBox]) -> str:
    """Why the whole image is rejected, '' where it is annotated: also one box of an unknown place
    or class is an object that would be taken for background. An image that loses all of its boxes
    outside of it, or without area, is no proof that nothing is there (no_box_left).
    """
    code = next((box.code for box in boxes if box.code and box.code not in NO_OBJECT), "")
    lost = [box for box in boxes if box.code in ("zero_area", "off_image")]
    is_empty = lost and not any(box.code in ("", CLASS_LEFT_OUT) for box in boxes)
    return code or ("no_box_left" if is_empty else "")


def _checked(raw: RawBox, size: tuple[int, int], names: ClassNames, relative: bool) -> CheckedBox:
    rows, columns = size
    x_min, y_min, x_max, y_max = raw.edges
    if relative:
        x_min, x_max, y_min, y_max = x_min * columns, x_max * columns, y_min * rows, y_max * rows
    box = CheckedBox(raw, raw.class_name, (x_min, y_min, x_max, y_max), raw.code, raw.flags)
    if box.code:
        return box
    try:
        box.class_name = names.of(raw.class_name)
    except AnnotationError:
        box.code = "unknown_class"
        return box
    clipped = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, columns), min(y_max, rows))
    box.code = CLASS_LEFT_OUT if not box.class_name else _code(box.edges, clipped)
    if not box.code:
        cut = max(abs(a - b) for a, b in zip(box.edges, clipped, strict=True))
        box.flags += ("clipped",) if cut > _ROUNDING else ()
        box.edges = clipped
    return box


def _code(edges: Edges, clipped: Edges) -> str:
    x_min, y_min, x_max, y_max = edges
    if x_max < x_min or y_max < y_min:
        return "reversed_corners"
    if x_max == x_min or y_max == y_min:
        return "zero_area"
    return "off_image" if clipped[2] <= clipped[0] or clipped[3] <= clipped[1] else ""

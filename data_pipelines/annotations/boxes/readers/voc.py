"""Pascal VOC XML: one file per image, which was assessed, also without an object.

`bndbox` has the numbers of the first and the last pixel, counted from 1 (VOC devkit: "pixel
coordinates start at 1"), so that edges are xmin - 1, ymin - 1, xmax, ymax. A box whose corners are
equal is a click by mistake, no object of one pixel: zero_area. `difficult` objects are ignore
regions, as the VOC evaluation treats them.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from xml.etree import ElementTree

from data_pipelines.annotations.boxes.edge_boxes import Edges, edges_from_inclusive
from data_pipelines.annotations.boxes.readers.raw_boxes import (
    NAME,
    NO_EDGES,
    ListedImage,
    RawBox,
    are_numbers,
    number_of,
    size_of,
)
from data_pipelines.errors import AnnotationError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(data: bytes, name: str) -> list[ListedImage] | None:
    """The image of a VOC file; None where the XML is something else. name: path below BOXES.

    Raises AnnotationError (bad_xml): it is not well-formed, or declares entities.
    """
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise AnnotationError("The XML declares entities, which are not read.", code="bad_xml")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise AnnotationError("The file is no well-formed XML.", code="bad_xml") from None
    if root.tag != "annotation":
        return None
    file_name = (root.findtext("filename") or "").strip().replace("\\", "/")
    names = (str(PurePosixPath(name).with_suffix("")), *filter(None, [file_name]))
    objects = enumerate(root.findall("object"), start=1)
    boxes = tuple(_box(each, f"{name} object {number}") for number, each in objects)
    size = size_of(root.findtext("size/height"), root.findtext("size/width"))
    return [ListedImage(name, NAME, names, boxes, size=size)]


def _box(each: ElementTree.Element, name: str) -> RawBox:
    class_name = (each.findtext("name") or "").strip()
    a, b, c, d = (number_of(each.findtext(f"bndbox/{corner}")) for corner in _CORNERS)
    is_number = are_numbers((a, b, c, d))
    edges: Edges = edges_from_inclusive(a, b, c, d) if is_number else NO_EDGES
    is_difficult = (each.findtext("difficult") or "").strip() == "1"
    is_truncated = (each.findtext("truncated") or "").strip() == "1"
    flags = [n for n, on in (("difficult", is_difficult), ("truncated", is_truncated)) if on]
    code = "" if class_name else "no_class"
    code = (code or _code(a, b, c, d)) if is_number else "bad_number"
    return RawBox(
        name,
        class_name,
        edges,
        ignore=is_difficult,
        flags=tuple(flags),
        code=code,
    )


def _code(x_min: float, y_min: float, x_max: float, y_max: float) -> str:
    if x_max < x_min or y_max < y_min:
        return "reversed_corners"
    return "zero_area" if x_max == x_min or y_max == y_min else ""

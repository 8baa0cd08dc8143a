"""DICOM SR: the planar image regions (TID 1410) of an imaging measurement report (TID 1500).

A measurement group (125007) has a Finding (121071), which is the class, and Image Regions (111030):
an SCOORD that was selected from an image. Its coordinates are edges: 0\\0 is the outer corner of
the first pixel (PS3.3 C.18.6), so that nothing is shifted. The images that the content names, in
the image library or by a region, were assessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.dataset import Dataset

from data_pipelines.annotations.boxes.edge_boxes import Edges, edges_from_points
from data_pipelines.annotations.boxes.readers.raw_boxes import (
    NO_EDGES,
    ListedImage,
    RawBox,
    are_numbers,
)
from data_pipelines.annotations.raw_mask import Identity
from data_pipelines.dicom.elements import Elements
from data_pipelines.errors import AnnotationError

#: Enhanced, Comprehensive, Comprehensive 3D and Extensible SR (PS3.4 B.5)
REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (22, 33, 34, 35))
_GROUP, _FINDING, _REGION = "125007", "121071", "111030"
_MAX_DEPTH = 32


class _Reference(NamedTuple):
    """An image, and its frame from 0 on; None where the report names no frame."""

    uid: str
    frame: int | None


def read_report(dataset: Dataset, name: str) -> list[ListedImage]:
    """The images that a report names, with a box around each region. name: of the file. Where a
    region refers to no image (SCOORD3D for instance), none of them can be used.

    Raises AnnotationError (no_reference): the content names no image.
    """
    root = Elements(dataset)
    boxes: dict[_Reference, list[RawBox]] = {
        reference: [] for item in _below(dataset) for reference in _references(item)
    }
    lost = False
    groups = (item for item in _below(dataset) if _concept(item) == _GROUP)
    for number, group in enumerate(groups, start=1):
        for region in (item for item in _below(group) if _concept(item) == _REGION):
            box = _box(region, _finding(group), f"{name} group {number}")
            references = set(_references_below(region))
            lost = lost or not references
            for reference in references:
                boxes[reference].append(box)
    if not boxes:
        raise AnnotationError("The report names no image.", code="no_reference")
    identity = Identity(root.text("PatientID"), root.text("IssuerOfPatientID"))
    listed = [
        ListedImage(
            name,
            "sop_instance_uid",
            (reference.uid,),
            tuple(found),
            reference.frame,
            identity=identity,
        )
        for reference, found in boxes.items()
        if reference.frame is not None or found or not _has_frames(reference.uid, boxes)
    ]
    text = "A region of the report lies in no image that it names."
    return [each.refused("region_not_in_image", text) if lost else each for each in listed]


def _has_frames(uid: str, boxes: dict[_Reference, list[RawBox]]) -> bool:
    """Whether other entries name frames of the image."""
    return any(other.uid == uid and other.frame is not None for other in boxes)


def _below(item: Dataset, depth: int = 0) -> Iterator[Dataset]:
    """All content items below one."""
    if depth < _MAX_DEPTH:
        for child in Elements(item).items("ContentSequence"):
            yield child
            yield from _below(child, depth + 1)


def _concept(item: Dataset) -> str:
    concept = Elements(item).item("ConceptNameCodeSequence")
    return "" if concept is None else Elements(concept).text("CodeValue")


def _finding(group: Dataset) -> str:
    for item in Elements(group).items("ContentSequence"):
        if _concept(item) == _FINDING:
            code = Elements(item).item("ConceptCodeSequence")
            return "" if code is None else Elements(code).text("CodeMeaning")
    return ""


def _references(item: Dataset) -> Iterator[_Reference]:
    """The images that a content item itself refers to."""
    if Elements(item).code("ValueType") != "IMAGE":
        return
    for sop in Elements(item).items("ReferencedSOPSequence"):
        e = Elements(sop)
        uid = e.text("ReferencedSOPInstanceUID")
        for frame in e.numbers("ReferencedFrameNumber") or (None,):
            if uid:
                yield _Reference(uid, None if frame is None else int(frame) - 1)


def _references_below(region: Dataset) -> Iterator[_Reference]:
    for item in _below(region):
        yield from _references(item)


def _box(region: Dataset, class_name: str, name: str) -> RawBox:
    e = Elements(region)
    if e.code("ValueType") != "SCOORD" or e.code("PixelOriginInterpretation") == "VOLUME":
        return RawBox(name, class_name, NO_EDGES, code="region_not_in_image")
    numbers = e.numbers("GraphicData") or ()
    points = list(zip(numbers[::2], numbers[1::2], strict=False))
    edges = _edges(e.code("GraphicType"), points)
    if edges is None:
        return RawBox(name, class_name, NO_EDGES, code="region_type")
    code = "" if class_name else "no_class"
    return RawBox(name, class_name, edges, code=code if are_numbers(edges) else "bad_number")


def _edges(graphic: str, points: list[tuple[float, float]]) -> Edges | None:
    """The box around a region; None for points and for what has another number of points."""
    if graphic in ("POLYLINE", "POLYGON") and len(points) >= 3:
        return edges_from_points(points)
    if graphic == "CIRCLE" and len(points) == 2:
        (x, y), edge = points[0], points[1]
        radius = math.dist(points[0], edge)
        return x - radius, y - radius, x + radius, y + radius
    if graphic == "ELLIPSE" and len(points) == 4:
        return _around_ellipse(points)
    return None


def _around_ellipse(points: list[tuple[float, float]]) -> Edges:
    """points: both ends of the major axis, then both of the minor axis. The half width of a turned
    ellipse is the root of the sum of the squares of the half widths of its axes.
    """
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = points
    x, y = (ax + bx) / 2, (ay + by) / 2
    half_width = math.hypot((bx - ax) / 2, (dx - cx) / 2)
    half_height = math.hypot((by - ay) / 2, (dy - cy) / 2)
    return x - half_width, y - half_height, x + half_width, y + half_height

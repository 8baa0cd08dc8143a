"""COCO JSON: `images`, `annotations` with `bbox` [x, y, width, height] in edges from 0 on, and
`categories`. Every image in `images` was assessed. `iscrowd` and `ignore` mark ignore regions.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from data_pipelines.annotations.boxes.edge_boxes import edges_from_xywh
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


def read_coco(data: bytes, name: str) -> list[ListedImage] | None:
    """The images of a COCO file; None where the JSON is something else. name: of the file.

    An image whose id another image has too is refused (duplicate_image_id): whose boxes these are
    is unknown. Raises AnnotationError (bad_json).
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise AnnotationError("The file is no well-formed JSON.", code="bad_json") from None
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return None
    names = {
        _id(each.get("id")): str(each.get("name", "")) for each in _dicts(content, "categories")
    }
    boxes: dict[str, list[RawBox]] = defaultdict(list)
    for number, each in enumerate(_dicts(content, "annotations")):
        boxes[_id(each.get("image_id"))].append(_box(each, f"{name} annotation {number}", names))
    images = _dicts(content, "images")
    counts = Counter(_id(image.get("id")) for image in images)
    listed = []
    for image in images:
        key = _id(image.get("id"))
        entry = ListedImage(
            name,
            NAME,
            (str(image.get("file_name", "")),),
            tuple(boxes.get(key, ())) if counts[key] == 1 else (),
            size=size_of(image.get("height"), image.get("width")),
        )
        if counts[key] > 1:
            text = f"{counts[key]} images of the file have the same id."
            entry = entry.refused("duplicate_image_id", text)
        listed.append(entry)
    return [*listed, *_left_over(name, boxes, counts)]


def _left_over(
    name: str, boxes: dict[str, list[RawBox]], counts: Counter[str]
) -> list[ListedImage]:
    """The boxes that are not those of one image."""
    entries = []
    for key, several in boxes.items():
        if counts[key] != 1:
            code = "duplicate_image_id" if counts[key] else "image_unlisted"
            text = "The image_id of the box is that of no image, or of several."
            entries.append(ListedImage(name, NAME, (), tuple(several), code=code, message=text))
    return entries


def _box(each: dict[str, Any], name: str, names: dict[str, str]) -> RawBox:
    category = _id(each.get("category_id"))
    values = each.get("bbox")
    numbers = [number_of(v) for v in values] if isinstance(values, list) else []
    is_bad = len(numbers) != 4 or not are_numbers(numbers)
    code = "bad_number" if is_bad else "" if names.get(category) else "unknown_class"
    return RawBox(
        name,
        names.get(category, ""),
        NO_EDGES if is_bad else edges_from_xywh(*numbers),
        number_of(each.get("score")),
        ignore=bool(each.get("iscrowd") or each.get("ignore")),
        flags=("crowd",) if each.get("iscrowd") else (),
        code=code,
    )


def _dicts(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = content.get(key)
    return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []


def _id(value: object) -> str:
    """An id as text: JSON has numbers and strings, and 1 is not "1"."""
    return json.dumps(value, default=str)

"""COCO JSON: `images`, `annotations` with `bbox` [x, y, width, height] in edges from 0 on, and
`categories`. Every image in `images` was assessed. `iscrowd` and `ignore` mark ignore regions.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
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

    A box belongs to the image whose id it has; where no single image has that id, to the one whose
    file name is the file_name of the box, or its image_id. Images of one id are refused
    (duplicate_image_id) where a box has only that id: whose it is remains unknown. An id that is a
    text is another name of its image, the first one where several images have the same file_name.
    Raises AnnotationError (bad_json).
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
    images = _dicts(content, "images")
    ids = Counter(_id(image.get("id")) for image in images)
    by_id = _single(enumerate(_id(image.get("id")) for image in images))
    by_name = _single((n, name) for n, image in enumerate(images) for name in _file_names(image))
    boxes: dict[int, list[RawBox]] = defaultdict(list)
    left: dict[str, list[RawBox]] = defaultdict(list)
    for number, each in enumerate(_dicts(content, "annotations")):
        box = _box(each, f"{name} annotation {number}", names)
        key = _id(each.get("image_id"))
        owner = by_id.get(key, by_name.get(str(each.get("file_name"))))
        if owner is None and not ids[key]:
            owner = by_name.get(each["image_id"]) if isinstance(each.get("image_id"), str) else None
        if owner is None:
            left[key].append(box)
        else:
            boxes[owner].append(box)
    file_names = Counter(image.get("file_name") for image in images)
    listed = []
    for n, image in enumerate(images):
        key = _id(image.get("id"))
        entry = ListedImage(
            name,
            NAME,
            _names(image, is_repeated=file_names[image.get("file_name")] > 1),
            tuple(boxes[n]),
            size=size_of(image.get("height"), image.get("width")),
        )
        if ids[key] > 1 and key in left:
            text = f"{ids[key]} images of the file have the same id."
            entry = replace(entry, boxes=()).refused("duplicate_image_id", text)
        listed.append(entry)
    return [*listed, *_left_over(name, left, ids)]


def _single(names: Iterable[tuple[int, str]]) -> dict[str, int]:
    """Name -> the position of its image, without the names that several images have."""
    positions: dict[str, list[int]] = defaultdict(list)
    for n, name in names:
        positions[name].append(n)
    return {name: several[0] for name, several in positions.items() if len(several) == 1}


def _file_names(image: dict[str, Any]) -> set[str]:
    """The file name of an image with and without its extension."""
    name = str(image.get("file_name") or "")
    return {name, str(PurePosixPath(name).with_suffix(""))} if name else set()


def _names(image: dict[str, Any], *, is_repeated: bool) -> tuple[str, ...]:
    """The names by which an image is looked for, in this order."""
    names = [str(image.get("file_name") or "")]
    key = image.get("id")
    if isinstance(key, str) and key:
        names.insert(0 if is_repeated else 1, key)
    return tuple(names)


def _left_over(name: str, left: dict[str, list[RawBox]], ids: Counter[str]) -> list[ListedImage]:
    """The boxes that are not those of one image."""
    entries = []
    for key, several in left.items():
        code = "duplicate_image_id" if ids[key] else "image_unlisted"
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

"""YOLO text: one .txt per image, with a line `class x y width height [score]` per object, in shares
of the image; or `class x1 y1 x2 y2 x3 y3 ...`, a polygon. An empty file is an image that was
assessed; an image without a file was not.

The classes are numbers from 0 on. Their names are the lines of classes.txt, labels.txt, obj.names
or another .names file, or `names` of data.yaml, in the folder or beside it.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from data_pipelines.annotations.boxes.edge_boxes import edges_from_center, edges_from_points
from data_pipelines.annotations.boxes.readers.raw_boxes import (
    NAME,
    NO_EDGES,
    ListedImage,
    RawBox,
    are_numbers,
    number_of,
)

NAMES_FILES = ("classes.txt", "labels.txt", "obj.names", "data.yaml", "dataset.yaml")
_TOLERANCE = 1e-3  # values are rounded; shares end at 1
_YAML_ITEM = re.compile(r"^\s*(?:-|\d+\s*:)\s*(.+?)\s*$")
_LARGEST = 1 << 20


def read_yolo(data: bytes, name: str) -> list[ListedImage] | None:
    """The image of a YOLO file; None where a line has no class and box: it is another text."""
    try:
        lines = [line.split() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        return None
    if any(len(words) < 5 or not words[0].isdecimal() for words in lines):
        return None
    boxes = tuple(
        _box(words, f"{name} line {number}") for number, words in enumerate(lines, start=1)
    )
    stem = PurePosixPath(name).with_suffix("")
    parts = [part if part != "labels" else "images" for part in stem.parts]
    names = dict.fromkeys((str(stem), str(PurePosixPath(*parts))))
    return [ListedImage(name, NAME, tuple(names), boxes, relative=True)]


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the classes in a folder, or else in the folder that holds it; () without any."""
    for place in (folder, folder.parent):
        named = sorted(path.name for path in place.glob("*.names"))
        for name in (*NAMES_FILES, *named):
            path = place / name
            if path.is_file() and path.stat().st_size <= _LARGEST:
                names = _names_in(path)
                if names:
                    return names
    return ()


def _names_in(path: Path) -> tuple[str, ...]:
    text = path.read_text("utf-8", errors="replace")
    if path.suffix != ".yaml":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    _, found, rest = ("\n" + text).partition("\nnames:")
    if not found:
        return ()
    first, *lines = rest.splitlines() or [""]
    if first.strip().startswith("["):
        inside = rest[rest.index("[") + 1 :].partition("]")[0]
        return tuple(part.strip().strip("'\"") for part in inside.split(",") if part.strip())
    names = []
    for line in lines:
        match = _YAML_ITEM.match(line)
        if not match:
            break
        names.append(match[1].strip("'\""))
    return tuple(names)


def _box(words: list[str], name: str) -> RawBox:
    numbers = [number_of(word) for word in words[1:]]
    is_polygon = len(numbers) >= 6 and len(numbers) % 2 == 0
    if not are_numbers(numbers) or not (is_polygon or len(numbers) in (4, 5)):
        return RawBox(name, words[0], NO_EDGES, code="bad_number")
    shares = numbers if is_polygon else numbers[:4]
    if max(shares) > 1 + _TOLERANCE or min(shares) < -_TOLERANCE:
        return RawBox(name, words[0], NO_EDGES, code="not_normalized")
    if is_polygon:
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        return RawBox(name, words[0], edges_from_points(points))
    score = numbers[4] if len(numbers) == 5 else float("nan")
    return RawBox(name, words[0], edges_from_center(*numbers[:4]), score)

"""What a reader of boxes returns: the images that a file lists, with the boxes of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from data_pipelines.annotations.boxes.edge_boxes import Edges
from data_pipelines.annotations.raw_mask import Identity

BoxFormat = Literal["table", "coco", "voc", "yolo", "masks", "report"]
#: how an image is named: by a key of the labels table, or by a name that is part of its path
NAME = "name"
NO_NUMBER = math.nan
NO_EDGES: Edges = (NO_NUMBER,) * 4


class RawBox(NamedTuple):
    """One box as its file has it, converted to edges.

    name: of the row or object, for the report. score: NaN without one. ignore: a crowd or another
    region that is neither object nor background. code: why it cannot be used, as far as the file
    alone tells.
    """

    name: str
    class_name: str
    edges: Edges
    score: float = NO_NUMBER
    reader: str = ""
    ignore: bool = False
    flags: tuple[str, ...] = ()
    code: str = ""


@dataclass(frozen=True)
class ListedImage:
    """An image that somebody assessed, and what was found in it.

    name: of the file or row that lists it, for the report. key: a key of the labels table, or NAME.
    values: of the key; of a NAME, in the order in which they are tried. frame: of the DICOM file,
    from 0 on. size: (rows, columns) that the file gives. relative: edges are shares of the size,
    and not pixels. code, message: why none of it can be used. identity: of a DICOM object.
    """

    name: str
    key: str
    values: tuple[str, ...] = field(repr=False)
    boxes: tuple[RawBox, ...] = field(default=(), repr=False)
    frame: int | None = None
    size: tuple[int, int] | None = None
    relative: bool = False
    code: str = ""
    message: str = ""
    identity: Identity = field(default_factory=Identity, repr=False)

    def refused(self, code: str, message: str) -> ListedImage:
        """The same, of which nothing can be used."""
        return replace(self, code=code, message=message)


def number_of(value: object) -> float:
    """A finite number, else NaN.

    >>> number_of(" 2.5"), number_of("1e999"), number_of(None), number_of(True)
    (2.5, nan, nan, nan)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return NO_NUMBER
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return NO_NUMBER
    return number if math.isfinite(number) else NO_NUMBER


def are_numbers(values: Sequence[float]) -> bool:
    """Whether all of them are finite."""
    return all(map(math.isfinite, values))


def size_of(rows: object, columns: object) -> tuple[int, int] | None:
    """A size that a file gives; None where it is absent or zero, as some tools write it."""
    numbers = number_of(rows), number_of(columns)
    if not are_numbers(numbers) or min(numbers) < 1:
        return None
    return int(numbers[0]), int(numbers[1])

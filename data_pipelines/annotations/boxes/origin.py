"""Boxes that were counted from another origin, or in another unit, than their format says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from data_pipelines.annotations.boxes.finding import FoundBoxes
from data_pipelines.annotations.boxes.outcome import ImageBoxes
from data_pipelines.annotations.boxes.readers.raw_boxes import ListedImage, are_numbers
from data_pipelines.errors import InputError


def require_pixels(listed: Sequence[ListedImage]) -> None:
    """Raise InputError (normalized_boxes) where all boxes that should be in pixels lie within 0
    to 1: they are shares of the image.
    """
    boxes = [b for image in listed if not image.relative for b in image.boxes]
    edges = [box.edges for box in boxes if are_numbers(box.edges)]
    if edges and all(0 <= value <= 1 for four in edges for value in four):
        raise InputError(
            f"All {len(edges)} boxes lie between 0 and 1: they seem to be shares of the image, and "
            f"pixels are needed. Multiply x by the columns and y by the rows of each image.",
            code="normalized_boxes",
        )


def origin_warnings(
    found: FoundBoxes, result: Mapping[int, ImageBoxes], images: pd.DataFrame
) -> list[str]:
    """Warnings where the boxes of a cohort show that pixels were counted from another number."""
    if found.file_format in ("masks", "yolo", "report"):
        return []
    starts, beyond = [], 0
    for n, (x_min, y_min, x_max, y_max) in _edges(result):
        starts += [x_min, y_min]
        beyond += x_max == images["cols"].iloc[n] + 1 or y_max == images["rows"].iloc[n] + 1
    if found.file_format == "voc":
        zeros = sum(start == -1 for start in starts)
        return [
            f"{zeros} corners of the Pascal VOC files are 0, and VOC counts pixels from 1: the "
            f"tool that wrote them may have counted from 0, and all boxes then are one pixel too "
            f"far to the left and top"
        ] * bool(zeros)
    warnings = []
    if starts and min(starts) == 1:
        warnings.append(
            "no box starts at 0, and some start at 1: the pixels may have been counted from 1. "
            "Edges are counted from 0; subtract 1 from x_min and y_min (and from x_max and y_max, "
            "unless they name the last pixel of the box)"
        )
    if beyond:
        warnings.append(
            f"{beyond} boxes end one pixel beyond their image: the pixels may have been counted "
            f"from 1. Edges are counted from 0"
        )
    return warnings


def _edges(result: Mapping[int, ImageBoxes]) -> Iterator[tuple[int, tuple[float, ...]]]:
    """The position of the image and the edges as given, for every box with four numbers."""
    for n, each in result.items():
        for entry in each.entries:
            for box in entry.boxes:
                if are_numbers(box.edges):
                    yield n, box.edges

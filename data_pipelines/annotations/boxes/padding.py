"""Boxes as an array of a fixed number of lines, as batches of images need it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_pipelines.annotations.boxes.edge_boxes import EdgeBoxes

PADDING, IGNORED = -1, -2  # classes of lines that are no object


def padded_boxes(boxes: EdgeBoxes, most: int) -> NDArray[np.float32]:
    """float32 (most, 5): x_min, y_min, x_max, y_max and the class; its number is IGNORED for a
    region to ignore, and all numbers of a line without a box are PADDING.

    >>> padded_boxes(EdgeBoxes.of([(3, 2, 6, 4)], [0], ("cyst",), (10, 20)), 2).tolist()
    [[3.0, 2.0, 6.0, 4.0, 0.0], [-1.0, -1.0, -1.0, -1.0, -1.0]]
    """
    lines = np.full((most, 5), PADDING, np.float32)
    lines[: len(boxes), :4] = boxes.edges
    lines[: len(boxes), 4] = np.where(boxes.ignore, IGNORED, boxes.labels)
    return lines

"""Boxes as edges: readers of tables, COCO, Pascal VOC, YOLO, DICOM SR and masks, the match with
images, the checks, and the files of a WORK folder.

`joining` takes the steps: match, check, write. `prepare_boxes` then takes the boxes of an image to
the pixels of a preset, in step with the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.annotations.boxes.edge_boxes import EdgeBoxes
    from data_pipelines.annotations.boxes.preparation import boxes_to_original, prepare_boxes
    from data_pipelines.annotations.boxes.store import read_boxes

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.annotations.boxes.edge_boxes": "EdgeBoxes",
        "data_pipelines.annotations.boxes.preparation": "boxes_to_original prepare_boxes",
        "data_pipelines.annotations.boxes.store": "read_boxes",
    },
)

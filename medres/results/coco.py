"""Boxes of a result as COCO results, which `medres evaluate --boxes` and pycocotools read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medres.errors import ResultError
from medres.results.result import BoxLike

Frame = tuple[str, int]


def coco_results(
    boxes: Sequence[BoxLike],
    image_ids: Mapping[Frame, int | str],
    category_ids: Mapping[str, int],
) -> list[dict[str, Any]]:
    """The list of a COCO results file: image_id, category_id, bbox (x, y, width, height, in pixels
    of the original image, 0 at the outer edge of the first), score; beside them label,
    sop_instance_uid and frame, which COCO does not know and other programs ignore.

    image_ids: (SOP Instance UID, frame from 0 on) -> `id` of the reference. category_ids: class ->
    `id`. Raises ResultError: unknown_image, unknown_class.
    """
    entries = []
    for box in boxes:
        frame = (str(box.sop_instance_uid), box.frame)
        if frame not in image_ids:
            raise ResultError("a box is on an image that has no COCO id", code="unknown_image")
        if box.label not in category_ids:
            raise ResultError(
                f"class {box.label!r} of a box has no COCO category: name one of "
                f"{', '.join(category_ids)}",
                code="unknown_class",
            )
        size = (box.x_max - box.x_min, box.y_max - box.y_min)
        entries.append(
            {
                "image_id": image_ids[frame],
                "category_id": category_ids[box.label],
                "bbox": [float(v) for v in (box.x_min, box.y_min, *size)],
                "score": float(box.score),
                "label": box.label,
                "sop_instance_uid": frame[0],
                "frame": box.frame,
            }
        )
    return entries

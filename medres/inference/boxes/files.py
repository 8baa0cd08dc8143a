"""The boxes of many studies as files: COCO results, a picture of each image, and predictions.json.

The DICOM objects beside them, from `Prediction.positive_boxes`: `medres.inference.objects`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.runtime.atomic_files import write_atomic
from medres.artefact.card import Card
from medres.inference.boxes.box import BoxPreview
from medres.inference.masks.files import (
    displayed,
    part_name,
    png_bytes,
    write_studies,
)
from medres.inference.prediction import Prediction
from medres.results.coco import coco_results
from medres.results.drawing import Overlay, draw_overlay

COCO = "coco_results.json"
MIN_SIDE = 384  # of a picture: smaller prepared images are enlarged by whole numbers


def write_boxes(
    predictions: Iterable[Prediction],
    card: Card,
    out: Path | str,
    *,
    objects: Callable[[Prediction], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write the boxes of studies into the new folder `out`; returns the content of
    predictions.json.

    coco_results.json holds all boxes, as `medres evaluate --boxes` and pycocotools read them;
    `images` of predictions.json gives for each image_id its path and UID. NUMBER_overlay.png shows
    the boxes that reach the threshold of their class. objects: see `write_masks`.
    Raises InputError (output_exists).
    """
    categories = {name: number for number, name in enumerate(card.names, start=1)}
    images: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []

    def files_of(prediction: Prediction, number: int, folder: Path) -> list[str]:
        ids, names = {}, []
        for n, preview in enumerate(prediction.previews):
            identity = {"sop_instance_uid": preview.sop_instance_uid, "frame": preview.frame}
            rows, columns = preview.shape
            image = {"id": len(images) + 1, "path": prediction.path, **identity}
            images.append(image | {"width": columns, "height": rows})
            ids[preview.sop_instance_uid, preview.frame] = len(images)
            names.append(f"{part_name(number, n, len(prediction.previews))}_overlay.png")
            write_atomic(folder / names[-1], png_bytes(picture(preview, card)))
        results.extend(coco_results(prediction.boxes, ids, categories))
        return names

    facts = {"thresholds": card.box_thresholds, "categories": categories, "images": images}
    summary = write_studies(predictions, card, out, files_of, facts, objects=objects)
    write_atomic(Path(out) / COCO, json.dumps(results, indent=1, allow_nan=False).encode())
    return summary


def picture(preview: BoxPreview, card: Card) -> np.ndarray:
    """A prepared image with its positive boxes, uint8 (rows, columns, 3)."""
    factor = max(1, -(-MIN_SIDE // max(preview.image.shape[:2])))
    shown = displayed(preview.image, card).repeat(factor, axis=0).repeat(factor, axis=1) / 255
    boxes = [box.scaled(factor) for box in preview.boxes if box.is_positive]
    counts = [f"{name}: {sum(box.label == name for box in boxes)}" for name in card.names]
    return draw_overlay(Overlay(shown, preview.sop_instance_uid, boxes=boxes), [", ".join(counts)])

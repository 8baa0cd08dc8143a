"""The boxes of many studies as files: COCO results, a picture of each image, and predictions.json.

The DICOM objects beside them, from `Prediction.positive_boxes`: `medres.inference.objects`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.runtime.atomic_files import write_atomic
from medres.artefact.card import Card
from medres.inference.boxes.box import BoxPreview
from medres.inference.masks.files import (
    StudyRecord,
    displayed,
    new_folder,
    part_name,
    png_bytes,
    write_summary,
)
from medres.inference.prediction import Prediction
from medres.results.coco import coco_results
from medres.results.drawing import Overlay, draw_overlay

COCO = "coco_results.json"
MIN_SIDE = 384  # of a picture: smaller prepared images are enlarged by whole numbers


def write_boxes(predictions: Iterable[Prediction], card: Card, out: Path | str) -> dict[str, Any]:
    """Write the boxes of studies into the new folder `out`; returns the content of
    predictions.json.

    coco_results.json holds all boxes, as `medres evaluate --boxes` and pycocotools read them;
    `images` of predictions.json gives for each image_id its path and UID. NUMBER_overlay.png shows
    the boxes that reach the threshold of their class. Raises InputError (output_exists).
    """
    out = new_folder(out)
    records = (
        box_record(prediction, number, card, out)
        for number, prediction in enumerate(predictions, start=1)
    )
    return write_box_tables(records, card, out)


def box_record(
    prediction: Prediction,
    number: int,
    card: Card,
    out: Path,
    more: Mapping[str, Any] | None = None,
) -> StudyRecord:
    """Write the pictures of one study into `out`; see `mask_record`."""
    ids: dict[tuple[str, int], int | str] = {}
    images, files = list[dict[str, Any]](), list[str]()
    for n, preview in enumerate(prediction.previews):
        identity = {"sop_instance_uid": preview.sop_instance_uid, "frame": preview.frame}
        rows, columns = preview.shape
        image = {"id": n + 1, "path": prediction.path, **identity}
        images.append(image | {"width": columns, "height": rows})
        ids[preview.sop_instance_uid, preview.frame] = n + 1
        files.append(f"{part_name(number, n, len(prediction.previews))}_overlay.png")
        write_atomic(out / files[-1], png_bytes(picture(preview, card)))
    results = coco_results(prediction.boxes, ids, _categories(card))
    study = {**prediction.as_dict(), "files": files, **(more or {})}
    return StudyRecord(study, tuple(images), tuple(results))


def write_box_tables(records: Iterable[StudyRecord], card: Card, out: Path) -> dict[str, Any]:
    """Write predictions.json and coco_results.json from the records of all studies."""
    records = list(records)
    images, results = list[dict[str, Any]](), list[dict[str, Any]]()
    for record in records:
        before = len(images)
        images += [image | {"id": before + image["id"]} for image in record.images]
        results += [box | {"image_id": before + box["image_id"]} for box in record.results]
    facts = {"thresholds": card.box_thresholds, "categories": _categories(card), "images": images}
    summary = write_summary(records, card, out, facts)
    write_atomic(out / COCO, json.dumps(results, indent=1, allow_nan=False).encode())
    return summary


def _categories(card: Card) -> dict[str, int]:
    return {name: number for number, name in enumerate(card.names, start=1)}


def picture(preview: BoxPreview, card: Card) -> np.ndarray:
    """A prepared image with its positive boxes, uint8 (rows, columns, 3)."""
    factor = max(1, -(-MIN_SIDE // max(preview.image.shape[:2])))
    shown = displayed(preview.image, card).repeat(factor, axis=0).repeat(factor, axis=1) / 255
    boxes = [box.scaled(factor) for box in preview.boxes if box.is_positive]
    counts = [f"{name}: {sum(box.label == name for box in boxes)}" for name in card.names]
    return draw_overlay(Overlay(shown, preview.sop_instance_uid, boxes=boxes), [", ".join(counts)])

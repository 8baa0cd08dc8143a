"""The boxes of the images of a study, and why a study is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from data_pipelines.annotations.boxes.preparation import restored_edges
from data_pipelines.preprocessing.original_grid import OriginalGrid
from data_pipelines.preprocessing.study import Study
from medres.artefact.card import Card
from medres.detection import Detections, decode
from medres.errors import RefusedInput
from medres.inference.boxes.box import Box, BoxPreview
from medres.inference.decisions import unlike_training
from medres.inference.prediction import StudyAnswer

#: float32 images (n, *card.input_shape) -> raw maps (n, positions, ...), distances (n,)
Scored = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def detected(
    study: Study, inputs: Callable[[np.ndarray], np.ndarray], card: Card, scored: Scored
) -> StudyAnswer:
    """The boxes of a study, from the highest score down within each image. inputs: from prepared
    integers (n, ...) to model units. Refused: out_of_distribution, not_finite.
    """
    boxes, previews, novelty = list[Box](), list[BoxPreview](), None
    for sample, grid, slices in zip(study.pixels, study.grids, study.slices, strict=True):
        raw, distances = scored(inputs(sample[np.newaxis]))
        if not np.isfinite(raw).all():
            refusal = RefusedInput("the model gives no number for this image", code="not_finite")
            return StudyAnswer(refusal, novelty)
        if distances is not None:
            novelty = max(novelty or 0.0, float(distances[0]))
        found = decode(raw[0], card.decoding)
        name, frame = slices[len(slices) // 2]
        rows, columns = grid.shape
        own = boxes_on_original(found, grid, card, sop_instance_uid=name, frame=frame)
        boxes += own
        previews.append(
            BoxPreview(sample, prepared_boxes(found, card), (rows, columns), name, frame)
        )
    refused = unlike_training(novelty, card.novelty_threshold)
    if refused is not None:
        return StudyAnswer(refused, novelty)
    return StudyAnswer(None, novelty, boxes=boxes, previews=tuple(previews))


def boxes_on_original(
    found: Detections,
    grid: OriginalGrid,
    card: Card,
    *,
    sop_instance_uid: str = "",
    frame: int = 0,
) -> list[Box]:
    """The boxes of a prepared image in the pixels of the original one. A box of which nothing lies
    in the original image (it is in the border that was added) is left out.
    """
    edges = restored_edges(found.corners, grid.axes)
    inside = np.all(edges[:, 2:] > edges[:, :2], axis=1).tolist()
    placed = [
        replace(
            box,
            sop_instance_uid=sop_instance_uid,
            frame=frame,
            spacing_mm=grid.spacing_mm,
            at_detector=grid.at_detector,
        )
        for box in _boxes(found, edges, card)
    ]
    return [box for box, is_inside in zip(placed, inside, strict=True) if is_inside]


def prepared_boxes(found: Detections, card: Card) -> tuple[Box, ...]:
    """The boxes in the pixels of the prepared image."""
    return tuple(_boxes(found, found.corners, card))


def _boxes(found: Detections, edges: np.ndarray, card: Card) -> list[Box]:
    thresholds = card.box_thresholds
    boxes = []
    for corners, score, label in zip(edges, found.scores, found.labels, strict=True):
        name, value = card.names[int(label)], float(score)
        is_positive = value >= thresholds[name]
        x_min, y_min, x_max, y_max = map(float, corners)
        boxes.append(Box(name, value, x_min, y_min, x_max, y_max, is_positive=is_positive))
    return boxes

"""After training, on the tuning (validation) split: the threshold of each class, the overlap
that two boxes may have, and the card with them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import keras
import numpy as np

from medres.artefact.archive import versions, with_probability
from medres.artefact.boxes import BOX, DetectionFields
from medres.artefact.card import Card, OperatingPoint
from medres.artefact.card_fields import ABOVE_ONE
from medres.evaluate.detection.froc import Marks
from medres.models.detection import decoding_settings
from medres.training.calibration.scaling import identity
from medres.training.data import CompiledModel, TrainingData
from medres.training.detection.suppression import boxes_by_overlap, chosen_overlap
from medres.training.detection.tuning import SplitBoxes


def finalized_detector(
    logit_model: keras.Model, data: TrainingData, config: dict[str, Any], best_epoch: int
) -> tuple[keras.Model, Card]:
    """The served model (images in model units to raw maps) and its card.

    logit_model: float32, with the weights of the best epoch. config: as in config.json.
    """
    names = list(data.targets.names)
    calibration = identity(len(names))
    served = with_probability(logit_model, calibration, data.task.name)
    settings = decoding_settings(logit_model)
    by_overlap = boxes_by_overlap(CompiledModel(served), data, settings)
    overlap, note = chosen_overlap(by_overlap)
    settings = dataclasses.replace(settings, nms_iou=overlap)
    points, notes = box_thresholds(by_overlap[overlap], config[data.task.name]["fp_per_image"])
    card = Card(
        task=data.task.name,
        names=names,
        preprocess=data.cache.spec,
        unit="image",
        pooling=data.task.pool,
        calibration=vars(calibration),
        operating_points=points,
        detection=DetectionFields.of(settings),
        training={
            "config": config,
            "kept_epoch": best_epoch,
            "splits": data.manifest.summary["splits"],
            "left_out": [],
            "notes": [*notes, note],
        },
        versions=versions(),
    )
    return served, card


def box_thresholds(boxes: SplitBoxes, rate: float) -> tuple[list[OperatingPoint], list[str]]:
    """For each class the highest score that finds as many objects of the tuning split as can be
    found with at most `rate` false positives per image, and a line of text. Where none can, the
    threshold is above every score.
    """
    points, notes = [], []
    patients = len(np.unique(boxes.patient))
    for label, (name, matched) in enumerate(zip(boxes.names, boxes.matches(), strict=True)):
        predicted, reference = boxes.of_class(label)
        marks = matched.marks
        threshold = best_threshold(marks, rate)
        values = np.ascontiguousarray([*predicted.score, *predicted.corners.ravel()])
        points.append(
            OperatingPoint(
                finding=name,
                name="default",
                threshold=threshold if np.isfinite(threshold) else ABOVE_ONE,
                criterion=f"most objects with at most {rate:g} false positives per image",
                unit=BOX,
                split="tune",
                n_patients=patients,
                sha256=hashlib.sha256(values.tobytes()).hexdigest(),
                n_class_patients=len(np.unique(boxes.patient[reference.image[~reference.ignore]])),
            )
        )
        hits = marks.hits(threshold)
        found = f"{int(hits.sum())} of {hits.size} objects of the tuning split are found"
        notes.append(
            f"{name}: threshold {threshold:.3f}, with at most {rate:g} false positives per image; "
            f"{found}"
            if np.isfinite(threshold)
            else f"{name}: no object is found with at most {rate:g} false positives per image, so "
            f"that no box is positive"
        )
    return points, notes


def best_threshold(marks: Marks, rate: float) -> float:
    """The highest score with the sensitivity that is reached at `rate` false positives per image: a
    lower one would add false positives and no object. Infinite where no object is found.
    """
    hits = marks.score[(marks.lesion >= 0) & (marks.score >= marks.threshold_at(rate))]
    return float(hits.min()) if hits.size else float("inf")

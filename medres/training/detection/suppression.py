"""Which overlap two boxes of one class may have: chosen on the tuning (validation) split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from medres.detection import DecodingSettings, decode
from medres.training.data import CompiledModel, TrainingData
from medres.training.detection.tuning import SplitBoxes, raw_batches

#: intersection over union: cells in a smear overlap by half, lesions of a film hardly ever
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
TOLERANCE = 0.005  # of AP50: a smaller difference is no reason for more boxes on one object


def boxes_by_overlap(
    model: CompiledModel, data: TrainingData, settings: DecodingSettings
) -> dict[float, SplitBoxes]:
    """The boxes of the tuning split for each of OVERLAPS as `nms_iou`. The model runs once."""
    _, patient = np.unique(data.table("tune")["patient"], return_inverse=True)
    boxes = {overlap: SplitBoxes(data.targets.names, patient) for overlap in OVERLAPS}
    number = 0
    for raw, label in raw_batches(model, data, "tune"):
        for image, lines in zip(raw, label.numpy(), strict=True):
            for overlap, split in boxes.items():
                detections = decode(image, dataclasses.replace(settings, nms_iou=overlap))
                split.add(number, detections, lines)
            number += 1
    return boxes


def chosen_overlap(boxes: Mapping[float, SplitBoxes]) -> tuple[float, str]:
    """The lowest overlap whose mean AP50 over the classes is within TOLERANCE of the highest, and a
    line of text. So boxes that overlap are kept where objects do, as in a smear, and else an object
    has one box. The highest overlap where no class has an AP50.
    """
    means = {overlap: _mean_ap50(split) for overlap, split in boxes.items()}
    best = max(means.values())
    if np.isnan(best):
        return max(means), "overlap of boxes: no class has an AP50 by which it could be chosen"
    chosen = min(overlap for overlap, mean in means.items() if mean >= best - TOLERANCE)
    figures = ", ".join(f"{overlap:g}: {mean:.3f}" for overlap, mean in sorted(means.items()))
    return chosen, (
        f"overlap of boxes: of two boxes of one class whose intersection over union is above "
        f"{chosen:g}, the one with the lower score is left out; AP50 of the tuning split by this "
        f"limit: {figures}"
    )


def _mean_ap50(boxes: SplitBoxes) -> float:
    ones = np.ones(len(boxes.patient))
    values = np.array([matched.figures(ones)[0] for matched in boxes.matches()])
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")

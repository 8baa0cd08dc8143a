"""All figures of one class in one case."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medres.evaluate.segmentation.label_maps import LabelMap
from medres.evaluate.segmentation.lesions import HIT_IOU, LesionMatch, match_lesions
from medres.evaluate.segmentation.surfaces import (
    CONVENTIONS,
    Convention,
    SurfaceDistances,
    bounding_box,
    surface_distances,
)

NAN = math.nan
MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class Rules:
    """tolerance: of NSD, in mm. hit_iou: above it a lesion is found."""

    convention: Convention = field(default_factory=lambda: CONVENTIONS["surface"])
    tolerance: float = 1.0
    hit_iou: float = HIT_IOU


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """One class in one case. Values that are not defined are NaN.

    reference_size, prediction_size: mm3 or mm2; pixels or voxels without a spacing, as are those
    of lesions. distances (hd95, assd, hd95_or_diagonal): mm, or pixels without a spacing. If both
    masks are empty, or the reference is, there is no Dice.
    """

    n_axes: int
    has_spacing: bool
    reference_size: float
    prediction_size: float
    dice: float = NAN
    iou: float = NAN
    hd95: float = NAN
    hd95_or_diagonal: float = NAN
    nsd: float = NAN
    assd: float = NAN
    lesion_size: tuple[float, ...] = ()
    lesion_found: tuple[bool, ...] = ()
    false_lesion_size: tuple[float, ...] = ()
    n_split: int = 0
    n_merged: int = 0

    @property
    def in_reference(self) -> bool:
        return self.reference_size > 0.0

    @property
    def missed(self) -> bool:
        """The reference has the class, and the prediction nothing of it."""
        return self.in_reference and self.prediction_size == 0.0

    @property
    def false_alarm(self) -> bool:
        """The prediction has the class, and the reference nothing of it."""
        return not self.in_reference and self.prediction_size > 0.0

    @property
    def empty(self) -> bool:
        return not self.in_reference and self.prediction_size == 0.0

    @property
    def difference(self) -> float:
        """Prediction - reference, in ml (mm2 in two dimensions); NaN without a spacing."""
        if not self.has_spacing:
            return NAN
        unit = MM3_PER_ML if self.n_axes == 3 else 1.0
        return (self.prediction_size - self.reference_size) / unit


def score_case(reference: LabelMap, prediction: LabelMap, value: int, rules: Rules) -> CaseScore:
    """The figures of the class `value`. The label maps are on one grid.

    Prediction empty, reference not: Dice, IoU and NSD are 0, HD95 and ASSD undefined.
    """
    truth, answer = reference.mask(value), prediction.mask(value)
    spacing = reference.spacing or prediction.spacing
    axes = truth.ndim
    voxel = math.prod(spacing) if spacing else 1.0
    n_truth, n_answer = int(np.count_nonzero(truth)), int(np.count_nonzero(answer))
    score = CaseScore(
        n_axes=axes,
        has_spacing=spacing is not None,
        reference_size=n_truth * voxel,
        prediction_size=n_answer * voxel,
    )
    if n_truth == n_answer == 0:
        return score
    box = bounding_box(truth | answer)
    truth, answer = truth[box], answer[box]
    lesions = _lesion_fields(match_lesions(truth, answer, rules.hit_iou), voxel)
    figures: dict[str, Any] = {}
    steps = spacing or (1.0,) * axes
    if n_truth and n_answer:
        both = int(np.count_nonzero(truth & answer))
        distances = surface_distances(truth, answer, steps, rules.convention)
        figures = _overlap(both, n_truth, n_answer) | _distances(distances, rules, spacing)
    elif n_truth:
        shape = reference.values.shape
        diagonal = math.hypot(*(size * step for size, step in zip(shape, steps, strict=True)))
        figures = {"dice": 0.0, "iou": 0.0, "hd95_or_diagonal": diagonal}
        figures |= {"nsd": 0.0} if spacing else {}
    return replace(score, **figures, **lesions)


def _overlap(both: int, n_truth: int, n_answer: int) -> dict[str, float]:
    return {"dice": 2.0 * both / (n_truth + n_answer), "iou": both / (n_truth + n_answer - both)}


def _distances(
    distances: SurfaceDistances, rules: Rules, spacing: tuple[float, ...] | None
) -> dict[str, float]:
    hd95 = distances.hausdorff()
    figures = {"hd95": hd95, "hd95_or_diagonal": hd95, "assd": distances.average()}
    return figures | ({"nsd": distances.surface_dice(rules.tolerance)} if spacing else {})


def _lesion_fields(match: LesionMatch, voxel: float) -> dict[str, Any]:
    return {
        "lesion_size": tuple((match.size * voxel).tolist()),
        "lesion_found": tuple(match.found.tolist()),
        "false_lesion_size": tuple((match.false_size * voxel).tolist()),
        "n_split": match.n_split,
        "n_merged": match.n_merged,
    }

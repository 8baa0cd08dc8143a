"""What an evaluation of boxes found, as typed objects; the names of the fields are the keys of
report.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medres.evaluate.schema import SCHEMA
from medres.evaluate.serialization import ABSENT, JsonObject, to_plain
from medres.evaluate.statistics.estimate import Estimate


@dataclass(frozen=True)
class FrocPoint:
    """fp_per_image: over all images. sensitivity: pooled over lesions. patient_averaged: the mean
    over patients of their share of lesions. fp_per_lesion_free_image: at the same threshold, over
    the images without a lesion. carried: the curve ends before this rate, and its last sensitivity
    is carried forward.
    """

    fp_per_image: float
    sensitivity: Estimate
    patient_averaged: float | None
    fp_per_lesion_free_image: float | None
    threshold: float | None
    carried: bool


@dataclass(frozen=True)
class BoxOperatingPoint:
    """At one threshold on the score. origin: frozen (from the tuning split) or declared."""

    name: str
    threshold: float | None
    origin: str
    tp: int
    fp: int
    fn: int
    sensitivity: Estimate
    precision: Estimate
    fp_per_image: Estimate
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class SizeRow:
    """References by area: small (up to 32 x 32 pixels), medium (up to 96 x 96) and large."""

    size: str
    n_boxes: int
    ap: Estimate
    ap50: Estimate


@dataclass(frozen=True)
class BoxCurves:
    """fp_per_image, sensitivity: the FROC curve, thinned. band_low, band_high: pointwise limits of
    the sensitivity at the rates `band_at`. recall, precision: at an overlap of .5.
    """

    fp_per_image: list[float]
    sensitivity: list[float]
    band_at: list[float]
    band_low: list[float | None]
    band_high: list[float | None]
    recall: list[float]
    precision: list[float]


@dataclass(frozen=True)
class BoxSubgroup:
    column: str
    level: str
    n_patients: int
    n_images: int
    n_boxes: int
    ap50: Estimate
    froc_mean: Estimate


@dataclass(frozen=True, kw_only=True)
class BoxFinding:
    """One class. duplicates: predictions that hit a lesion which a higher score had hit already."""

    n_boxes: int
    n_lesions: int
    n_images: int
    n_patients: int
    n_predictions: int
    duplicates: int
    ap: Estimate
    ap50: Estimate
    ap75: Estimate
    froc: list[FrocPoint]
    froc_mean: Estimate
    case_auc: Estimate
    sizes: list[SizeRow]
    operating_points: list[BoxOperatingPoint]
    subgroups: list[BoxSubgroup]
    curves: BoxCurves


@dataclass(frozen=True)
class BoxMacro:
    """Means over the classes that have references."""

    ap: Estimate
    ap50: Estimate
    froc_mean: Estimate


@dataclass(frozen=True)
class BoxComparison:
    """The difference a - b of two models on the same images, with the same draws of patients."""

    finding: str
    metric: str
    a: str
    b: str
    direction: str
    difference: Estimate


@dataclass(frozen=True)
class WorstImage:
    """An image with many errors at the first operating point. id: the first 12 hex digits of the
    SHA-256 of its id. reference, predicted: corners in pixels; hit: of each prediction. picture: a
    data URI, if the files were given.
    """

    finding: str
    id: str
    missed: int
    false: int
    width: int
    height: int
    reference: list[list[float]]
    predicted: list[list[float]]
    hit: list[bool]
    picture: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True, kw_only=True)
class DetectionReport:
    """What report.json of an evaluation of boxes holds."""

    schema: str = SCHEMA
    title: str
    task: str = "detection"
    analysis_unit: str
    cluster: str | None
    hit_rule: str
    n: Mapping[str, int]
    findings: Mapping[str, BoxFinding]
    macro: BoxMacro
    comparisons: list[BoxComparison]
    warnings: list[str]
    worst: list[WorstImage]
    provenance: Mapping[str, object]
    methods: str

    def to_json(self) -> JsonObject:
        """Dicts, lists, texts, numbers and None, in the order of report.json."""
        return dict(to_plain(self))

"""What the evaluation of masks found, as typed objects; the names of the fields are the keys of
report.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medres.evaluate.schema import SCHEMA, Checklist
from medres.evaluate.serialization import ABSENT, INLINE, JsonObject, to_plain
from medres.evaluate.statistics.estimate import Estimate

CaseKind = Literal["missed", "false alarm", "overlap"]
AGGREGATION = "mean over the cases of a patient, then over patients"


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Means over cases whose reference is not empty. A missed case has Dice, IoU and NSD 0, and no
    HD95 and ASSD. hd95_px and assd_px stand in for mm where there is no spacing.
    """

    dice: Estimate
    iou: Estimate
    hd95_mm: Estimate
    nsd: Estimate
    assd_mm: Estimate
    volume_difference_ml: Estimate
    hd95_px: Estimate | None = field(default=None, metadata=ABSENT)
    assd_px: Estimate | None = field(default=None, metadata=ABSENT)
    area_difference_mm2: Estimate | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class LesionBin:
    """Lesions of one range of size: those of the reference by their own size, false positives by
    the size of the prediction."""

    size: str
    n_lesions: int
    n_found: int
    sensitivity: Estimate
    n_false_positives: int
    false_positives_per_case: float


@dataclass(frozen=True)
class SizeStratum:
    """Cases by the size of the reference, a third in each."""

    size: str
    n_cases: int
    n_patients: int
    dice: Estimate
    hd95: Estimate


@dataclass(frozen=True)
class SubgroupRow:
    """One level of a column of the patients table; cases whose reference has the class."""

    column: str
    level: str
    n_cases: int
    n_patients: int
    n_missed: int
    figures: Overlap = field(metadata=INLINE)


@dataclass(frozen=True)
class WorstCase:
    """case: a hash of the name; tables/cases.csv has both. kind: missed, false alarm or overlap.
    Sizes in ml, mm2, or pixels."""

    case: str
    kind: CaseKind
    dice: float | None
    hd95: float | None
    reference_size: float
    prediction_size: float


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """All figures of one class.

    n_cases, n_patients: evaluated, empty ones included. n_empty_reference: of them n_empty_both
    have an empty prediction too. n_missed: the prediction is empty and the reference is not.
    n_false_alarm: the reverse. hd95_or_diagonal_mm: HD95 with the diagonal of the image for missed
    cases. false_alarm_rate: of the cases with an empty reference. false_alarm_ml: mean volume of
    a false alarm. lesion_false_positives_per_case: over all cases.
    """

    title: str
    value: int
    figures: Overlap = field(metadata=INLINE)
    tolerance_mm: float
    convention: str
    aggregation: str = AGGREGATION
    n_cases: int
    n_patients: int
    n_empty_reference: int
    n_empty_both: int
    n_missed: int
    n_false_alarm: int
    missed_rate: Estimate
    false_alarm_rate: Estimate
    false_alarm_ml: Estimate
    hd95_or_diagonal_mm: Estimate
    lesion_sensitivity: Estimate
    lesion_false_positives_per_case: Estimate
    n_lesions: int
    n_lesions_split: int
    n_lesions_merged: int
    hit_iou: float
    size_unit: str
    lesion_bins: list[LesionBin]
    size_strata: list[SizeStratum]
    subgroups: list[SubgroupRow]
    worst_cases: list[WorstCase]


@dataclass(frozen=True)
class MaskComparison:
    """The difference a - b of one figure of one class, paired by patient; over the cases where both
    models have it."""

    finding: str
    metric: str
    a: str
    b: str
    n_common: int
    difference: Estimate
    direction: Literal["a-b"] = "a-b"


@dataclass(frozen=True, kw_only=True)
class SegmentationResult:
    """What report.json of a segmentation holds. n_missed, n_false_alarm: over all classes."""

    schema: str = SCHEMA
    title: str
    task: str = "segmentation"
    n_cases: int
    n_patients: int
    n_missed: int
    n_false_alarm: int
    convention: str
    aggregation: str = AGGREGATION
    findings: dict[str, ClassResult]
    comparisons: list[MaskComparison]
    notes: list[str]
    checklists: list[Checklist]
    provenance: Mapping[str, object]
    methods: str

    def to_json(self) -> JsonObject:
        """Dicts, lists, texts, numbers and None, in the order of report.json."""
        return dict(to_plain(self))

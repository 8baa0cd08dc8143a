"""The report as typed objects: what report.json holds, from one finding up to the whole.

A field's name is its key in the JSON; `medres.evaluate.serialization` has the rules. To add a
metric: return an `Estimate` (or a dataclass of results.py) from a module of its own, add
the field to `Finding`, and set it in analyses/finding.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from medres.evaluate.results import (
    BrierDecomposition,
    Calibration,
    CalibrationCurves,
    Curve,
    DecisionCurve,
    GlobalTest,
    GoodnessOfFit,
    Histogram,
    IntervalWidth,
    Macro,
    Multiclass,
    NoCalibration,
    OperatingPoint,
    PartialAuc,
    RateAtFixed,
    RocBand,
    TwoRates,
    WilsonTerms,
)
from medres.evaluate.serialization import ABSENT, INLINE, JsonObject, to_plain
from medres.evaluate.statistics.estimate import Estimate

SCHEMA = "medres.report/1"
Headline = Literal["image", "patient"]


@dataclass(frozen=True)
class Bound:
    """The AUC with all uncertain labels taken as one class."""

    n_positive: int
    auc: Estimate


@dataclass(frozen=True)
class UncertainBounds:
    all_negative: Bound
    all_positive: Bound


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What the figures of a finding are drawn from.

    counts: the ROC curve as counts, thinned. band: around it. histogram: of the scores by label.
        wilson: terms for the intervals that the page computes when the threshold is moved.
        calibration: None if the scores are no probabilities.
    """

    counts: Curve
    band: RocBand | None = field(default=None, metadata=ABSENT)
    histogram: Histogram | None = field(default=None, metadata=ABSENT)
    wilson: WilsonTerms
    calibration: CalibrationCurves | None = field(default=None, metadata=INLINE)


@dataclass(frozen=True)
class ErrorCase:
    """A misclassified unit: the first 12 hex digits of the SHA-256 of its id, and its score."""

    id: str
    score: float


@dataclass(frozen=True)
class WorstErrors:
    false_negatives: list[ErrorCase]
    false_positives: list[ErrorCase]


@dataclass(frozen=True, kw_only=True)
class PairedRates:
    """Differences a - b: of two models at a threshold that was declared for both, or of a model at
    its own threshold and a reader."""

    operating_point: str
    threshold: float | None
    sensitivity_difference: Estimate
    sensitivity_p: float | None
    specificity_difference: Estimate
    specificity_p: float | None


@dataclass(frozen=True, kw_only=True)
class ReaderPoint:
    """A human reader's calls in one arm of a reader study, over the units that have a score of the
    model too. n_without_score: rated units that have none and are left out. model: the model on the
    same units, at its first threshold; difference: model - reader.
    """

    reader: str
    arm: str
    n: int
    n_without_score: int = 0
    sensitivity: Estimate
    specificity: Estimate
    model: TwoRates | None = field(default=None, metadata=ABSENT)
    difference: PairedRates | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """One level of a column. `suppressed`: a class has too few patients, and figures are left
    out. The p-values belong to the column; interaction_why: the reason if there is none."""

    column: str
    level: str
    n: int
    n_positive: int
    n_positive_patients: int
    n_negative_patients: int
    suppressed: bool
    auc: Estimate | None = field(default=None, metadata=ABSENT)
    auc_patient_weighted: Estimate | None = field(default=None, metadata=ABSENT)
    counts: Curve | None = field(default=None, metadata=ABSENT)
    operating_points: list[OperatingPoint] | None = field(default=None, metadata=ABSENT)
    interaction_p: float | None = None
    interaction_method: str | None = field(default=None, metadata=ABSENT)
    interaction_why: str | None = field(default=None, metadata=ABSENT)
    p_holm: float | None = None


@dataclass(frozen=True)
class Pooling:
    """How scores and labels of images became those of a unit; null if a unit is an image."""

    score: str | None
    label: str | None


@dataclass(frozen=True, kw_only=True)
class OtherUnit:
    """The headline of a finding at a second unit of analysis."""

    unit: str
    pooling: Pooling | None
    n: int
    n_positive: int
    auc: Estimate
    auc_patient_weighted: Estimate | None = field(default=None, metadata=ABSENT)
    operating_points: list[OperatingPoint]
    curves: Curves | None = field(default=None, metadata=ABSENT)
    summary: str = ""

    @property
    def n_negative(self) -> int:
        return self.n - self.n_positive


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Everything about one finding (or one class against the rest). `title`: the name that people
    read; the key of a binary table's finding is always "positive". effective_*_patients: Kish's
    number of the patients of a class, if they have different numbers of its units."""

    n: int
    n_positive: int
    n_not_assessed: int
    n_uncertain: int
    n_refused: int
    n_positive_patients: int | None
    n_negative_patients: int | None
    effective_positive_patients: float | None = field(default=None, metadata=ABSENT)
    effective_negative_patients: float | None = field(default=None, metadata=ABSENT)
    prevalence: Estimate
    auc: Estimate
    auc_wald: Estimate
    auc_logit: Estimate
    auc_newcombe: Estimate
    auc_patient_weighted: Estimate | None = field(default=None, metadata=ABSENT)
    precision: IntervalWidth
    average_precision: Estimate
    brier: Estimate
    brier_decomposition: BrierDecomposition | None = field(default=None, metadata=ABSENT)
    goodness_of_fit: GoodnessOfFit | None = field(default=None, metadata=ABSENT)
    calibration: Calibration | NoCalibration
    operating_points: list[OperatingPoint]
    partial_auc: list[PartialAuc]
    at_fixed: list[RateAtFixed]
    decision_curve: DecisionCurve
    uncertain_bounds: UncertainBounds | None = field(default=None, metadata=ABSENT)
    worst_errors: WorstErrors | None = field(default=None, metadata=ABSENT)
    curves: Curves | None = field(default=None, metadata=ABSENT)
    other_unit: OtherUnit | None = field(default=None, metadata=ABSENT)
    subgroups: list[Subgroup] = field(default_factory=list)
    readers: list[ReaderPoint] | None = field(default=None, metadata=ABSENT)
    summary: str = ""
    title: str = ""

    @property
    def n_negative(self) -> int:
        return self.n - self.n_positive


@dataclass(frozen=True)
class Noninferiority:
    """Whether a is not worse than b (`reference`) by more than the margin of AUC; with equal
    weight per patient if `noninferior_by` says so."""

    margin: float
    reference: str
    noninferior: bool | None
    noninferior_by: Headline | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on their common units, or (unpaired: n_common 0, with n_a and n_b) each on its own
    patients. `p_adjusted`: after Holm, over the whole report. rates: at the first threshold that
    was declared; other_rates: at the others."""

    finding: str
    a: str
    b: str
    direction: Literal["a-b"] = "a-b"
    n_common: int
    n_a: int | None = field(default=None, metadata=ABSENT)
    n_b: int | None = field(default=None, metadata=ABSENT)
    auc_difference: Estimate
    p_value: float | None
    auc_difference_patient_weighted: Estimate | None = field(default=None, metadata=ABSENT)
    p_value_patient_weighted: float | None = field(default=None, metadata=ABSENT)
    method: str
    alternative: Literal["two-sided"] = "two-sided"
    b_counts: Curve | None = field(default=None, metadata=ABSENT)
    n_positive: int | None = field(default=None, metadata=ABSENT)
    rates: PairedRates | None = field(default=None, metadata=INLINE)
    other_rates: list[PairedRates] | None = field(default=None, metadata=ABSENT)
    noninferiority: Noninferiority | None = field(default=None, metadata=INLINE)
    p_adjusted: float | None = None

    @property
    def all_rates(self) -> list[PairedRates]:
        """At every declared threshold."""
        return [] if self.rates is None else [self.rates, *(self.other_rates or [])]

    @property
    def unpaired(self) -> bool:
        """Whether the models were evaluated on different patients."""
        return self.n_b is not None

    @property
    def b_size(self) -> int:
        """Units behind `b_counts`."""
        return self.n_common if self.n_b is None else self.n_b


@dataclass(frozen=True)
class GlobalComparison:
    """Whether three or more models have the same AUC."""

    finding: str
    models: list[str]
    n_common: int
    test: GlobalTest = field(metadata=INLINE)
    patient_weighted: GlobalTest | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Design:
    """`answers`: the design file as it was given, in its order. `prevalence`: stated, by
    finding."""

    answers: Mapping[str, Any] = field(metadata=INLINE)
    prevalence: dict[str, float] | None

    @property
    def sampling(self) -> str:
        return str(self.answers["sampling"])

    def stated_prevalence(self, finding: str) -> float | None:
        return (self.prevalence or {}).get(finding)


@dataclass(frozen=True)
class SampleSize:
    patients: int | None
    units: int
    images: int


@dataclass(frozen=True)
class AgeSummary:
    """In years; q1 and q3 are the quartiles."""

    n: int
    median: float
    q1: float
    q3: float


@dataclass(frozen=True)
class Demographics:
    """Patients by level of each column that the table has."""

    age: AgeSummary | None = field(default=None, metadata=ABSENT)
    sex: dict[str, int] | None = field(default=None, metadata=ABSENT)
    site: dict[str, int] | None = field(default=None, metadata=ABSENT)
    manufacturer: dict[str, int] | None = field(default=None, metadata=ABSENT)
    modality: dict[str, int] | None = field(default=None, metadata=ABSENT)
    view: dict[str, int] | None = field(default=None, metadata=ABSENT)

    @property
    def is_known(self) -> bool:
        """Whether the table has any of these columns."""
        return self != Demographics()


@dataclass(frozen=True, kw_only=True)
class Flow:
    """`images`, `scored`, `refused` and `failed` count rows of the table. `ingest`: the summary of
    ingest.json."""

    images: int
    scored: int
    refused: int
    failed: int
    units: int
    units_refused: int
    patients: int | None
    demographics: Demographics
    ingest: JsonObject | None = field(default=None, metadata=ABSENT)

    @property
    def without_score(self) -> int:
        return self.refused + self.failed


@dataclass(frozen=True)
class TableSource:
    """A table that the report was computed from.

    sha256: of the file, or of the values of a DataFrame. nothing_shared_by: for the tune table and
        for tables of other patients, the ID columns by which it shares no value with the scores.
        not_comparable: the ID columns for which this cannot be said, with the reason. similar_ids:
        IDs that differ from another one of the table only in case or leading zeros, by ID column.
    """

    name: str
    rows: int
    sha256: str
    nothing_shared_by: list[str] | None = field(default=None, metadata=ABSENT)
    not_comparable: dict[str, str] | None = field(default=None, metadata=ABSENT)
    similar_ids: dict[str, int] | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """`further`: what the caller adds, such as the hash of the model; it goes before."""

    created: str
    scores: TableSource
    tune: TableSource | None
    compared: list[TableSource]
    level: float
    seeds: dict[str, int]
    versions: dict[str, str | None]
    further: Mapping[str, Any] = field(default_factory=dict, metadata=INLINE)
    explanation: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class ReportWarning:
    """`finding` is None if the warning concerns the whole table."""

    code: str
    finding: str | None
    text: str


@dataclass(frozen=True)
class ChecklistItem:
    """An item of a reporting guideline; `answer` is None if the item stays open."""

    item: str
    about: str
    answer: str | None
    design: str | None


@dataclass(frozen=True)
class Checklist:
    guideline: str
    source: str
    rows: list[ChecklistItem]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What report.json holds. headline: which AUC leads for every finding, model and subgroup: each
    image weighs the same (`auc`), or each patient (`auc_patient_weighted`), as decided from the
    numbers of units per patient alone. largest_patient_share: of the units, 0..1."""

    schema: str = SCHEMA
    title: str
    task: str
    analysis_unit: str
    cluster: Literal["patient"] | None
    pooling: Pooling
    folds: int | None
    headline: Headline = "image"
    largest_patient_share: float | None = field(default=None, metadata=ABSENT)
    design: Design
    n: SampleSize
    flow: Flow
    findings: dict[str, Finding]
    macro: Macro | None = field(default=None, metadata=ABSENT)
    multiclass: Multiclass | None = field(default=None, metadata=ABSENT)
    comparisons: list[Comparison]
    global_comparisons: list[GlobalComparison] | None = field(default=None, metadata=ABSENT)
    provenance: Provenance
    warnings: list[ReportWarning] = field(default_factory=list)
    methods: str = ""
    crosswalks: list[Checklist] = field(default_factory=list)

    def title_of(self, finding: str) -> str:
        """The title of a finding by its key; of a class without a section, its name."""
        return self.findings[finding].title if finding in self.findings else finding

    def to_json(self) -> JsonObject:
        """Dicts, lists, texts, numbers and None, in the order of report.json."""
        return dict(to_plain(self))

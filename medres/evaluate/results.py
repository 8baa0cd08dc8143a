"""What the metrics return when one `Estimate` is not enough. `medres.evaluate.schema` makes the
report of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np

from medres.evaluate.serialization import ABSENT, INLINE
from medres.evaluate.statistics.estimate import Estimate

Origin = Literal["frozen", "declared", "exploratory"]


@dataclass(frozen=True)
class Curve:
    """Cumulative counts at thresholds from the highest down: units with score >= threshold."""

    threshold: list[float]
    tp: list[int]
    fp: list[int]


@dataclass(frozen=True)
class IntervalWidth:
    """Half the width of the headline interval of the AUC, and with a margin the numbers of patients
    that this half-width needs."""

    half_width: float | None
    margin: float | None = field(default=None, metadata=ABSENT)
    positives_needed: int | None = field(default=None, metadata=ABSENT)
    negatives_needed: int | None = field(default=None, metadata=ABSENT)
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class PartialAuc:
    """The area over `low`..`high` of one axis, raw and after McClish (0.5 is chance)."""

    axis: str
    low: float
    high: float
    raw: Estimate
    standardised: Estimate


@dataclass(frozen=True)
class RateAtFixed:
    """Sensitivity at a fixed specificity, or the reverse."""

    fixed: str
    value: float
    sensitivity: Estimate | None = field(default=None, metadata=ABSENT)
    specificity: Estimate | None = field(default=None, metadata=ABSENT)


class ThresholdSource(TypedDict, total=False):
    """Where a threshold comes from; an unknown key is left out."""

    criterion: str
    split: str
    sha256: str | None
    n_patients: int
    equal_points: int  # other scores that meet the criterion equally well


@dataclass(frozen=True)
class CrossTable:
    """Counts of units at a threshold: true and false positives, false and true negatives. A unit
    whose score reaches the threshold is called positive.
    """

    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True)
class TwoRates:
    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True)
class Rates:
    """What follows from a cross table; `lr` are the likelihood ratios."""

    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    accuracy: Estimate
    lr_positive: Estimate
    lr_negative: Estimate


@dataclass(frozen=True)
class PredictiveValues:
    """PPV and NPV at a stated prevalence (0..1)."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold with its cross table. `score >= threshold` is positive. threshold: None where no
    finite number separates the scores; `why` then says on which side of the scores it lies.
    n_class_patients: the tuning patients of the class that fixed the threshold, where this is
    known.
    """

    name: str
    threshold: float | None
    why: str | None = field(default=None, metadata=ABSENT)
    origin: Origin
    source: ThresholdSource | None = field(default=None, metadata=ABSENT)
    n_class_patients: int | None = field(default=None, metadata=ABSENT)
    table: CrossTable = field(metadata=INLINE)
    rates: Rates = field(metadata=INLINE)
    refused_as_error: TwoRates
    predictive_at: list[PredictiveValues]
    optimism_corrected: TwoRates | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`n_clipped`: probabilities outside 1e-6 .. 1 - 1e-6, clipped for the logit."""

    slope: Estimate
    intercept: Estimate
    in_the_large: Estimate
    oe_ratio: Estimate
    ece: Estimate
    ici: Estimate
    n_clipped: int


@dataclass(frozen=True, kw_only=True)
class NoCalibration:
    """The same estimates without a number, all for one reason."""

    slope: Estimate
    intercept: Estimate
    in_the_large: Estimate
    oe_ratio: Estimate
    ici: Estimate
    ece: Estimate


@dataclass(frozen=True)
class BrierDecomposition:
    """Brier score = miscalibration - discrimination + uncertainty."""

    miscalibration: float
    discrimination: float
    uncertainty: float


@dataclass(frozen=True)
class ChiSquareTest:
    chi_square: float | None
    df: int | None
    p_value: float | None
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class GlobalTest:
    """Test that several AUCs are equal. p_value: of F with `df` and `df_denominator` degrees of
    freedom; p_chi_square: of the chi-square distribution (DeLong 1988), for many patients."""

    chi_square: float | None
    df: int | None
    p_value: float | None
    df_denominator: float | None = field(default=None, metadata=ABSENT)
    p_chi_square: float | None = field(default=None, metadata=ABSENT)
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class ZTest:
    z: float | None
    p_value: float | None
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class GoodnessOfFit:
    hosmer_lemeshow: ChiSquareTest
    spiegelhalter: ZTest


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at each threshold probability; all lists have one entry per threshold, or the
    whole curve is null with `why`. recalibrated: of the model, with its risks moved from the
    prevalence in the sample to the stated one. prevalence_source: which of them `prevalence` is.
    """

    prevalence: float | None
    threshold: list[float] | None
    model: list[Estimate] | None
    all: list[Estimate] | None
    interventions_avoided: list[float] | None = field(default=None, metadata=ABSENT)
    recalibrated: list[Estimate] | None = field(default=None, metadata=ABSENT)
    prevalence_source: Literal["sample", "stated"] | None = field(default=None, metadata=ABSENT)
    why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Histogram:
    """Units by score: `edges` has one entry more than the counts."""

    edges: list[float]
    positive: list[int]
    negative: list[int]


@dataclass(frozen=True)
class RocBand:
    """Half-widths of a band around the whole ROC curve, in sensitivity and in specificity."""

    level: float
    sensitivity: float
    specificity: float
    method: str


@dataclass(frozen=True)
class WilsonTerms:
    """Design effects and quantiles of sensitivity and specificity, for the intervals that the page
    computes while its slider moves."""

    effects: list[float]
    quantiles: list[float]


@dataclass(frozen=True)
class ReliabilityBin:
    predicted: float
    observed: Estimate


@dataclass(frozen=True)
class FlexibleCurve:
    predicted: list[float]
    observed: list[float]


@dataclass(frozen=True)
class CalibrationCurves:
    """flexible_why: why there is no flexible curve."""

    reliability: list[ReliabilityBin]
    flexible: FlexibleCurve | None
    flexible_why: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class SkippedFinding:
    finding: str
    why: str


@dataclass(frozen=True)
class Macro:
    """The unweighted mean of the AUCs of `findings`."""

    auc: Estimate
    findings: list[str]
    skipped: list[SkippedFinding]


@dataclass(frozen=True)
class ClassFigures:
    name: str = field(metadata={"key": "class"})
    table: CrossTable = field(metadata=INLINE)
    rates: Rates = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class Multiclass:
    """`confusion`: rows are the true class, columns the predicted class. `top_k`: by k, the share
    of units whose class is among the k most probable ones. `detailed`: the classes that have a
    section of their own (`findings`), where there are too many for all of them.
    """

    classes: list[str]
    confusion: list[list[int]]
    accuracy: Estimate
    balanced_accuracy: Estimate
    kappa: Estimate
    quadratic_kappa: Estimate
    hand_till: Estimate
    top_k: dict[str, Estimate] | None = field(default=None, metadata=ABSENT)
    detailed: list[str] | None = field(default=None, metadata=ABSENT)
    per_class: list[ClassFigures]

    def frequent_confusions(self, count: int) -> list[tuple[str, str, int]]:
        """(true class, predicted class, units) of the most frequent errors, at most `count`."""
        matrix = np.array(self.confusion)
        np.fill_diagonal(matrix, 0)
        order = np.argsort(-matrix, axis=None, kind="stable")[:count]
        return [
            (self.classes[true], self.classes[predicted], int(matrix[true, predicted]))
            for true, predicted in zip(*np.unravel_index(order, matrix.shape), strict=True)
            if matrix[true, predicted]
        ]

    def least_sensitive(self, count: int) -> list[ClassFigures]:
        """The classes with the lowest sensitivity, at most `count`; classes without a unit last."""

        def key(figures: ClassFigures) -> float:
            value = figures.rates.sensitivity.estimate
            return 2.0 if value is None else value

        return sorted(self.per_class, key=key)[:count]

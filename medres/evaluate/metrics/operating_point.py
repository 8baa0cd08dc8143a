"""Operating points: the cross table that a threshold gives, and what follows from it. `score >=
threshold` is positive.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.metrics.predictive_values import predictive_values
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.options import ReportOptions
from medres.evaluate.results import (
    CrossTable,
    OperatingPoint,
    PredictiveValues,
    Rates,
    TwoRates,
)
from medres.evaluate.scores.sample import Sample
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import likelihood_ratio, proportion_estimate


@dataclass(frozen=True)
class OperatingPointContext:
    """What every operating point of a finding needs besides the sample.

    sampled_on_label: case-control, so that PPV, NPV and accuracy have no meaning. prevalences:
    stated, for `predictive_at`. refused_label, refused_patient (k,): labeled units without a score.
    """

    level: float
    sampled_on_label: bool = False
    prevalences: tuple[float, ...] = ()
    refused_label: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    refused_patient: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    exact: bool = False


def operating_point_report(
    sample: Sample, threshold: Threshold, context: OperatingPointContext
) -> OperatingPoint:
    """The cross table of a threshold with all its figures."""
    predicted = sample.score >= threshold.value
    return OperatingPoint(
        name=threshold.name,
        threshold=None if threshold.why else threshold.value,
        why=threshold.why,
        origin=threshold.origin,
        source=threshold.source or None,
        n_class_patients=threshold.n_class_patients,
        table=cross_table(sample.label, predicted),
        rates=rates(sample, predicted, context),
        refused_as_error=_refused_as_error(sample, predicted, context),
        predictive_at=[
            PredictiveValues(
                prevalence,
                *predictive_values(
                    predicted, sample.label, sample.patient, prevalence, context.level
                ),
            )
            for prevalence in context.prevalences
        ],
    )


def cross_table(label: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> CrossTable:
    """Units by label and call, of two arrays (n,).

    >>> cross_table(np.array([True, True, False]), np.array([True, False, False]))
    CrossTable(tp=1, fp=0, fn=1, tn=1)
    """
    return CrossTable(
        tp=int((predicted & label).sum()),
        fp=int((predicted & ~label).sum()),
        fn=int((~predicted & label).sum()),
        tn=int((~predicted & ~label).sum()),
    )


def rates(sample: Sample, predicted: NDArray[np.bool_], context: OperatingPointContext) -> Rates:
    """Sensitivity, specificity, PPV, NPV, accuracy, LR+ and LR- of a rule that classifies the
    units in `predicted` as positive.
    """
    label, patient, level = sample.label, sample.patient, context.level

    def share(hit: NDArray[np.bool_], of: NDArray[np.bool_]) -> Estimate:
        return proportion_estimate(hit[of], patient[of], level, exact=context.exact)

    if context.sampled_on_label:
        why = (
            "cases and controls were sampled separately: the proportion of positives is not that "
            "of the clinic"
        )
        ppv = npv = accuracy = undefined(why + "; state a prevalence to get predictive values")
    else:
        ppv, npv = share(label, predicted), share(~label, ~predicted)
        accuracy = share(predicted == label, np.ones(label.size, dtype=bool))
    return Rates(
        sensitivity=share(predicted, label),
        specificity=share(~predicted, ~label),
        ppv=ppv,
        npv=npv,
        accuracy=accuracy,
        lr_positive=likelihood_ratio(predicted, label, patient, level, "LR+"),
        lr_negative=likelihood_ratio(~predicted, label, patient, level, "LR-"),
    )


def _refused_as_error(
    sample: Sample, predicted: NDArray[np.bool_], context: OperatingPointContext
) -> TwoRates:
    """Sensitivity and specificity with every refused or failed unit counted as wrong."""
    label = np.concatenate([sample.label, context.refused_label])
    right = np.concatenate(
        [predicted == sample.label, np.zeros(context.refused_label.size, dtype=bool)]
    )
    patient = np.concatenate([sample.patient, context.refused_patient])
    sensitivity, specificity = (
        proportion_estimate(right[of], patient[of], context.level, exact=context.exact)
        for of in (label, ~label)
    )
    return TwoRates(sensitivity, specificity)


def operating_point_context(
    units: AnalysisUnits, name: str, options: ReportOptions, part: NDArray[np.bool_] | None = None
) -> OperatingPointContext:
    """The context of a finding in all units or in a `part` of them (n,): with the refused units
    that have a label.
    """
    missed = units.refused & np.isin(units.label[name], (0.0, 1.0))
    if part is not None:
        missed = missed & part
    stated = options.prevalence.get(name)
    return OperatingPointContext(
        options.level, options.case_control, () if stated is None else (stated,),
        units.label[name][missed] == 1.0, units.patient[missed], options.exact,
    )  # fmt: skip

"""Operating points: where a threshold comes from, and the cross table it gives. `score >=
threshold` is positive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medres.evaluate.metrics.predictive_values import predictive_values
from medres.evaluate.options import ReportOptions
from medres.evaluate.scores.sample import Counts, Sample, rank_counts
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import likelihood_ratio, proportion_estimate

Origin = Literal["frozen", "declared", "exploratory"]


@dataclass(frozen=True)
class Threshold:
    """A named threshold. Only one from the artefact or a tuning table is frozen; `source` says
    which.
    """

    name: str
    threshold: float
    origin: Origin
    source: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OperatingPointContext:
    """What every operating point of a finding needs to know beside the sample."""

    level: float
    sampled_on_label: bool = False
    prevalences: tuple[float, ...] = ()
    refused_label: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    refused_patient: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    exact: bool = False


def youden(counts: Counts) -> float:
    """The threshold with the greatest sensitivity + specificity; of equals the highest. Needs both
    classes.
    """
    gain = counts.tp / counts.n_positive - counts.fp / counts.n_negative
    return float(counts.threshold[int(np.argmax(gain))])


def youden_point(
    sample: Sample, origin: Origin, name: str, source: dict[str, Any]
) -> Threshold | None:
    """Youden's point of a sample with both classes, else None."""
    if sample.n_positive == 0 or sample.n_negative == 0:
        return None
    threshold = youden(rank_counts(sample.label, sample.score))
    return Threshold(name, threshold, origin, {"criterion": "youden", **source})


def operating_point_report(
    sample: Sample, point: Threshold, context: OperatingPointContext
) -> dict[str, Any]:
    """The cross table of a threshold with all its figures, as in report.json (values are
    Estimates).
    """
    label, called = sample.label, sample.score >= point.threshold
    out: dict[str, Any] = {"name": point.name, "threshold": point.threshold, "origin": point.origin}
    if point.source:
        out["source"] = point.source
    out |= cross_table(label, called) | rates(sample, called, context)
    out["refused_as_error"] = _refused_as_error(sample, called, context)
    out["predictive_at"] = [
        _predictive_at(sample, called, prevalence, context) for prevalence in context.prevalences
    ]
    return out


def cross_table(label: NDArray[np.bool_], called: NDArray[np.bool_]) -> dict[str, int]:
    """Units by truth and call: tp, fp, fn, tn."""
    return {
        "tp": int((called & label).sum()), "fp": int((called & ~label).sum()),
        "fn": int((~called & label).sum()), "tn": int((~called & ~label).sum()),
    }  # fmt: skip


def rates(
    sample: Sample, called: NDArray[np.bool_], context: OperatingPointContext
) -> dict[str, Estimate]:
    """Sensitivity, specificity, PPV, NPV, accuracy, LR+ and LR- of a rule that calls `called`
    positive.
    """
    label, patient, level = sample.label, sample.patient, context.level
    out = {
        "sensitivity": proportion_estimate(
            called[label], patient[label], level, exact=context.exact
        ),
        "specificity": proportion_estimate(
            ~called[~label], patient[~label], level, exact=context.exact
        ),
    }
    if context.sampled_on_label:
        why = (
            "cases and controls were sampled apart: the share of positives is the sampler's, "
            "not the clinic's"
        )
        out |= dict.fromkeys(("ppv", "npv", "accuracy"), undefined(why + "; see predictive_at"))
    else:
        out["ppv"] = proportion_estimate(label[called], patient[called], level, exact=context.exact)
        out["npv"] = proportion_estimate(
            ~label[~called], patient[~called], level, exact=context.exact
        )
        out["accuracy"] = proportion_estimate(called == label, patient, level, exact=context.exact)
    out["lr_positive"] = likelihood_ratio(called, label, patient, level, "LR+")
    out["lr_negative"] = likelihood_ratio(~called, label, patient, level, "LR-")
    return out


def _refused_as_error(
    sample: Sample, called: NDArray[np.bool_], context: OperatingPointContext
) -> dict[str, Estimate]:
    """Sensitivity and specificity with every refused or failed unit counted as wrong."""
    label = np.concatenate([sample.label, context.refused_label])
    right = np.concatenate(
        [called == sample.label, np.zeros(context.refused_label.size, dtype=bool)]
    )
    patient = np.concatenate([sample.patient, context.refused_patient])
    return {
        "sensitivity": proportion_estimate(
            right[label], patient[label], context.level, exact=context.exact
        ),
        "specificity": proportion_estimate(
            right[~label], patient[~label], context.level, exact=context.exact
        ),
    }


def _predictive_at(
    sample: Sample, called: NDArray[np.bool_], prevalence: float, context: OperatingPointContext
) -> dict[str, Any]:
    ppv, npv = predictive_values(called, sample.label, sample.patient, prevalence, context.level)
    return {"prevalence": prevalence, "ppv": ppv, "npv": npv}


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

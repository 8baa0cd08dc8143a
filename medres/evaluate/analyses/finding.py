"""All figures of one finding, in the order of report.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from medres.evaluate.analyses.worst_errors import worst_errors
from medres.evaluate.metrics.auc import auc_estimates
from medres.evaluate.metrics.average_precision import average_precision_estimate
from medres.evaluate.metrics.calibration import (
    brier_decomposition,
    brier_estimate,
    calibration_estimates,
    n_clipped,
    reliability,
)
from medres.evaluate.metrics.calibration_curve import flexible_curve, ici_estimate
from medres.evaluate.metrics.decision_curve import decision_curve_report
from medres.evaluate.metrics.goodness_of_fit import goodness_of_fit_report
from medres.evaluate.metrics.operating_point import (
    Threshold,
    operating_point_context,
    operating_point_report,
)
from medres.evaluate.metrics.optimism import optimism_corrected
from medres.evaluate.metrics.partial_auc import partial_auc_report
from medres.evaluate.metrics.roc import thin_curve
from medres.evaluate.metrics.sample_size import sample_size_report
from medres.evaluate.options import ReportOptions
from medres.evaluate.scores.sample import Sample, rank_counts
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.bootstrap import replicates_for
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import normal_quantile, proportion_estimate, t_quantile

NOT_PROBABILITIES = "scores leave 0..1: they are ranks, not probabilities"
HISTOGRAM_BINS = 40
CASE_CONTROL = (
    "cases and controls were sampled apart, so the share of positives says nothing of the clinic's"
)


def finding_report(
    units: AnalysisUnits, name: str, points: list[Threshold], options: ReportOptions
) -> dict[str, Any]:
    """n's, AUC, average precision, Brier, calibration, operating points and curves of one finding
    (values: Estimates).
    """
    sample, label = units.sample(name), units.label[name]
    known = np.isin(label, (0.0, 1.0))
    out: dict[str, Any] = {
        "n": sample.label.size,
        "n_positive": sample.n_positive,
        "n_not_assessed": int(np.isnan(label).sum()),
        "n_uncertain": int((label == -1.0).sum()),
        "n_refused": int((units.refused & known).sum()),
        "n_positive_patients": sample.patients_with(True) if units.has_patient else None,
        "n_negative_patients": sample.patients_with(False) if units.has_patient else None,
    }
    out["prevalence"] = _unless_case_control(
        options, lambda: proportion_estimate(sample.label, sample.patient, options.level)
    )
    out |= auc_estimates(sample, options.level)
    positives, negatives = sample.patients_with(True), sample.patients_with(False)
    out["precision"] = sample_size_report(
        out["auc"], positives, negatives, options.margin, options.level
    )
    out["average_precision"] = _unless_case_control(
        options, lambda: average_precision_estimate(sample, options.level)
    )
    out |= _probability_figures(sample, options)
    context = operating_point_context(units, name, options)
    out["operating_points"] = [operating_point_report(sample, point, context) for point in points]
    replicates = replicates_for(units.n_units, len(units.names))
    out |= partial_auc_report(sample, options.level, replicates)
    for point in out["operating_points"]:
        if point["origin"] == "exploratory":
            point["optimism_corrected"] = optimism_corrected(sample, options.level, replicates)
    out["decision_curve"] = _decision_curve(sample, options.prevalence.get(name), options)
    if out["n_uncertain"]:
        out["uncertain_bounds"] = _uncertain_bounds(units, name, options)
    if points:
        out["worst_errors"] = worst_errors(units, name, points[0].threshold)
    if sample.label.size:
        out["curves"] = _curves(sample, out, options)
    return out


def is_probability(sample: Sample) -> bool:
    return bool(np.all((sample.score >= 0.0) & (sample.score <= 1.0)))


def _unless_case_control(options: ReportOptions, compute: Any) -> Estimate:
    return undefined(CASE_CONTROL) if options.case_control else compute()


def _probability_figures(sample: Sample, options: ReportOptions) -> dict[str, Any]:
    """Brier and calibration, or the reason why they are left out."""
    why = None
    if options.case_control:
        why = CASE_CONTROL
    elif sample.label.size == 0:
        why = "no unit"
    elif not is_probability(sample):
        why = NOT_PROBABILITIES
    if why is not None:
        names = ("slope", "intercept", "in_the_large", "oe_ratio", "ici", "ece")
        return {"brier": undefined(why), "calibration": dict.fromkeys(names, undefined(why))}
    return {
        "brier": brier_estimate(sample, options.level),
        "brier_decomposition": brier_decomposition(sample),
        "goodness_of_fit": goodness_of_fit_report(sample),
        "calibration": calibration_estimates(sample, options.level)
        | {"ici": ici_estimate(sample, options.level), "n_clipped": n_clipped(sample.score)},
    }


def _decision_curve(
    sample: Sample, prevalence: float | None, options: ReportOptions
) -> dict[str, Any]:
    why = None
    if sample.n_positive == 0 or sample.n_negative == 0:
        why = "one class only"
    elif not is_probability(sample):
        why = NOT_PROBABILITIES
    elif options.case_control and prevalence is None:
        why = CASE_CONTROL + ": state one with --prevalence"
    if why is not None:
        return {"prevalence": prevalence, "threshold": None, "model": None, "all": None, "why": why}
    return decision_curve_report(sample, prevalence, options.level)


def _uncertain_bounds(units: AnalysisUnits, name: str, options: ReportOptions) -> dict[str, Any]:
    """The AUC with every uncertain unit taken as negative, then as positive."""
    out: dict[str, Any] = {}
    for key, value in (("all_negative", 0.0), ("all_positive", 1.0)):
        label = np.where(units.label[name] == -1.0, value, units.label[name])
        use = ~units.refused & np.isin(label, (0.0, 1.0))
        sample = Sample(
            label[use] == 1.0, units.score[name][use], units.patient[use], units.fold[use]
        )
        out[key] = {
            "n_positive": sample.n_positive,
            "auc": auc_estimates(sample, options.level)["auc"],
        }
    return out


def _curves(sample: Sample, numbers: dict[str, Any], options: ReportOptions) -> dict[str, Any]:
    counts = rank_counts(sample.label, sample.score)
    out: dict[str, Any] = {"counts": thin_curve(counts), "histogram": _histogram(sample)}
    out["wilson"] = wilson_terms(numbers, options.level)
    if numbers["brier"].estimate is not None:
        out["reliability"] = reliability(sample, options.level)
        out["flexible"] = flexible_curve(sample)
    return out


def wilson_terms(numbers: dict[str, Any], level: float) -> dict[str, list[float]]:
    """Design effects and quantiles of sensitivity and specificity at the first point, for the
    page's live intervals.
    """
    first = numbers["operating_points"][0] if numbers["operating_points"] else {}
    rates = [first[key] for key in ("sensitivity", "specificity") if key in first]
    return {
        "effects": [rate.design_effect or 1.0 for rate in rates],
        "quantiles": [
            t_quantile(level, rate.n_clusters - 1) if rate.design_effect else normal_quantile(level)
            for rate in rates
        ],
    }


def _histogram(sample: Sample) -> dict[str, list[Any]]:
    """Units by score and label, infinite scores in the outermost bins."""
    finite = sample.score[np.isfinite(sample.score)]
    low, high = (
        (0.0, 1.0)
        if is_probability(sample) or finite.size == 0
        else (float(finite.min()), float(finite.max()))
    )
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    inside = np.clip(sample.score, low, high)
    return {
        "edges": edges.tolist(),
        "positive": np.histogram(inside[sample.label], edges)[0].tolist(),
        "negative": np.histogram(inside[~sample.label], edges)[0].tolist(),
    }

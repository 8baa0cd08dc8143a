"""All figures of one finding. A new metric is called here and stored in a field of `Finding`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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
from medres.evaluate.metrics.calibration_curve import curve_or_why, ici_estimate
from medres.evaluate.metrics.decision_curve import decision_curve_report
from medres.evaluate.metrics.goodness_of_fit import goodness_of_fit_report
from medres.evaluate.metrics.operating_point import (
    operating_point_context,
    operating_point_report,
)
from medres.evaluate.metrics.optimism import bootstrap_statistics as optimism_statistics
from medres.evaluate.metrics.optimism import optimism_corrected
from medres.evaluate.metrics.partial_auc import bootstrap_statistics as partial_auc_statistics
from medres.evaluate.metrics.partial_auc import partial_auc_report
from medres.evaluate.metrics.roc import thin_curve
from medres.evaluate.metrics.roc_band import roc_band
from medres.evaluate.metrics.sample_size import sample_size_report
from medres.evaluate.metrics.thresholds import Threshold
from medres.evaluate.options import ReportOptions
from medres.evaluate.results import (
    BrierDecomposition,
    Calibration,
    CalibrationCurves,
    DecisionCurve,
    GoodnessOfFit,
    Histogram,
    NoCalibration,
    OperatingPoint,
    WilsonTerms,
)
from medres.evaluate.schema import Bound, Curves, Finding, UncertainBounds
from medres.evaluate.scores.sample import Float64Array, Sample
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.bootstrap import coarsened, replicates_for, resampled
from medres.evaluate.statistics.clusters import degrees, t_quantile
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import normal_quantile, proportion_estimate

NOT_PROBABILITIES = "some scores are outside 0..1: they are ranks, not probabilities"
HARD_SCORES = (
    "all scores are 0 or 1: they are decisions, not probabilities, so calibration means nothing"
)
HISTOGRAM_BINS = 40
CASE_CONTROL = (
    "cases and controls were sampled separately, so the proportion of positives is not that of the "
    "clinic"
)


def finding_report(
    units: AnalysisUnits, name: str, thresholds: list[Threshold], options: ReportOptions
) -> Finding:
    """Counts, discrimination, calibration, operating points and curves of one finding. Subgroups,
    readers and the other unit of analysis are added by the report.
    """
    sample, label = units.sample(name), units.label[name]
    assessed = np.isin(label, (0.0, 1.0))
    positives, negatives = sample.patients_with(True), sample.patients_with(False)
    auc = auc_estimates(sample, options.level)
    replicates = replicates_for(units.n_units, len(units.names))
    context = operating_point_context(units, name, options)
    points = [operating_point_report(sample, threshold, context) for threshold in thresholds]
    draws = None
    if any(point.origin == "exploratory" for point in points):
        statistics = partial_auc_statistics(sample, options.partial_auc) | optimism_statistics()
        draws = resampled(coarsened(sample), statistics, replicates)  # once, since it takes long
    partial_auc, at_fixed = partial_auc_report(
        sample, options.level, replicates, options.partial_auc, draws
    )
    probability = _probability_figures(sample, options)
    n_uncertain = int((label == -1.0).sum())
    return Finding(
        n=sample.label.size,
        n_positive=sample.n_positive,
        n_not_assessed=int(np.isnan(label).sum()),
        n_uncertain=n_uncertain,
        n_refused=int((units.refused & assessed).sum()),
        n_positive_patients=positives if units.has_patient else None,
        n_negative_patients=negatives if units.has_patient else None,
        effective_positive_patients=sample.effective_patients(True) if sample.unequal else None,
        effective_negative_patients=sample.effective_patients(False) if sample.unequal else None,
        prevalence=_unless_case_control(
            options, lambda: proportion_estimate(sample.label, sample.patient, options.level)
        ),
        auc=auc.auc,
        auc_wald=auc.auc_wald,
        auc_logit=auc.auc_logit,
        auc_newcombe=auc.auc_newcombe,
        auc_patient_weighted=auc.auc_patient_weighted,
        precision=sample_size_report(auc.auc, positives, negatives, options.margin, options.level),
        average_precision=_unless_case_control(
            options, lambda: average_precision_estimate(sample, options.level)
        ),
        brier=probability.brier,
        brier_decomposition=probability.decomposition,
        goodness_of_fit=probability.goodness_of_fit,
        calibration=probability.calibration,
        operating_points=[
            _less_optimism(point, sample, options.level, replicates, draws) for point in points
        ],
        partial_auc=partial_auc,
        at_fixed=at_fixed,
        decision_curve=_decision_curve(sample, options.prevalence.get(name), options),
        uncertain_bounds=_uncertain_bounds(units, name, options) if n_uncertain else None,
        worst_errors=worst_errors(units, name, thresholds[0].value) if thresholds else None,
        curves=(
            _curves(sample, points, options, calibrated=probability.brier.estimate is not None)
            if sample.label.size
            else None
        ),
        title=name,
    )


def is_probability(sample: Sample) -> bool:
    return bool(np.all((sample.score >= 0.0) & (sample.score <= 1.0)))


def is_hard(sample: Sample) -> bool:
    """Whether the scores are decisions: 0 or 1 only."""
    return bool(np.all((sample.score == 0.0) | (sample.score == 1.0)))


def wilson_terms(points: list[OperatingPoint], level: float) -> WilsonTerms:
    """Design effects and quantiles of sensitivity and specificity at the first point, for the
    page's live intervals.
    """
    rates = [points[0].rates.sensitivity, points[0].rates.specificity] if points else []
    return WilsonTerms(
        [rate.design_effect or 1.0 for rate in rates],
        [
            t_quantile(level, degrees(rate.effective_patients or rate.n_clusters))
            if rate.design_effect and rate.n_clusters
            else normal_quantile(level)
            for rate in rates
        ],
    )


def _unless_case_control(options: ReportOptions, estimate: Callable[[], Estimate]) -> Estimate:
    return undefined(CASE_CONTROL) if options.case_control else estimate()


def _less_optimism(
    point: OperatingPoint,
    sample: Sample,
    level: float,
    replicates: int,
    draws: Mapping[str, Float64Array] | None,
) -> OperatingPoint:
    if point.origin != "exploratory":
        return point
    return replace(point, optimism_corrected=optimism_corrected(sample, level, replicates, draws))


@dataclass(frozen=True)
class _ProbabilityFigures:
    """What needs scores that are probabilities."""

    brier: Estimate
    calibration: Calibration | NoCalibration
    decomposition: BrierDecomposition | None = None
    goodness_of_fit: GoodnessOfFit | None = None


def _probability_figures(sample: Sample, options: ReportOptions) -> _ProbabilityFigures:
    """Brier score and calibration, or the reason why they are left out."""
    why = None
    if options.case_control:
        why = CASE_CONTROL
    elif sample.label.size == 0:
        why = "no unit"
    elif not is_probability(sample):
        why = NOT_PROBABILITIES
    elif is_hard(sample):
        why = HARD_SCORES
    if why is not None:
        null = undefined(why)
        missing = NoCalibration(
            slope=null, intercept=null, in_the_large=null, oe_ratio=null, ici=null, ece=null
        )
        return _ProbabilityFigures(null, missing)
    estimates = calibration_estimates(sample, options.level)
    calibration = Calibration(
        slope=estimates.slope,
        intercept=estimates.intercept,
        in_the_large=estimates.in_the_large,
        oe_ratio=estimates.oe_ratio,
        ece=estimates.ece,
        ici=ici_estimate(sample, options.level),
        n_clipped=n_clipped(sample.score),
    )
    return _ProbabilityFigures(
        brier_estimate(sample, options.level),
        calibration,
        brier_decomposition(sample),
        goodness_of_fit_report(sample),
    )


def _decision_curve(
    sample: Sample, prevalence: float | None, options: ReportOptions
) -> DecisionCurve:
    why = None
    if sample.n_positive == 0 or sample.n_negative == 0:
        why = "one class only"
    elif not is_probability(sample):
        why = NOT_PROBABILITIES
    elif options.case_control and prevalence is None:
        why = CASE_CONTROL + ": state one with --prevalence"
    if why is not None:
        return DecisionCurve(prevalence, None, None, None, why=why)
    prior = None
    if not options.case_control and not is_hard(sample):
        prior = sample.n_positive / sample.label.size
    return decision_curve_report(sample, prevalence, options.level, prior)


def _uncertain_bounds(units: AnalysisUnits, name: str, options: ReportOptions) -> UncertainBounds:
    """The AUC with every uncertain unit taken as negative, then as positive."""

    def bound(value: float) -> Bound:
        label = np.where(units.label[name] == -1.0, value, units.label[name])
        use = ~units.refused & np.isin(label, (0.0, 1.0))
        sample = Sample(
            label[use] == 1.0, units.score[name][use], units.patient[use], units.fold[use]
        )
        return Bound(sample.n_positive, auc_estimates(sample, options.level).auc)

    return UncertainBounds(all_negative=bound(0.0), all_positive=bound(1.0))


def _curves(
    sample: Sample, points: list[OperatingPoint], options: ReportOptions, *, calibrated: bool
) -> Curves:
    calibration = None
    if calibrated:
        bins, curve = reliability(sample, options.level), curve_or_why(sample)
        calibration = (
            CalibrationCurves(bins, None, curve)
            if isinstance(curve, str)
            else CalibrationCurves(bins, curve)
        )
    return Curves(
        counts=thin_curve(sample.counts),
        band=roc_band(sample, options.level),
        histogram=_histogram(sample),
        wilson=wilson_terms(points, options.level),
        calibration=calibration,
    )


def _histogram(sample: Sample) -> Histogram:
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
    clipped = np.clip(sample.score, low, high)
    return Histogram(
        edges.tolist(),
        positive=np.histogram(clipped[sample.label], edges)[0].tolist(),
        negative=np.histogram(clipped[~sample.label], edges)[0].tolist(),
    )

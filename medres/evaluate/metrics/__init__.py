"""One measure per file, each an estimate with its interval; results.py has the types of measures
that are more than one estimate. May import scores and statistics; numpy and scipy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.evaluate.metrics.auc import SMALL_CLASS, WIDE_AUC, WIDE_CLASS, auc_estimates
    from medres.evaluate.metrics.average_precision import average_precision_estimate
    from medres.evaluate.metrics.calibration import (
        brier_decomposition,
        brier_estimate,
        calibration_estimates,
        expit,
        n_clipped,
        reliability,
    )
    from medres.evaluate.metrics.calibration_curve import flexible_curve, ici_estimate
    from medres.evaluate.metrics.decision_curve import decision_curve_report
    from medres.evaluate.metrics.goodness_of_fit import goodness_of_fit_report
    from medres.evaluate.metrics.macro import macro_auc
    from medres.evaluate.metrics.multiclass import multiclass_report
    from medres.evaluate.metrics.operating_point import (
        OperatingPointContext,
        operating_point_context,
        operating_point_report,
    )
    from medres.evaluate.metrics.optimism import optimism_corrected
    from medres.evaluate.metrics.partial_auc import partial_auc_report
    from medres.evaluate.metrics.roc import auc_covariance, influence, placements, thin_curve
    from medres.evaluate.metrics.sample_size import sample_size_report
    from medres.evaluate.metrics.thresholds import (
        Criterion,
        Threshold,
        check_tune,
        choose_thresholds,
        criterion,
        threshold,
    )

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.evaluate.metrics.auc": "SMALL_CLASS WIDE_AUC WIDE_CLASS auc_estimates",
        "medres.evaluate.metrics.average_precision": "average_precision_estimate",
        "medres.evaluate.metrics.calibration": "brier_decomposition brier_estimate "
        "calibration_estimates expit n_clipped reliability",
        "medres.evaluate.metrics.calibration_curve": "flexible_curve ici_estimate",
        "medres.evaluate.metrics.decision_curve": "decision_curve_report",
        "medres.evaluate.metrics.goodness_of_fit": "goodness_of_fit_report",
        "medres.evaluate.metrics.macro": "macro_auc",
        "medres.evaluate.metrics.multiclass": "multiclass_report",
        "medres.evaluate.metrics.operating_point": "OperatingPointContext operating_point_context "
        "operating_point_report",
        "medres.evaluate.metrics.optimism": "optimism_corrected",
        "medres.evaluate.metrics.partial_auc": "partial_auc_report",
        "medres.evaluate.metrics.roc": "auc_covariance influence placements thin_curve",
        "medres.evaluate.metrics.sample_size": "sample_size_report",
        "medres.evaluate.metrics.thresholds": "Criterion Threshold check_tune choose_thresholds "
        "criterion threshold",
    },
)

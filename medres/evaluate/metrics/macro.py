"""The unweighted mean AUC over the findings, with an interval from the patients' joint
influence.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from medres.evaluate.metrics.roc import Placements, influence, placements
from medres.evaluate.results import Macro, SkippedFinding
from medres.evaluate.scores.units import AnalysisUnits
from medres.evaluate.statistics.estimate import Estimate, undefined
from medres.evaluate.statistics.intervals import logit_interval, normal_quantile


def macro_auc(units: AnalysisUnits, level: float) -> Macro:
    """The mean over every finding that two patients have and two do not have; the other findings
    are named with the reason.
    """
    groups = int(units.patient.max()) + 1
    parts: list[Placements] = []
    findings: list[str] = []
    skipped: list[SkippedFinding] = []
    for name in units.names:
        sample = units.sample(name)
        if min(sample.patients_with(True), sample.patients_with(False)) < 2:
            why = "fewer than two patients with, or without, the finding"
            skipped.append(SkippedFinding(name, why))
            continue
        try:
            parts.append(placements(sample, groups))
        except ValueError as error:
            skipped.append(SkippedFinding(name, str(error)))
            continue
        findings.append(name)
    if not parts:
        return Macro(undefined("no finding has both classes"), findings, skipped)
    value = float(np.mean([p.auc for p in parts]))
    counted = np.logical_or.reduce([units.usable(name) for name in findings])
    patients = int(np.unique(units.patient[counted]).size) if units.has_patient else None
    estimate = partial(Estimate, value, n=int(counted.sum()), n_clusters=patients)
    by_patient = np.mean([influence(p) for p in parts], axis=0)
    error_size = math.sqrt(float(by_patient @ by_patient))
    if error_size < 1e-12 or not 0.0 < value < 1.0:
        auc = estimate(why="the estimated variance is zero: no interval of this kind")
    else:
        method = "mean of AUCs, joint influence by patient, logit"
        limits = logit_interval(value, error_size, normal_quantile(level))
        auc = estimate(*limits, level, "two", method)
    return Macro(auc, findings, skipped)

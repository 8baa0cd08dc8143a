"""The methods paragraph of a report, for a manuscript: it describes only what was computed."""

from __future__ import annotations

from medres.evaluate.analyses.unpaired_comparison import HYBRID_AUC
from medres.evaluate.metrics.auc import SMALL_CLASS
from medres.evaluate.options import ReportOptions
from medres.evaluate.schema import Finding, Report

ORIGINS = {
    "frozen": "Frozen thresholds were chosen on a separate tuning (validation) split.",
    "declared": "Declared thresholds were specified by the user.",
    "exploratory": "Exploratory thresholds maximize Youden's index on the evaluated data and are "
    "therefore optimistic; sensitivity and specificity corrected for optimism, with the threshold "
    "chosen again in every bootstrap sample (Harrell 1996), are also reported.",
}


def methods(report: Report, options: ReportOptions) -> str:
    """The paragraph for the methods section of a paper: which unit of analysis, intervals and tests
    this report used, each with its reference. Sentences about what the report lacks are left out.
    """
    return " ".join(
        [*_units(report), *_accuracy(report, options), *_further(report), *_several(report)]
    )


def _units(report: Report) -> list[str]:
    unit = report.analysis_unit
    sentences = [f"The unit of analysis was the {unit}."]
    if report.pooling.score:
        sentences.append(f"Image scores were pooled to the {unit} by {report.pooling.score}.")
    if report.cluster:
        sentences.append(
            "If patients contributed several units, patients were treated as clusters in all "
            "intervals."
        )
        if any(f.effective_positive_patients is not None for f in report.findings.values()):
            sentences.append(
                "Because patients contributed different numbers of units, intervals that are not "
                "from a bootstrap use Kish's effective number of patients (1965), a "
                "variance that allows for the leverage of large patients (Bell & McCaffrey 2002) "
                "and Student's t with Satterthwaite's degrees of freedom (1946)."
            )
        if report.headline == "patient":
            share = 100 * (report.largest_patient_share or 0.0)
            sentences.append(
                "The leading AUC gives each patient of a class the same weight, because one "
                f"patient contributed {share:.0f}% of the units."
            )
    else:
        sentences.append(
            "Units were treated as independent because no patient identifier was available."
        )
    if report.folds:
        sentences.append(
            f"Scores came from {report.folds} folds or seeds of a cross-validation; the AUC "
            f"is the mean of the AUCs within each of them (LeDell et al. 2015)."
        )
    return sentences


def _accuracy(report: Report, options: ReportOptions) -> list[str]:
    level = f"{100 * options.level:g}%"
    auc = (
        "Discrimination was measured by the empirical area under the receiver operating "
        "characteristic (ROC) curve (AUC). Its variance was estimated by the method of DeLong et "
        "al. (1988), or of Obuchowski (1997) for clustered data. "
        f"{level} confidence intervals were computed on the AUC scale (Wald), on the logit scale, "
        "and by method 5 of Newcombe (2006), with class sizes divided by the design effect for "
        "clustered data. Newcombe's interval is the headline interval if either class had fewer "
        f"than {SMALL_CLASS} patients or the AUC exceeded 0.95, the logit interval otherwise. At "
        "an AUC of 0 or 1, a one-sided exact bound from disjoint pairs of patients is reported."
    )
    rates = (
        "A score equal to or above the threshold was classified as positive. For sensitivity, "
        f"specificity, predictive values and accuracy, {level} "
        f"{'Clopper-Pearson' if options.exact else 'Wilson'} intervals are reported; for clustered "
        "data, Wilson intervals with the effective sample size and quantiles of Student's t "
        "distribution. For likelihood ratios, intervals by the log method are reported (Simel et "
        "al. 1991)."
    )
    origins = {p.origin for f in report.findings.values() for p in f.operating_points}
    return [auc, rates, *(sentence for origin, sentence in ORIGINS.items() if origin in origins)]


def _further(report: Report) -> list[str]:
    findings, sentences = list(report.findings.values()), []
    if any(f.average_precision.estimate is not None for f in findings):
        sentences.append(
            "Average precision is the stepwise sum of precision over recall; its interval was "
            "computed by the infinitesimal jackknife over patients on the logit scale."
        )
    if any(f.brier.estimate is not None for f in findings):
        sentences.append(
            "Calibration was assessed by the calibration intercept and slope (Cox), calibration in "
            "the large, and the ratio of observed to expected events, with sandwich variances "
            "clustered by patient; by the integrated calibration index of a restricted cubic "
            "spline with four knots (Austin & Steyerberg 2019); and by the Brier score with its "
            "CORP decomposition (Dimitriadis et al. 2021)."
        )
    tests = [f.goodness_of_fit for f in findings if f.goodness_of_fit is not None]
    if any(test.spiegelhalter.p_value is not None for test in tests):
        sentences.append(
            "Goodness of fit was tested by the Hosmer-Lemeshow test (1980), with as many degrees "
            "of freedom as groups, and by Spiegelhalter's test (1986)."
        )
    replicates = [
        area.raw.replicates
        for f in findings
        for area in f.partial_auc
        if area.raw.replicates is not None
    ]
    if replicates:
        sentences.append(
            "For partial AUCs (McClish 1989), and for sensitivity and specificity at a fixed value "
            f"of the other, intervals from {max(replicates):,} bootstrap samples of patients are "
            "reported: percentile intervals, or score intervals on the variance of the bootstrap "
            "if a class has fewer than 200 patients."
        )
    if any(f.decision_curve.model for f in findings):
        sentences.append(
            "Net benefit was computed as in Vickers & Elkin (2006), with a sandwich variance "
            "clustered by patient."
        )
    if any(f.decision_curve.recalibrated for f in findings):
        sentences.append(
            "Net benefit at a stated prevalence is also given with risks recalibrated from the "
            "prevalence in the sample to the stated one by the ratio of the prior odds (Saerens et "
            "al. 2002)."
        )
    if report.design.prevalence:
        sentences.append(
            "For predictive values at a stated prevalence, logit intervals are reported (Mercaldo "
            "et al. 2007)."
        )
    if any(f.subgroups for f in findings):
        sentences.append(
            "AUCs of subgroups were compared by "
            + " or ".join(_level_tests(findings))
            + ", with Holm's adjustment over the subgroup variables; subgroups with fewer than 10 "
            "patients in a class were suppressed."
        )
    second_units = [f.other_unit.unit for f in findings if f.other_unit is not None]
    if second_units:
        sentences.append(
            "In the estimates by patient, a patient has the finding, and is classified as "
            "positive, if any of the patient's images has it, or is."
            if second_units[0] == "patient"
            else "The estimates by image use the label and score of each image."
        )
    return sentences


def _level_tests(findings: list[Finding]) -> list[str]:
    """The tests of subgroups that were used."""
    methods = {row.interaction_method for f in findings for row in f.subgroups}
    return sorted(f"a {method}" for method in methods if method) or ["no test"]


def _several(report: Report) -> list[str]:
    """Several findings, classes or models."""
    sentences = []
    if report.macro is not None and report.macro.auc.ci_low is not None:
        sentences.append(
            "The mean AUC is the unweighted mean over the findings listed; its interval on the "
            "logit scale was computed from the joint influence of each patient."
        )
    if report.multiclass is not None:
        sentences.append(
            "The predicted class was the most probable class. For accuracy, a Wilson interval is "
            "reported; for balanced accuracy and Cohen's kappa, intervals by the delta method over "
            "patients. The AUC over pairs of classes is that of Hand & Till (2001)."
        )
    paired = [row for row in report.comparisons if not row.unpaired]
    unpaired = [row for row in report.comparisons if row.unpaired]
    if paired:
        sentences.append(
            "Models were compared on the same images by the paired test of DeLong et al. "
            "(clustered by patient if patients contributed several units), with Holm's adjustment "
            "over all comparisons."
        )
    if unpaired:
        sentences.append(
            "AUCs of different patients were compared by the unpaired test of DeLong et al. "
            "(clustered by patient if patients contributed several units), by Student's t with "
            "Satterthwaite's degrees of freedom (1946)"
            + (", with Holm's adjustment over all comparisons." if not paired else ".")
        )
    if any(HYBRID_AUC in (row.auc_difference.method or "") for row in unpaired):
        sentences.append(
            "Where an AUC was exactly 0 or 1, so that it had no variance, the interval and the "
            "p-value came from the intervals of the two AUCs (Newcombe 2006, method 5), combined "
            "as for two proportions (Newcombe 1998, method 10)."
        )
    if any(row.rates is not None for row in unpaired):
        sentences.append(
            "Sensitivities and specificities of different patients at a threshold declared for "
            "both models were compared by Newcombe's interval (1998, method 10) and the chi-square "
            "test (Fisher's exact test if fewer than 5 units were expected in a cell), or, for "
            "clustered data, by both with effective numbers of units (Rao & Scott 1992); these "
            "p-values are not adjusted."
        )
    if any(row.rates is not None for row in paired):
        sentences.append(
            "Sensitivity and specificity at a threshold declared for both models were compared by "
            "Tango's score interval (1998) and McNemar's test (exact with fewer than 25 discordant "
            "pairs), or, for clustered data, by the paired difference with a sandwich variance "
            "clustered by patient; these p-values are not adjusted."
        )
    if report.global_comparisons:
        sentences.append(
            "The hypothesis that all models have the same AUC was tested by the global chi-square "
            "test of DeLong et al., compared with the F distribution (degrees of freedom of "
            "Krishnamoorthy & Yu 2004)."
        )
    margins = [c.noninferiority.margin for c in report.comparisons if c.noninferiority is not None]
    if margins:
        sentences.append(
            "A model was considered non-inferior if the lower limit of the one-sided 97.5% "
            "confidence interval of the AUC difference (model minus reference) was above "
            f"−{margins[0]}."
        )
    return sentences

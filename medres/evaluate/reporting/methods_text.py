"""A methods paragraph ready to paste: what was computed, and only that."""

from __future__ import annotations

from typing import Any

from medres.evaluate.metrics.auc import SMALL_CLASS
from medres.evaluate.options import ReportOptions

ORIGINS = {
    "frozen": "Frozen thresholds were chosen on a separate tuning split.",
    "declared": "Declared thresholds were stated by the user.",
    "exploratory": "Exploratory thresholds maximise Youden's index on the evaluated data and are "
    "optimistic; sensitivity and "
    "specificity less the optimism, estimated by choosing the threshold anew in every bootstrap "
    "sample (Harrell 1996), are "
    "given beside.",
}


def methods(numbers: dict[str, Any], options: ReportOptions) -> str:
    return " ".join(
        [*_units(numbers), *_accuracy(numbers, options), *_further(numbers), *_several(numbers)]
    )


def _units(numbers: dict[str, Any]) -> list[str]:
    unit, out = numbers["analysis_unit"], []
    out.append(f"The unit of analysis was the {unit}.")
    if numbers["pooling"]["score"]:
        out.append(f"Image scores were pooled to the {unit} by {numbers['pooling']['score']}.")
    if numbers["cluster"]:
        out.append(
            "Patients were treated as clusters in all intervals wherever a patient contributed "
            "several units."
        )
    else:
        out.append("Units were treated as independent, since no patient identifier was given.")
    if numbers["folds"]:
        out.append(
            f"Scores came from {numbers['folds']} folds or seeds and were ranked within "
            f"each; the AUC is the mean of "
            "these AUCs (LeDell et al. 2015)."
        )
    return out


def _accuracy(numbers: dict[str, Any], options: ReportOptions) -> list[str]:
    level = f"{100 * options.level:g}%"
    auc = (
        "Discrimination was measured by the empirical area under the ROC curve (AUC), with "
        "variance after DeLong et al. "
        f"(1988), which for clustered data is that of Obuchowski (1997); {level} confidence "
        f"intervals were computed on the "
        "AUC scale (Wald), on the logit scale, and by method 5 of Newcombe (2006) with class "
        "sizes divided by the design "
        "effect where patients repeat. Newcombe's interval is reported first where either class "
        "had fewer than "
        f"{SMALL_CLASS} patients or the AUC exceeded .95, the logit interval otherwise; at an AUC "
        f"of 0 or 1 a one-sided "
        "exact bound on disjoint patient pairs is given."
    )
    rates = (
        "A score equal to or above the threshold was called positive. Sensitivity, specificity, "
        "predictive values and "
        f"accuracy have {level} {'Clopper-Pearson' if options.exact else 'Wilson'} intervals; "
        f"where patients repeat, Wilson "
        "intervals on the effective sample size with Student's t. Likelihood ratios have "
        "intervals by the log method "
        "(Simel et al. 1991)."
    )
    origins = {p["origin"] for f in numbers["findings"].values() for p in f["operating_points"]}
    return [auc, rates, *(sentence for origin, sentence in ORIGINS.items() if origin in origins)]


def _further(numbers: dict[str, Any]) -> list[str]:
    findings, out = list(numbers["findings"].values()), []
    if any(f["average_precision"]["estimate"] is not None for f in findings):
        out.append(
            "Average precision is the stepwise sum of precision over recall, its interval "
            "by the infinitesimal "
            "jackknife over patients on the logit scale."
        )
    if any(f["brier"]["estimate"] is not None for f in findings):
        out.append(
            "Calibration was assessed by the Cox intercept and slope, calibration in the "
            "large, and the ratio of "
            "observed to expected events, with sandwich variances over patients; by the "
            "integrated calibration index "
            "of a restricted cubic spline with four knots (Austin & Steyerberg 2019); and "
            "by the Brier score with its "
            "CORP decomposition (Dimitriadis et al. 2021)."
        )
    if any(
        f.get("goodness_of_fit", {}).get("spiegelhalter", {}).get("p_value") is not None
        for f in findings
    ):
        out.append(
            "Goodness of fit was tested after Hosmer & Lemeshow (1980), with as many "
            "degrees of freedom as groups, and "
            "after Spiegelhalter (1986)."
        )
    replicates = [
        row["raw"]["replicates"]
        for f in findings
        for row in f["partial_auc"]
        if "replicates" in row["raw"]
    ]
    if replicates:
        out.append(
            "Partial areas (McClish 1989) and rates at a fixed sensitivity or specificity "
            "have percentile intervals "
            f"from {max(replicates):,} bootstrap samples of patients."
        )
    if any(f["decision_curve"]["model"] for f in findings):
        out.append(
            "Net benefit follows Vickers & Elkin (2006), with a sandwich variance over patients."
        )
    if numbers["design"]["prevalence"]:
        out.append(
            "Predictive values at a stated prevalence have logit intervals (Mercaldo et al. 2007)."
        )
    if any(f["subgroups"] for f in findings):
        out.append(
            "Subgroup AUCs were compared by a Wald chi-square test on the logit scale with "
            "Holm's adjustment over the "
            "columns; levels with fewer than 10 patients in a class were suppressed."
        )
    if any("other_unit" in f for f in findings):
        unit = next(f["other_unit"]["unit"] for f in findings if "other_unit" in f)
        out.append(
            f"The figures by {unit} take a patient as positive, and as flagged, where any image is."
            if unit == "patient"
            else "The figures by image use each image's own label and score."
        )
    return out


def _several(numbers: dict[str, Any]) -> list[str]:
    """Several findings, classes or models."""
    out = []
    if numbers.get("macro", {}).get("auc", {}).get("ci_low") is not None:
        out.append(
            "The mean AUC is unweighted over the findings named; its interval follows from "
            "the joint influence of each "
            "patient, on the logit scale."
        )
    if "multiclass" in numbers:
        out.append(
            "The most probable class was called. Accuracy has a Wilson interval, balanced "
            "accuracy and Cohen's kappa "
            "intervals by the delta method over patients; the AUC over pairs of classes is "
            "that of Hand & Till (2001)."
        )
    rows = numbers["comparisons"]
    if rows:
        out.append(
            "Models were compared on the same images by the paired test of DeLong et al., "
            "clustered by patient where "
            "patients repeat, with Holm's adjustment over all comparisons."
        )
    if any("sensitivity_difference" in row for row in rows):
        out.append(
            "Sensitivity and specificity at a threshold declared for both models were "
            "compared by Tango's score "
            "interval (1998) and McNemar's test (exact under 25 discordant pairs), or, "
            "where patients repeat, by the "
            "paired difference with a sandwich variance over patients; these p-values are "
            "not adjusted."
        )
    if numbers.get("global_comparisons"):
        out.append(
            "That all models have the same AUC was tested by the global chi-square test of DeLong "
            "et al."
        )
    if any("margin" in row for row in rows):
        out.append(
            "A model was called non-inferior where the one-sided 97.5% lower limit of its "
            "AUC less that of the "
            f"reference lay above −{rows[0]['margin']}."
        )
    return out

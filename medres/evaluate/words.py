"""The report in words: one sentence for the first screen, warnings, and a methods paragraph ready to paste."""

from __future__ import annotations

from typing import Any

from medres.evaluate.auc import SMALL_CLASS
from medres.evaluate.options import Options

ENRICHED = 0.3
UNIT_PLURAL = {"image": "images", "series": "series", "study": "studies", "patient": "patients"}


def percent(value: float) -> str:
    """.8333 -> "83%"; one decimal beyond 99 and under 1."""
    return f"{100 * value:.{0 if value in (0.0, 1.0) or 0.01 <= value <= 0.99 else 1}f}%"


def with_interval(e: dict[str, Any]) -> str:
    if e["ci_low"] is None:
        return percent(e["estimate"])
    return f"{percent(e['estimate'])}, {100 * e['level']:g}% CI {percent(e['ci_low'])} to {percent(e['ci_high'])}"


def summary(name: str, finding: dict[str, Any], numbers: dict[str, Any]) -> str:
    """Plain words about one finding, for a clinician."""
    units = UNIT_PLURAL[numbers["analysis_unit"]]
    auc = finding["auc"]
    if auc["estimate"] is None:
        return f"No discrimination can be stated: {auc['why']}."
    text = (
        f"Shown one {numbers['analysis_unit']} with and one without the finding, the model scores the one with it higher "
        f"in {percent(auc['estimate'])} of such pairs."
    )
    if not finding["operating_points"]:
        return text
    point = finding["operating_points"][0]
    sensitivity, specificity = point["sensitivity"], point["specificity"]
    return (
        f"At its {point['origin']} threshold the model flags {point['tp']} of {sensitivity['denominator']} {units} with "
        f"the finding ({with_interval(sensitivity)}) and rightly leaves {point['tn']} of {specificity['denominator']} "
        f"without it ({with_interval(specificity)}). {text}"
    )


def cautions(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Warnings by finding, then those of the whole table: [{"code", "finding" or None, "text"}]."""
    out: list[dict[str, Any]] = []

    def warn(code: str, finding: str | None, text: str) -> None:
        out.append({"code": code, "finding": finding, "text": text})

    for name, finding in numbers["findings"].items():
        _finding_cautions(name, finding, numbers, warn)
    if numbers["cluster"] is None:
        warn("no_patient", None, "No patient column: every unit was taken as another patient. Intervals are too narrow "
             "where patients repeat.")  # fmt: skip
    if numbers["design"]["sampling"] == "case_control":
        warn("case_control", None, "Cases and controls were sampled apart: PPV, NPV, accuracy, average precision, Brier "
             "and calibration are left out.")  # fmt: skip
    missed = numbers["flow"]["refused"] + numbers["flow"]["failed"]
    if missed:
        warn("refused", None, f"{missed} of {numbers['flow']['images']} images have no score (refused or failed). The "
             "cross table gives sensitivity and specificity also with these counted as errors.")  # fmt: skip
    return out


def _finding_cautions(name: str, finding: dict[str, Any], numbers: dict[str, Any], warn: Any) -> None:
    auc, level = finding["auc"]["estimate"], numbers["analysis_unit"]
    if auc is None:
        warn("undefined", name, f"No AUC: {finding['auc']['why']}.")
        return
    classes = {"with": finding["n_positive_patients"], "without": finding["n_negative_patients"]}
    if classes["with"] is None:
        classes = {"with": finding["n_positive"], "without": finding["n"] - finding["n_positive"]}
    for side, count in classes.items():
        if count < SMALL_CLASS:
            who = "patient" if numbers["cluster"] else level
            who = who if count == 1 else UNIT_PLURAL[who]
            warn("small", name, f"Only {count} {who} {side} the finding: intervals are wide, and the plain (Wald) "
                 "interval of the AUC covers less than it says.")  # fmt: skip
    if auc in (0.0, 1.0):
        warn("perfect", name, "The classes are fully separated. Look for leakage: the same patients in training, or a mark "
             "on the images that gives the label away.")  # fmt: skip
    elif auc < 0.5:
        warn("below_half", name, "The AUC is under .5: the model ranks the wrong way round, or labels are swapped. The "
             "direction is never flipped here.")  # fmt: skip
    if any(point["origin"] == "exploratory" for point in finding["operating_points"]):
        warn("exploratory", name, "The threshold was chosen on these very rows: its sensitivity and specificity are too "
             "good. Freeze one with --tune, or declare one with --threshold.")  # fmt: skip
    prevalence = finding["prevalence"]["estimate"]
    enriched = prevalence is not None and prevalence > ENRICHED and numbers["task"] != "multiclass"
    if enriched and name not in (numbers["design"]["prevalence"] or {}):
        warn("prevalence", name, f"{percent(prevalence)} of the {UNIT_PLURAL[level]} have the finding. If fewer do in your "
             "clinic, PPV is lower there: give --prevalence.")  # fmt: skip
    if finding["n_uncertain"]:
        warn("uncertain", name, f"{finding['n_uncertain']} uncertain labels are left out; the AUC with all of them "
             "negative, and all positive, is given beside.")  # fmt: skip
    if numbers["design"]["sampling"] == "cohort" and finding["brier"]["estimate"] is None:
        warn("no_calibration", name, f"Calibration is left out: {finding['brier']['why']}.")
    for column in sorted({row["column"] for row in finding["subgroups"] if (row["p_holm"] or 1.0) < 0.05}):
        warn("subgroup", name, f"The AUC differs between the levels of {column!r} (interaction test, Holm p < .05).")


def methods(numbers: dict[str, Any], options: Options) -> str:
    """A paragraph for the methods section of a paper: what was computed, and only that."""
    level = f"{100 * options.level:g}%"
    unit, parts = numbers["analysis_unit"], []
    parts.append(f"The unit of analysis was the {unit}.")
    if numbers["pooling"]["score"]:
        parts.append(f"Image scores were pooled to the {unit} by {numbers['pooling']['score']}.")
    if numbers["cluster"]:
        parts.append("Patients were treated as clusters in all intervals wherever a patient contributed several units.")
    else:
        parts.append("Units were treated as independent, since no patient identifier was given.")
    parts.append(
        "Discrimination was measured by the empirical area under the ROC curve (AUC), with variance after DeLong et al. "
        "(1988), which for clustered data is that of Obuchowski (1997)"
        f"; {level} confidence intervals were computed on the AUC scale (Wald), on the logit scale, and by method 5 of "
        "Newcombe (2006) with class sizes divided by the design effect where patients repeat. Newcombe's interval is "
        f"reported first where either class had fewer than {SMALL_CLASS} patients or the AUC exceeded .95, the logit "
        "interval otherwise; at an AUC of 0 or 1 a one-sided exact bound on disjoint patient pairs is given."
    )
    parts.append(
        "A score equal to or above the threshold was called positive. Sensitivity, specificity, predictive values and "
        f"accuracy have {level} {'Clopper-Pearson' if options.exact else 'Wilson'} intervals; where patients repeat, Wilson "
        "intervals on the effective sample size with Student's t. Likelihood ratios have intervals by the log method "
        "(Simel et al. 1991)."
    )
    origins = {p["origin"] for f in numbers["findings"].values() for p in f["operating_points"]}
    told = {
        "frozen": "Frozen thresholds were chosen on a separate tuning split before these data were scored.",
        "declared": "Declared thresholds were stated by the user.",
        "exploratory": "Exploratory thresholds maximise Youden's index on the evaluated data and are optimistic.",
    }
    parts += [sentence for origin, sentence in told.items() if origin in origins]
    if any(f["average_precision"]["estimate"] is not None for f in numbers["findings"].values()):
        parts.append("Average precision is the stepwise sum of precision over recall, its interval by the infinitesimal "
                     "jackknife over patients on the logit scale.")  # fmt: skip
    if any(f["brier"]["estimate"] is not None for f in numbers["findings"].values()):
        parts.append("Calibration was assessed by the Cox intercept and slope, calibration in the large, and the ratio "
                     "of observed to expected events, with sandwich variances over patients; by the integrated calibration "
                     "index of a restricted cubic spline with four knots (Austin & Steyerberg 2019); and by the Brier score "
                     "with its CORP decomposition (Dimitriadis et al. 2021).")  # fmt: skip
    replicates = {e["replicates"] for f in numbers["findings"].values() for row in f["partial_auc"]
                  if "replicates" in (e := row["raw"])}  # fmt: skip
    if replicates:
        parts.append("Partial areas (McClish 1989) and rates at a fixed sensitivity or specificity have percentile intervals "
                     f"from {max(replicates):,} bootstrap samples of patients.")  # fmt: skip
    if "exploratory" in origins:
        parts.append("For exploratory thresholds, sensitivity and specificity less the optimism estimated by choosing the "
                     "threshold anew in every bootstrap sample (Harrell 1996) are given too.")  # fmt: skip
    if any(f["decision_curve"]["model"] for f in numbers["findings"].values()):
        parts.append("Net benefit follows Vickers & Elkin (2006), with a sandwich variance over patients.")
    if numbers["design"]["prevalence"]:
        parts.append("Predictive values at a stated prevalence have logit intervals (Mercaldo et al. 2007).")
    if any(f["subgroups"] for f in numbers["findings"].values()):
        parts.append("Subgroup AUCs were compared by a Wald chi-square test on the logit scale with Holm's adjustment "
                     "over the columns; levels with fewer than 10 patients in a class were suppressed.")  # fmt: skip
    if numbers["comparisons"]:
        parts.append("Models were compared on the same images by the paired test of DeLong et al., clustered by patient "
                     "where patients repeat, with Holm's adjustment over all comparisons.")  # fmt: skip
    return " ".join(parts)

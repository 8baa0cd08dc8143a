"""The text of a report: the summary of a finding for the first screen, and the warnings."""

from __future__ import annotations

from typing import Any

from medres.evaluate.metrics.auc import SMALL_CLASS, WIDE_AUC, WIDE_CLASS
from medres.evaluate.scores.table import UNIT_PLURAL

ENRICHED = 0.3


def percent(value: float) -> str:
    """A percentage without decimals; with one decimal below 1% and above 99%.

    >>> percent(0.8333), percent(0.9987)
    ('83%', '99.9%')
    """
    return f"{100 * value:.{0 if value in (0.0, 1.0) or 0.01 <= value <= 0.99 else 1}f}%"


def with_interval(e: dict[str, Any]) -> str:
    """A proportion with its interval: "91%, 95% CI 83% to 95%"."""
    if e["ci_low"] is None:
        return percent(e["estimate"])
    return (
        f"{percent(e['estimate'])}, {100 * e['level']:g}% CI {percent(e['ci_low'])} to "
        f"{percent(e['ci_high'])}"
    )


def limits(e: dict[str, Any], digits: int = 3) -> str:
    """The confidence limits of an estimate as text, or why there are none. The level of a
    one-sided bound is (1 + level) / 2.
    """
    if e["ci_low"] is None:
        return str(e.get("why", ""))
    if e.get("sided") != "one":
        return f"{e['ci_low']:.{digits}f} to {e['ci_high']:.{digits}f}"
    bound = (
        f"at least {e['ci_low']:.{digits}f}"
        if e["ci_high"] == 1.0
        else f"at most {e['ci_high']:.{digits}f}"
    )
    return f"{bound} (one-sided {50 * (1 + e['level']):g}% bound)"


def interval(e: dict[str, Any], digits: int = 3) -> str:
    """As `limits`, with the level before a two-sided interval: "95% CI 0.710 to 0.830"."""
    two_sided = e["ci_low"] is not None and e.get("sided") != "one"
    return (f"{100 * e['level']:g}% CI " if two_sided else "") + limits(e, digits)


def summary(shown: dict[str, Any], unit: str) -> str:
    """Summary of one finding at one unit of analysis, for a clinician."""
    units = UNIT_PLURAL[unit]
    auc = shown["auc"]
    if auc["estimate"] is None:
        return f"The AUC cannot be computed: {auc['why']}."
    text = (
        f"Of all pairs of one {unit} with and one {unit} without the finding, the model gives the "
        f"one with the finding the higher score in {percent(auc['estimate'])} (the AUC)."
    )
    if not shown["operating_points"]:
        return text
    point = shown["operating_points"][0]
    sensitivity, specificity = point["sensitivity"], point["specificity"]
    return (
        f"At the {point['origin']} threshold, the model classifies {point['tp']} of "
        f"{sensitivity['denominator']} {units} with the finding as positive (sensitivity "
        f"{with_interval(sensitivity)}) and {point['tn']} of {specificity['denominator']} {units} "
        f"without the finding as negative (specificity {with_interval(specificity)}). {text}"
    )


def cautions(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Warnings per finding, then on the whole table: [{"code", "finding" or None, "text"}]."""
    out: list[dict[str, Any]] = []

    def warn(code: str, finding: str | None, text: str) -> None:
        out.append({"code": code, "finding": finding, "text": text})

    for name, finding in numbers["findings"].items():
        _finding_cautions(name, finding, numbers, warn)
    if numbers["cluster"] is None:
        warn(
            "no_patient",
            None,
            f"No patient ID: each {numbers['analysis_unit']} is treated as its own patient. "
            f"Confidence intervals are too narrow if patients occur more than once.",
        )
    if numbers["folds"]:
        warn(
            "folds",
            None,
            f"The scores come from {numbers['folds']} cross-validation folds or seeds. The AUC is "
            f"the mean over the folds or seeds; curves, rates, average precision and calibration "
            f"pool the scores of all of them.",
        )
    if numbers["design"]["sampling"] == "case_control":
        warn(
            "case_control",
            None,
            "Cases and controls were sampled separately. PPV, NPV, accuracy, average precision, "
            "the Brier score and calibration depend on the prevalence and are not reported.",
        )
    missed = numbers["flow"]["refused"] + numbers["flow"]["failed"]
    if missed:
        warn(
            "refused",
            None,
            f"Images without a score (refused or failed): {missed} of {numbers['flow']['images']}. "
            f"Sensitivity and specificity with these images counted as errors are listed under "
            f"each threshold.",
        )
    return out


def _finding_cautions(
    name: str, finding: dict[str, Any], numbers: dict[str, Any], warn: Any
) -> None:
    auc, level = finding["auc"]["estimate"], numbers["analysis_unit"]
    if auc is None:
        warn("undefined", name, f"The AUC is undefined: {finding['auc']['why']}.")
        return
    classes = {"with": finding["n_positive_patients"], "without": finding["n_negative_patients"]}
    if classes["with"] is None:
        classes = {"with": finding["n_positive"], "without": finding["n"] - finding["n_positive"]}
    few = {side: count for side, count in classes.items() if count < SMALL_CLASS}
    if few:
        who = "patient" if numbers["cluster"] else level
        counts = [f"{n} {who if n == 1 else UNIT_PLURAL[who]} {side}" for side, n in few.items()]
        warn(
            "small",
            name,
            f"Only {' and '.join(counts)} the finding: confidence intervals are wide, and the "
            f"Wald interval of the AUC covers the true value less often than stated.",
        )
    if WIDE_AUC < max(auc, 1.0 - auc) < 1.0 and min(classes.values()) >= WIDE_CLASS:
        warn(
            "wide",
            name,
            "With an AUC this close to 1 and this many patients, Newcombe's interval is "
            "conservative (coverage above 99% in simulations). The logit interval is listed under "
            "“All estimates”.",
        )
    if auc in (0.0, 1.0):
        warn(
            "perfect",
            name,
            "The scores separate the classes perfectly. Check for leakage: the same patients in "
            "training, or a marker in the images that reveals the label.",
        )
    elif auc < 0.5:
        warn(
            "below_half",
            name,
            "The AUC is below 0.5: the scores rank in the wrong direction, or the labels are "
            "swapped. The direction is never reversed automatically.",
        )
    elif finding["auc"]["ci_low"] is not None and finding["auc"]["ci_low"] <= 0.5:
        warn(
            "chance",
            name,
            "The confidence interval of the AUC includes 0.5: these data do not show that the "
            "model discriminates better than chance.",
        )
    _threshold_and_label_cautions(name, finding, numbers, warn)


def _threshold_and_label_cautions(
    name: str, finding: dict[str, Any], numbers: dict[str, Any], warn: Any
) -> None:
    if any(point["origin"] == "exploratory" for point in finding["operating_points"]):
        warn(
            "exploratory",
            name,
            "The threshold was chosen on the evaluated data, so its sensitivity and specificity "
            "are optimistic. Freeze a threshold with --tune, or declare one with --threshold.",
        )
    prevalence = finding["prevalence"]["estimate"]
    enriched = prevalence is not None and prevalence > ENRICHED and numbers["task"] != "multiclass"
    if enriched and name not in (numbers["design"]["prevalence"] or {}):
        units = UNIT_PLURAL[numbers["analysis_unit"]]
        warn(
            "prevalence",
            name,
            f"{percent(prevalence)} of the {units} have the finding. If the prevalence is lower, "
            f"the PPV is lower too: state the prevalence in your clinic with --prevalence.",
        )
    if finding["n_uncertain"]:
        count = finding["n_uncertain"]
        warn(
            "uncertain",
            name,
            f"{count} uncertain {'label is' if count == 1 else 'labels are'} excluded. “All "
            f"estimates” lists the AUC with every uncertain label counted as negative, and as "
            f"positive.",
        )
    if numbers["design"]["sampling"] == "cohort" and finding["brier"]["estimate"] is None:
        warn("no_calibration", name, f"Calibration is not reported: {finding['brier']['why']}.")
    for column in sorted(
        {
            row["column"]
            for row in finding["subgroups"]
            if row["p_holm"] is not None and row["p_holm"] < 0.05
        }
    ):
        warn(
            "subgroup",
            name,
            f"The AUC differs between the levels of {column!r} (interaction test, Holm-adjusted "
            f"p < 0.05).",
        )

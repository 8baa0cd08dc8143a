"""The report in words: one sentence for the first screen, and warnings."""

from __future__ import annotations

from typing import Any

from medres.evaluate.metrics.auc import SMALL_CLASS, WIDE_AUC, WIDE_CLASS
from medres.evaluate.scores.table import UNIT_PLURAL

ENRICHED = 0.3


def percent(value: float) -> str:
    """.8333 -> "83%"; one decimal beyond 99 and under 1."""
    return f"{100 * value:.{0 if value in (0.0, 1.0) or 0.01 <= value <= 0.99 else 1}f}%"


def with_interval(e: dict[str, Any]) -> str:
    if e["ci_low"] is None:
        return percent(e["estimate"])
    return (
        f"{percent(e['estimate'])}, {100 * e['level']:g}% CI {percent(e['ci_low'])} to "
        f"{percent(e['ci_high'])}"
    )


def limits(e: dict[str, Any], digits: int = 3) -> str:
    """The limits of an E object in words, or why there are none; one-sided bounds leave half of 1 -
    level on their side.
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
    """limits() with the level before a two-sided interval: "95% CI 0.71 to 0.83"."""
    two_sided = e["ci_low"] is not None and e.get("sided") != "one"
    return (f"{100 * e['level']:g}% CI " if two_sided else "") + limits(e, digits)


def summary(shown: dict[str, Any], unit: str) -> str:
    """Plain words about one finding at one unit of analysis, for a clinician."""
    units = UNIT_PLURAL[unit]
    auc = shown["auc"]
    if auc["estimate"] is None:
        return f"No discrimination can be stated: {auc['why']}."
    text = (
        f"Shown one {unit} with and one without the finding, the model scores the one with it "
        f"higher "
        f"in {percent(auc['estimate'])} of such pairs."
    )
    if not shown["operating_points"]:
        return text
    point = shown["operating_points"][0]
    sensitivity, specificity = point["sensitivity"], point["specificity"]
    return (
        f"At its {point['origin']} threshold the model flags {point['tp']} of "
        f"{sensitivity['denominator']} {units} with "
        f"the finding ({with_interval(sensitivity)}) and rightly leaves {point['tn']} of "
        f"{specificity['denominator']} "
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
        warn(
            "no_patient",
            None,
            "No patient column: every unit was taken as another patient. "
            "Intervals are too narrow "
            "where patients repeat.",
        )
    if numbers["folds"]:
        warn(
            "folds",
            None,
            f"The scores come from {numbers['folds']} folds or seeds. The AUC is "
            f"the mean of those within each; "
            "curves, rates, average precision and calibration mix their scores.",
        )
    if numbers["design"]["sampling"] == "case_control":
        warn(
            "case_control",
            None,
            "Cases and controls were sampled apart: PPV, NPV, accuracy, "
            "average precision, Brier "
            "and calibration are left out.",
        )
    missed = numbers["flow"]["refused"] + numbers["flow"]["failed"]
    if missed:
        warn(
            "refused",
            None,
            f"{missed} of {numbers['flow']['images']} images have no score "
            f"(refused or failed). The "
            "cross table gives sensitivity and specificity also with these counted as errors.",
        )
    return out


def _finding_cautions(
    name: str, finding: dict[str, Any], numbers: dict[str, Any], warn: Any
) -> None:
    auc, level = finding["auc"]["estimate"], numbers["analysis_unit"]
    if auc is None:
        warn("undefined", name, f"No AUC: {finding['auc']['why']}.")
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
            f"Only {' and '.join(counts)} the finding: intervals are wide, and "
            f"the plain (Wald) interval of "
            "the AUC covers less than it says.",
        )
    if WIDE_AUC < max(auc, 1.0 - auc) < 1.0 and min(classes.values()) >= WIDE_CLASS:
        warn(
            "wide",
            name,
            "With an AUC so near 1 and so many patients, Newcombe's interval is "
            "wider than its level asks for "
            "(simulated: it covers over 99%). The logit interval stands beside it under All "
            "figures.",
        )
    if auc in (0.0, 1.0):
        warn(
            "perfect",
            name,
            "The classes are fully separated. Look for leakage: the same "
            "patients in training, or a mark "
            "on the images that gives the label away.",
        )
    elif auc < 0.5:
        warn(
            "below_half",
            name,
            "The AUC is under .5: the model ranks the wrong way round, or "
            "labels are swapped. The "
            "direction is never flipped here.",
        )
    elif finding["auc"]["ci_low"] is not None and finding["auc"]["ci_low"] <= 0.5:
        warn(
            "chance",
            name,
            "The interval of the AUC holds .5: these data do not show that the "
            "model ranks better than "
            "chance.",
        )
    _threshold_and_label_cautions(name, finding, numbers, warn)


def _threshold_and_label_cautions(
    name: str, finding: dict[str, Any], numbers: dict[str, Any], warn: Any
) -> None:
    if any(point["origin"] == "exploratory" for point in finding["operating_points"]):
        warn(
            "exploratory",
            name,
            "The threshold was chosen on these very rows: its sensitivity "
            "and specificity are too "
            "good. Freeze one with --tune, or declare one with --threshold.",
        )
    prevalence = finding["prevalence"]["estimate"]
    enriched = prevalence is not None and prevalence > ENRICHED and numbers["task"] != "multiclass"
    if enriched and name not in (numbers["design"]["prevalence"] or {}):
        units = UNIT_PLURAL[numbers["analysis_unit"]]
        warn(
            "prevalence",
            name,
            f"{percent(prevalence)} of the {units} have the finding. If "
            f"fewer do in your clinic, PPV "
            "is lower there: give --prevalence.",
        )
    if finding["n_uncertain"]:
        warn(
            "uncertain",
            name,
            f"{finding['n_uncertain']} uncertain labels are left out; the AUC "
            f"with all of them "
            "negative, and all positive, is given beside.",
        )
    if numbers["design"]["sampling"] == "cohort" and finding["brier"]["estimate"] is None:
        warn("no_calibration", name, f"Calibration is left out: {finding['brier']['why']}.")
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
            f"The AUC differs between the levels of {column!r} (interaction test, Holm p < .05).",
        )

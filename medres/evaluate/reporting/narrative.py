"""The text of a report: the summary of a finding for the first screen, and the warnings."""

from __future__ import annotations

from collections.abc import Iterator

from medres.evaluate.metrics.auc import SMALL_CLASS, WIDE_AUC, WIDE_CLASS
from medres.evaluate.metrics.thresholds import FEW_PATIENTS
from medres.evaluate.reporting.calibration_warnings import calibration_warnings
from medres.evaluate.results import OperatingPoint
from medres.evaluate.schema import Finding, Headline, OtherUnit, Report, ReportWarning
from medres.evaluate.scores.table import UNIT_PLURAL, unit_noun
from medres.evaluate.statistics.clusters import FEW_EFFECTIVE
from medres.evaluate.statistics.estimate import Estimate
from medres.tasks import task_named

ENRICHED = 0.3
UNEQUAL_SHARE = 0.5  # effective patients / patients; below it there is a warning
NO_BETTER = "no better than chance, because the interval includes 0.5"
WRONG_WAY_ROUND = "ranks the wrong way round"
WRONG_WAY = (
    "Perhaps the score is the probability of the other class, or the labels are swapped. The "
    "direction is never reversed automatically."
)
MISSING = "–"  # stands for a number that does not exist


def percent(value: float | None) -> str:
    """A percentage without decimals; with one decimal below 1% and above 99%.

    >>> percent(0.8333), percent(0.9987), percent(None)
    ('83%', '99.9%', '–')
    """
    if value is None:
        return MISSING
    return f"{100 * value:.{0 if value in (0.0, 1.0) or 0.01 <= value <= 0.99 else 1}f}%"


def percent_with_interval(estimate: Estimate) -> str:
    """A proportion with its interval: "91%, 95% CI 83% to 95%"."""
    share = percent(estimate.estimate)
    if estimate.bounds is None:
        return share
    low, high = estimate.bounds
    return f"{share}, {_confidence(estimate)} {percent(low)} to {percent(high)}"


def limits(estimate: Estimate, digits: int = 3) -> str:
    """The confidence limits of an estimate as text, or why there are none. The level of a
    one-sided bound is (1 + level) / 2.

    >>> limits(Estimate(0.8, 0.7, 0.9, level=0.95, sided="two"))
    '0.700 to 0.900'
    """
    if estimate.bounds is None:
        return estimate.why or ""
    low, high = estimate.bounds
    if not _one_sided(estimate):
        return f"{low:.{digits}f} to {high:.{digits}f}"
    bound = f"at least {low:.{digits}f}" if high == 1.0 else f"at most {high:.{digits}f}"
    return f"{bound} (one-sided {50 * (1 + (estimate.level or 0)):g}% bound)"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """As `limits`, with the level before a two-sided interval: "95% CI 0.710 to 0.830"."""
    two_sided = estimate.bounds is not None and not _one_sided(estimate)
    return (f"{_confidence(estimate)} " if two_sided else "") + limits(estimate, digits)


def leading_auc(finding: Finding | OtherUnit, headline: Headline) -> Estimate:
    """The AUC of a finding that the headline of its report names."""
    weighted = finding.auc_patient_weighted
    return weighted if headline == "patient" and weighted is not None else finding.auc


def summary(finding: Finding | OtherUnit, unit: str, headline: Headline = "image") -> str:
    """Summary of one finding at one unit of analysis, for a clinician; the AUC is the one that the
    headline of the report names."""
    auc = finding.auc
    if auc.estimate is None:
        return f"The AUC cannot be computed: {auc.why}."
    leading = leading_auc(finding, headline)
    name = "the AUC"
    if leading is not auc:
        name = (
            "the AUC with equal weight per patient; with equal weight per "
            f"{unit}: {percent(auc.estimate)}"
        )
    text = (
        f"Of all pairs of one {unit} with and one {unit} without the finding, the model gives the "
        f"one with the finding the higher score in {percent(leading.estimate)} ({name})."
    )
    if not finding.operating_points:
        return text
    point = finding.operating_points[0]
    sensitivity, specificity = point.rates.sensitivity, point.rates.specificity
    positives, negatives = sensitivity.denominator, specificity.denominator
    return (
        f"At {threshold_words(point)}, the model classifies {point.table.tp} of "
        f"{positives} {unit_noun(positives, unit)} with the finding as positive (sensitivity "
        f"{percent_with_interval(sensitivity)}) and {point.table.tn} of {negatives} "
        f"{unit_noun(negatives, unit)} without the finding as negative (specificity "
        f"{percent_with_interval(specificity)}). {_predictive_words(point)}{text}"
    )


def _predictive_words(point: OperatingPoint) -> str:
    return "".join(
        f"At a prevalence of {percent(at.prevalence)}, the PPV is {percent_with_interval(at.ppv)}, "
        f"and the NPV {percent_with_interval(at.npv)}. "
        for at in point.predictive_at
        if at.ppv.estimate is not None or at.npv.estimate is not None
    )


def against_chance(
    auc: float | None, low: float | None = None, high: float | None = None
) -> str | None:
    """What an AUC with its confidence limits says against 0.5; None if it is better than that. An
    AUC of 0 or 1 has a one-sided bound.

    >>> against_chance(0.55, 0.4, 0.7), against_chance(0.8, 0.7, 0.9)
    ('no better than chance, because the interval includes 0.5', None)
    >>> against_chance(0.1, 0.02, 0.3)
    'ranks the wrong way round'
    """
    if auc is None or (low is None and high is None):
        return None
    if (0.0 if low is None else low) > 0.5:
        return None
    return WRONG_WAY_ROUND if (1.0 if high is None else high) < 0.5 else NO_BETTER


def threshold_words(point: OperatingPoint) -> str:
    """A threshold in words: "the frozen threshold “screening” (sensitivity:0.95)"."""
    criterion = (point.source or {}).get("criterion")
    words = f"the {point.origin} threshold"
    if criterion == "youden":
        return f"{words} (Youden's point)"
    words += f" “{point.name}”"
    return f"{words} ({criterion})" if criterion else words


def report_warnings(report: Report) -> list[ReportWarning]:
    """Warnings about each finding, then about the whole table."""
    return [
        ReportWarning(code, name, text)
        for name, finding in report.findings.items()
        for code, text in _finding_warnings(name, finding, report)
    ] + [ReportWarning(code, None, text) for code, text in _table_warnings(report)]


def _confidence(estimate: Estimate) -> str:
    return f"{100 * (estimate.level or 0):g}% CI"


def _one_sided(estimate: Estimate) -> bool:
    return estimate.sided == "one"


def _table_warnings(report: Report) -> Iterator[tuple[str, str]]:
    """(code, text) of what concerns every finding."""
    if report.cluster is None:
        yield (
            "no_patient",
            f"No patient ID: each {report.analysis_unit} is treated as its own patient. "
            f"Confidence intervals are too narrow if patients occur more than once.",
        )
    yield from _id_warnings(report)
    if report.headline == "patient":
        units = UNIT_PLURAL[report.analysis_unit]
        yield (
            "dominant_patient",
            f"One patient holds {percent(report.largest_patient_share)} of the {units}. The AUC in "
            f"which all {units} weigh the same mostly describes this patient, so the AUC in which "
            f"all patients weigh the same leads. Sensitivity and specificity count {units}.",
        )
    if report.folds:
        yield (
            "folds",
            f"The scores come from {report.folds} cross-validation folds or seeds. The AUC is "
            f"the mean over the folds or seeds; curves, rates, average precision and calibration "
            f"pool the scores of all of them.",
        )
    if report.design.sampling == "case_control":
        yield (
            "case_control",
            "Cases and controls were sampled separately. PPV, NPV, accuracy, average precision, "
            "the Brier score and calibration depend on the prevalence and are not reported.",
        )
    if report.flow.without_score:
        yield (
            "refused",
            f"Images without a score (refused or failed): {report.flow.without_score} of "
            f"{report.flow.images}. Sensitivity and specificity with these images counted as "
            f"errors are listed under each threshold.",
        )


def _id_warnings(report: Report) -> Iterator[tuple[str, str]]:
    """(code, text) of IDs that may mean the same although they are written differently."""
    sources = report.provenance
    for source in (sources.scores, *([] if sources.tune is None else [sources.tune])):
        for level, count in (source.similar_ids or {}).items():
            yield (
                "similar_ids",
                f"{count} {level} IDs of the table {source.name!r} differ from another one only in "
                f"case or leading zeros. They are counted as different; if they mean the same, "
                f"correct the table or use --fold-ids.",
            )
    if sources.tune is not None:
        for why in (sources.tune.not_comparable or {}).values():
            yield (
                "not_disjoint",
                f"It was not verified that the tuning data are independent: {why}.",
            )
    for source in sources.compared:
        for why in (source.not_comparable or {}).values():
            yield (
                "not_disjoint",
                f"It was not verified that {source.name!r} holds other patients: {why}.",
            )


def _finding_warnings(name: str, finding: Finding, report: Report) -> Iterator[tuple[str, str]]:
    """(code, text) of what concerns one finding; only one warning if it has no AUC."""
    if finding.auc.estimate is None:
        yield "undefined", f"The AUC is undefined: {finding.auc.why}."
        if finding.n_negative == 0 and finding.n_uncertain:
            yield (
                "minus_one",
                "The labels are 1 and -1, and -1 means uncertain. If it means negative in this "
                "table, write 0 instead.",
            )
        return
    leading = leading_auc(finding, report.headline)
    auc = finding.auc.estimate if leading.estimate is None else leading.estimate
    yield from _class_size_warnings(finding, auc, report)
    yield from _unequal_warnings(finding, report)
    yield from _auc_warnings(leading, auc)
    yield from _threshold_and_label_warnings(name, finding, report)
    yield from calibration_warnings(finding.calibration)
    if report.design.sampling == "cohort" and finding.brier.estimate is None:
        yield "no_calibration", f"Calibration is not reported: {finding.brier.why}."
    for column in sorted({row.column for row in finding.subgroups if _is_small(row.p_holm)}):
        yield (
            "subgroup",
            f"The AUC differs between the levels of {column!r} (interaction test, Holm-adjusted "
            f"p < 0.05).",
        )


def _class_size_warnings(finding: Finding, auc: float, report: Report) -> Iterator[tuple[str, str]]:
    if finding.n_positive_patients is None or finding.n_negative_patients is None:
        sizes = {"with": finding.n_positive, "without": finding.n_negative}
    else:
        sizes = {"with": finding.n_positive_patients, "without": finding.n_negative_patients}
    small = {side: count for side, count in sizes.items() if count < SMALL_CLASS}
    if small:
        unit = "patient" if report.cluster else report.analysis_unit
        counts = [f"{n} {unit_noun(n, unit)} {side}" for side, n in small.items()]
        yield (
            "small",
            f"Only {' and '.join(counts)} the finding: confidence intervals are wide, and the "
            f"Wald interval of the AUC covers the true value less often than stated.",
        )
    if WIDE_AUC < max(auc, 1.0 - auc) < 1.0 and min(sizes.values()) >= WIDE_CLASS:
        yield (
            "wide",
            "With an AUC this close to 1 and this many patients, Newcombe's interval is "
            "conservative (coverage above 99% in simulations). The logit interval is listed under "
            "“All estimates”.",
        )


def _unequal_warnings(finding: Finding, report: Report) -> Iterator[tuple[str, str]]:
    """If the patients of a class count as far fewer equal ones (Kish's effective number)."""
    classes = (
        ("with", finding.n_positive_patients, finding.effective_positive_patients),
        ("without", finding.n_negative_patients, finding.effective_negative_patients),
    )
    parts, few = [], False
    for side, patients, effective in classes:
        if not patients or effective is None or effective >= patients - 1e-9:
            continue
        few = few or effective < FEW_EFFECTIVE
        if effective < max(UNEQUAL_SHARE * patients, min(FEW_EFFECTIVE, patients)):
            count = f"{patients} {unit_noun(patients, 'patient')} {side} the finding"
            parts.append(f"the {count} count as {effective:.1f} equal ones")
    if parts:
        yield (
            "unequal_patients",
            f"Some patients have many more {UNIT_PLURAL[report.analysis_unit]} than others: "
            f"{', and '.join(parts)} (Kish's effective number). Confidence intervals allow for it"
            + (
                f"; with fewer than {FEW_EFFECTIVE} effective patients, read them with care."
                if few
                else "."
            ),
        )


def _auc_warnings(estimate: Estimate, auc: float) -> Iterator[tuple[str, str]]:
    if auc == 1.0:
        yield (
            "perfect",
            "The scores separate the classes perfectly. Check for leakage: the same patients in "
            "training, or a marker in the images that reveals the label.",
        )
    elif auc == 0.0:
        yield (
            "below_half",
            "The AUC is 0: every score with the finding is below every score without it. The "
            f"scores rank the wrong way round. {WRONG_WAY}",
        )
    elif auc < 0.5:
        yield (
            "below_half",
            f"The AUC is {auc:.3f}, below 0.5: the scores rank the wrong way round. {WRONG_WAY}"
            if against_chance(auc, estimate.ci_low, estimate.ci_high) == WRONG_WAY_ROUND
            else f"The AUC is {auc:.3f}, below 0.5, and its confidence interval includes 0.5: "
            "these data do not show that the model discriminates better than chance.",
        )
    elif estimate.ci_low is not None and estimate.ci_low <= 0.5:
        yield (
            "chance",
            "The confidence interval of the AUC includes 0.5: these data do not show that the "
            "model discriminates better than chance.",
        )


def _threshold_and_label_warnings(
    name: str, finding: Finding, report: Report
) -> Iterator[tuple[str, str]]:
    if any(point.origin == "exploratory" for point in finding.operating_points):
        yield (
            "exploratory",
            "The threshold was chosen on the evaluated data, so its sensitivity and specificity "
            "are optimistic. Freeze a threshold with --tune, or declare one with --threshold.",
        )
    for point in finding.operating_points:
        if point.n_class_patients is not None and point.n_class_patients < FEW_PATIENTS:
            yield (
                "few_tuning_patients",
                f"The threshold {point.name} was found on {point.n_class_patients} tuning patients "
                f"of the class that fixes it, fewer than {FEW_PATIENTS}: with other patients it "
                f"could lie elsewhere.",
            )
    share, stated = finding.prevalence.estimate, report.design.stated_prevalence(name)
    if share is not None and share > ENRICHED and not task_named(report.task).exclusive:
        sample = f"{percent(share)} of the {UNIT_PLURAL[report.analysis_unit]} have the finding"
        yield (
            "prevalence",
            f"{sample}. If the prevalence is lower, the PPV is lower too: state the prevalence in "
            "your clinic with --prevalence."
            if stated is None
            else f"{sample}. PPV, NPV and the decision curve are given at the stated prevalence of "
            f"{percent(stated)}; accuracy, average precision, the Brier score and calibration "
            "depend on the prevalence too and are those of the sample.",
        )
    if finding.n_uncertain:
        labels = "label is" if finding.n_uncertain == 1 else "labels are"
        yield (
            "uncertain",
            f"{finding.n_uncertain} uncertain {labels} excluded. “All estimates” lists the AUC "
            f"with every uncertain label counted as negative, and as positive.",
        )


def _is_small(p_value: float | None) -> bool:
    return p_value is not None and p_value < 0.05

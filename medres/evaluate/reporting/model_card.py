"""A model card in Markdown (Mitchell et al. 2019), written from a report. What the design file does
not state is marked as not stated.
"""

from __future__ import annotations

import re

from medres.evaluate.reporting.narrative import MISSING, leading_auc, percent
from medres.evaluate.schema import Finding, Headline, OperatingPoint, Report
from medres.evaluate.scores.table import UNIT_PLURAL
from medres.evaluate.statistics.estimate import Estimate

UNKNOWN = "not stated"


def model_card_markdown(report: Report) -> str:
    """The report as a model card in Markdown: intended use, data, a table of the figures, warnings
    and methods. Text from the user is escaped. What the design does not answer is "not stated".
    """
    answers, patients = report.design.answers, report.n.patients
    lines = [
        f"# {text(report.title)}",
        "",
        "Research use. Not a medical device.",
        "",
        "## Intended use",
        "",
        text(answers.get("intended_use", UNKNOWN)),
        "",
        "## Evaluation data",
        "",
        f"- Sampling: {report.design.sampling.replace('_', '-')}",
        f"- Setting: {text(answers.get('setting', UNKNOWN))}",
        f"- Reference standard: {text(answers.get('reference_standard', UNKNOWN))}",
        f"- Patients: {UNKNOWN if patients is None else patients}; "
        f"{UNIT_PLURAL[report.analysis_unit]}: {report.n.units}; images: {report.n.images}",
        f"- Refused or failed: {report.flow.without_score} images",
        "",
        "## Figures",
        "",
        "| Finding | n with / without | AUC | Threshold | Sensitivity | Specificity |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(finding, report.headline) for finding in report.findings.values()]
    lines += ["", "## Warnings", ""]
    lines += [
        f"- {text(report.title_of(w.finding) + ': ' if w.finding else '')}{text(w.text)}"
        for w in report.warnings
    ] or ["None."]
    lines += ["", "## Methods", "", text(report.methods), ""]
    return "\n".join(lines)


def text(value: object) -> str:
    """One line in which nothing is markup."""
    flat = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", flat)


def _row(finding: Finding, headline: Headline) -> str:
    cells = [
        text(finding.title),
        f"{finding.n_positive} / {finding.n_negative}",
        _auc(leading_auc(finding, headline)),
    ]
    if finding.operating_points:
        point = finding.operating_points[0]
        cells += [
            f"{_threshold(point)} ({point.origin})",
            _rate(point.rates.sensitivity),
            _rate(point.rates.specificity),
        ]
    else:
        cells += [MISSING] * 3
    return f"| {' | '.join(cells)} |"


def _threshold(point: OperatingPoint) -> str:
    return str(point.why) if point.threshold is None else f"{point.threshold:.4g}"


def _auc(auc: Estimate) -> str:
    if auc.estimate is None:
        return MISSING
    limits = "" if auc.bounds is None else " ({:.3f} to {:.3f})".format(*auc.bounds)
    return f"{auc.estimate:.3f}{limits}"


def _rate(rate: Estimate) -> str:
    if rate.estimate is None or rate.bounds is None:
        return percent(rate.estimate)
    low, high = rate.bounds
    return f"{percent(rate.estimate)} ({percent(low)} to {percent(high)})"

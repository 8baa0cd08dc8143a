"""The answer of a report to an item of a reporting guideline; None if the report does not answer
it.
"""

from __future__ import annotations

from collections.abc import Callable

from medres.evaluate.results import OperatingPoint
from medres.evaluate.schema import Report
from medres.evaluate.scores.table import unit_noun

CLUSTER_COLUMNS = ("site", "manufacturer", "hospital", "centre", "center")

Answer = Callable[[Report], str | None]


def _operating_points(report: Report) -> list[OperatingPoint]:
    return [point for finding in report.findings.values() for point in finding.operating_points]


def _thresholds(report: Report) -> str:
    names = {f"{point.name} ({point.origin})" for point in _operating_points(report)}
    return "Thresholds and their origin: " + (", ".join(sorted(names)) or "none") + "."


def _refused(report: Report) -> str:
    return (
        f"Images refused or failed: {report.flow.without_score}. Sensitivity and specificity with "
        f"these images counted as errors are also reported."
    )


def _missing(report: Report) -> str:
    not_assessed = sum(finding.n_not_assessed for finding in report.findings.values())
    uncertain = sum(finding.n_uncertain for finding in report.findings.values())
    return (
        f"Excluded and counted, over all findings: {not_assessed} labels not assessed, {uncertain} "
        f"uncertain labels."
    )


def _subgroup_columns(report: Report) -> list[str]:
    return sorted({row.column for f in report.findings.values() for row in f.subgroups})


def _subgroups(report: Report) -> str | None:
    columns = _subgroup_columns(report)
    return (
        f"By {', '.join(columns)}; see Subgroups. The authors must state whether these analyses "
        f"were pre-specified."
        if columns
        else None
    )


def _clusters(report: Report) -> str | None:
    columns = [column for column in _subgroup_columns(report) if column in CLUSTER_COLUMNS]
    return f"Performance by {', '.join(columns)}; see Subgroups." if columns else None


def _demographics(report: Report) -> str | None:
    return (
        "In part, for the evaluated data: see Characteristics."
        if report.flow.demographics.is_known
        else None
    )


def _errors(report: Report) -> str | None:
    parts = [_failures(report), _subgroups(report)]
    return " ".join(part for part in parts if part) or None


def _failures(report: Report) -> str | None:
    has_errors = any(
        finding.worst_errors.false_negatives or finding.worst_errors.false_positives
        for finding in report.findings.values()
        if finding.worst_errors is not None
    )
    return (
        "Contingency tables, and the largest errors by hashed ID; see Largest errors."
        if has_errors
        else None
    )


def _model(report: Report) -> str | None:
    digest = report.provenance.further.get("model_sha256")
    return f"In part: the model file has the SHA-256 {digest}; see Provenance." if digest else None


def _versions(report: Report) -> str:
    versions = ", ".join(
        f"{package} {version}" for package, version in report.provenance.versions.items() if version
    )
    return f"In part, for this evaluation: {versions}."


def _preprocess(report: Report) -> str | None:
    name = report.provenance.further.get("preprocess")
    return (
        f"In part: preprocessing '{name}', stored in the model; see Provenance." if name else None
    )


def _development(report: Report) -> str | None:
    sources = [
        point.source
        for point in _operating_points(report)
        if point.origin == "frozen" and point.source is not None
    ]
    counts = {
        f"{source['n_patients']} {unit_noun(source['n_patients'], 'patient')} of the "
        f"{source['split']} split"
        for source in sources
        if "n_patients" in source and "split" in source
    }
    return f"In part: thresholds were chosen on {', '.join(sorted(counts))}." if counts else None


def _disjoint(report: Report) -> str | None:
    tune = report.provenance.tune
    levels = tune.nothing_shared_by if tune is not None else None
    return (
        f"Checked: no {' and no '.join(levels)} occurs in both the tuning and the evaluated table."
        if levels
        else None
    )


def _ingest(report: Report) -> str | None:
    return (
        "In part, for files: see Flow, with the reasons for exclusion."
        if report.flow.ingest is not None
        else None
    )


def _prevalence(report: Report) -> str | None:
    stated = report.design.prevalence
    if not stated:
        return None
    shares = ", ".join(
        f"{report.title_of(name)} {100 * value:.3g}%" for name, value in stated.items()
    )
    return (
        f"Stated for the intended population: {shares}. Predictive values at this prevalence are "
        f"reported."
    )


def _sizes(report: Report) -> str:
    return (
        "In part: see Flow, for the numbers with and without each finding. The authors must add "
        "those of the development data."
    )


def _output(report: Report) -> str:
    are_ranks = any(finding.brier.estimate is None for finding in report.findings.values())
    kind = "scores" if are_ranks else "probabilities"
    return (
        f"The model gives {kind}; a score equal to or above the threshold is positive. "
        f"{_thresholds(report)}"
    )


def _margin(report: Report) -> str | None:
    margins = {c.noninferiority.margin for c in report.comparisons if c.noninferiority is not None}
    return (
        f"Non-inferiority with a margin of {', '.join(map(str, sorted(margins)))} in AUC."
        if margins
        else None
    )


def _sensitivity_analyses(report: Report) -> str | None:
    findings = report.findings.values()
    analyses = {
        "refusals counted as errors": report.flow.without_score > 0,
        "uncertain labels counted as negative, and as positive": any(
            finding.uncertain_bounds is not None for finding in findings
        ),
        "equal weight per patient": any(
            finding.auc_patient_weighted is not None for finding in findings
        ),
        "another unit of analysis": any(finding.other_unit is not None for finding in findings),
    }
    reported = [analysis for analysis, is_reported in analyses.items() if is_reported]
    return f"Also reported: {', '.join(reported)}." if reported else None


def _always(text: str) -> Answer:
    return lambda report: text


ANSWERS: dict[str, Answer] = {
    "clusters": _clusters,
    "cross": _always("See the contingency table of each threshold."),
    "demographics": _demographics,
    "development": _development,
    "disjoint": _disjoint,
    "errors": _errors,
    "estimates": _always("See All estimates."),
    "explanation": lambda report: report.provenance.explanation,
    "failures": _failures,
    "flow": _always("See Flow."),
    "here": _always("In part, for the evaluated data: see All estimates."),
    "ingest": _ingest,
    "margin": _margin,
    "methods": _always("See Methods."),
    "missing": _missing,
    "model": _model,
    "output": _output,
    "outputs": _always(
        "This report is stored with its numbers (report.json, tables) and the hashes of its inputs."
    ),
    "preprocess": _preprocess,
    "prevalence": _prevalence,
    "refused": _refused,
    "sensitivity": _sensitivity_analyses,
    "sizes": _sizes,
    "subgroups": _subgroups,
    "thresholds": _thresholds,
    "uncertainty": _always(
        "Every estimate is listed with its interval and method; see Methods and All estimates."
    ),
    "versions": _versions,
}

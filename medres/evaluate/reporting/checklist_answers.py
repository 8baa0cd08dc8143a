"""The answer of a report to an item of a reporting guideline, from its numbers alone; None if they
do not answer it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Numbers = dict[str, Any]


def _points(numbers: Numbers) -> list[dict[str, Any]]:
    return [p for f in numbers["findings"].values() for p in f["operating_points"]]


def _thresholds(numbers: Numbers) -> str:
    names = {f"{p['name']} ({p['origin']})" for p in _points(numbers)}
    return "Thresholds and their origin: " + (", ".join(sorted(names)) or "none") + "."


def _refused(numbers: Numbers) -> str:
    missed = numbers["flow"]["refused"] + numbers["flow"]["failed"]
    return (
        f"Images refused or failed: {missed}. Sensitivity and specificity with these images "
        f"counted as errors are also reported."
    )


def _missing(numbers: Numbers) -> str:
    gaps = sum(f["n_not_assessed"] for f in numbers["findings"].values())
    unsure = sum(f["n_uncertain"] for f in numbers["findings"].values())
    return (
        f"Excluded and counted, over all findings: {gaps} labels not assessed, {unsure} uncertain "
        f"labels."
    )


def _columns(numbers: Numbers) -> list[str]:
    return sorted({row["column"] for f in numbers["findings"].values() for row in f["subgroups"]})


def _subgroups(numbers: Numbers) -> str | None:
    columns = _columns(numbers)
    return (
        f"By {', '.join(columns)}; see Subgroups. The authors must state whether these analyses "
        f"were pre-specified."
        if columns
        else None
    )


def _clusters(numbers: Numbers) -> str | None:
    columns = [
        c
        for c in _columns(numbers)
        if c in ("site", "manufacturer", "hospital", "centre", "center")
    ]
    return f"Performance by {', '.join(columns)}; see Subgroups." if columns else None


def _demographics(numbers: Numbers) -> str | None:
    return (
        "In part, for the evaluated data: see Characteristics."
        if numbers["flow"].get("demographics")
        else None
    )


def _errors(numbers: Numbers) -> str | None:
    parts = [_failures(numbers), _subgroups(numbers)]
    return " ".join(part for part in parts if part) or None


def _failures(numbers: Numbers) -> str | None:
    worst = [f["worst_errors"] for f in numbers["findings"].values() if "worst_errors" in f]
    shown = any(w["false_negatives"] or w["false_positives"] for w in worst)
    return (
        "Contingency tables, and the largest errors by hashed ID; see Largest errors."
        if shown
        else None
    )


def _model(numbers: Numbers) -> str | None:
    digest = numbers["provenance"].get("model_sha256")
    return f"In part: the model file has the SHA-256 {digest}; see Provenance." if digest else None


def _versions(numbers: Numbers) -> str:
    versions = ", ".join(
        f"{name} {version}"
        for name, version in numbers["provenance"]["versions"].items()
        if version
    )
    return f"In part, for this evaluation: {versions}."


def _preprocess(numbers: Numbers) -> str | None:
    name = numbers["provenance"].get("preprocess")
    return (
        f"In part: preprocessing '{name}', stored in the model; see Provenance." if name else None
    )


def _development(numbers: Numbers) -> str | None:
    sources = {
        f"{p['source']['n_patients']} patients of the {p['source']['split']} split"
        for p in _points(numbers)
        if p["origin"] == "frozen" and {"n_patients", "split"} <= set(p.get("source", {}))
    }
    return f"In part: thresholds were chosen on {', '.join(sorted(sources))}." if sources else None


def _disjoint(numbers: Numbers) -> str | None:
    levels = (numbers["provenance"].get("tune") or {}).get("nothing_shared_by")
    return (
        f"Checked: no {' and no '.join(levels)} occurs in both the tuning and the evaluated table."
        if levels
        else None
    )


def _ingest(numbers: Numbers) -> str | None:
    return (
        "In part, for files: see Flow, with the reasons for exclusion."
        if "ingest" in numbers["flow"]
        else None
    )


def _prevalence(numbers: Numbers) -> str | None:
    stated = numbers["design"]["prevalence"]
    if not stated:
        return None
    shares = ", ".join(f"{name} {100 * value:.3g}%" for name, value in stated.items())
    return (
        f"Stated for the intended population: {shares}. Predictive values at this prevalence are "
        f"reported."
    )


def _sizes(numbers: Numbers) -> str:
    return (
        "In part: see Flow, for the numbers with and without each finding. The authors must add "
        "those of the development data."
    )


def _output(numbers: Numbers) -> str:
    ranks = any(f["brier"]["estimate"] is None for f in numbers["findings"].values())
    kind = "scores" if ranks else "probabilities"
    return (
        f"The model gives {kind}; a score equal to or above the threshold is positive. "
        f"{_thresholds(numbers)}"
    )


def _margin(numbers: Numbers) -> str | None:
    margins = {row["margin"] for row in numbers["comparisons"] if "margin" in row}
    return (
        f"Non-inferiority with a margin of {', '.join(map(str, sorted(margins)))} in AUC."
        if margins
        else None
    )


def _sensitivity(numbers: Numbers) -> str | None:
    parts = (
        ["refusals counted as errors"]
        if numbers["flow"]["refused"] + numbers["flow"]["failed"]
        else []
    )
    parts += (
        ["uncertain labels counted as negative, and as positive"]
        if _any(numbers, "uncertain_bounds")
        else []
    )
    parts += ["equal weight per patient"] if _any(numbers, "auc_patient_weighted") else []
    parts += ["another unit of analysis"] if _any(numbers, "other_unit") else []
    return f"Also reported: {', '.join(parts)}." if parts else None


def _any(numbers: Numbers, key: str) -> bool:
    return any(key in f for f in numbers["findings"].values())


def _always(text: str) -> Callable[[Numbers], str | None]:
    return lambda numbers: text


ANSWERS: dict[str, Callable[[Numbers], str | None]] = {
    "clusters": _clusters,
    "cross": _always("See the contingency table of each threshold."),
    "demographics": _demographics,
    "development": _development,
    "disjoint": _disjoint,
    "errors": _errors,
    "estimates": _always("See All estimates."),
    "explanation": lambda numbers: numbers["provenance"].get("explanation"),
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
    "sensitivity": _sensitivity,
    "sizes": _sizes,
    "subgroups": _subgroups,
    "thresholds": _thresholds,
    "uncertainty": _always(
        "Every estimate is listed with its interval and method; see Methods and All estimates."
    ),
    "versions": _versions,
}

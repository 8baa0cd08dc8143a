"""What a report can say to an item of a reporting guideline, from its numbers alone; None where it
knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Numbers = dict[str, Any]


def _points(numbers: Numbers) -> list[dict[str, Any]]:
    return [p for f in numbers["findings"].values() for p in f["operating_points"]]


def _thresholds(numbers: Numbers) -> str:
    told = {f"{p['name']} ({p['origin']})" for p in _points(numbers)}
    return "Thresholds and their origin: " + (", ".join(sorted(told)) or "none") + "."


def _refused(numbers: Numbers) -> str:
    missed = numbers["flow"]["refused"] + numbers["flow"]["failed"]
    return (
        f"{missed} images were refused or failed; they keep their label, and rates are also "
        f"given with them as errors."
    )


def _missing(numbers: Numbers) -> str:
    gaps = sum(f["n_not_assessed"] for f in numbers["findings"].values())
    unsure = sum(f["n_uncertain"] for f in numbers["findings"].values())
    return (
        f"{gaps} labels not assessed and {unsure} uncertain (over all findings) were left out "
        f"and counted."
    )


def _columns(numbers: Numbers) -> list[str]:
    return sorted({row["column"] for f in numbers["findings"].values() for row in f["subgroups"]})


def _subgroups(numbers: Numbers) -> str | None:
    columns = _columns(numbers)
    return (
        f"By {', '.join(columns)}; see Subgroups. Whether planned beforehand is for the authors."
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
        "In part, for the data evaluated here: see Who they were."
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
        "Cross tables, and the worst errors by hashed id; see The worst errors." if shown else None
    )


def _model(numbers: Numbers) -> str | None:
    digest = numbers["provenance"].get("model_sha256")
    return f"In part: the model file has the SHA-256 {digest}; see Provenance." if digest else None


def _versions(numbers: Numbers) -> str:
    told = ", ".join(
        f"{name} {version}"
        for name, version in numbers["provenance"]["versions"].items()
        if version
    )
    return f"In part, for this evaluation: {told}."


def _preprocess(numbers: Numbers) -> str | None:
    name = numbers["provenance"].get("preprocess")
    return (
        f"In part: preprocessing '{name}', stored in the model; see Provenance." if name else None
    )


def _development(numbers: Numbers) -> str | None:
    told = {
        f"{p['source']['n_patients']} patients of the {p['source']['split']} split"
        for p in _points(numbers)
        if p["origin"] == "frozen" and {"n_patients", "split"} <= set(p.get("source", {}))
    }
    return f"In part: thresholds were chosen on {', '.join(sorted(told))}." if told else None


def _disjoint(numbers: Numbers) -> str | None:
    levels = (numbers["provenance"].get("tune") or {}).get("nothing_shared_by")
    return (
        f"No {' and no '.join(levels)} stands in both the tuning and the evaluated table (checked)."
        if levels
        else None
    )


def _ingest(numbers: Numbers) -> str | None:
    return (
        "In part, for files: see Flow, with the reasons for leaving out."
        if "ingest" in numbers["flow"]
        else None
    )


def _prevalence(numbers: Numbers) -> str | None:
    stated = numbers["design"]["prevalence"]
    if not stated:
        return None
    told = ", ".join(f"{name} {100 * value:.3g}%" for name, value in stated.items())
    return f"Stated for the intended population: {told}; predictive values are given there."


def _sizes(numbers: Numbers) -> str:
    return (
        "In part: see Flow, with and without for each finding; those of development are for "
        "the authors."
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
        ["uncertain labels all negative and all positive"]
        if _any(numbers, "uncertain_bounds")
        else []
    )
    parts += ["each patient weighing the same"] if _any(numbers, "auc_patient_weighted") else []
    parts += ["another unit of analysis"] if _any(numbers, "other_unit") else []
    return f"Given beside: {', '.join(parts)}." if parts else None


def _any(numbers: Numbers, key: str) -> bool:
    return any(key in f for f in numbers["findings"].values())


def _always(text: str) -> Callable[[Numbers], str | None]:
    return lambda numbers: text


ANSWERS: dict[str, Callable[[Numbers], str | None]] = {
    "clusters": _clusters,
    "cross": _always("See the cross table of each threshold."),
    "demographics": _demographics,
    "development": _development,
    "disjoint": _disjoint,
    "errors": _errors,
    "estimates": _always("See All figures."),
    "explanation": lambda numbers: numbers["provenance"].get("explanation"),
    "failures": _failures,
    "flow": _always("See Flow."),
    "here": _always("In part, for the data evaluated here: see All figures."),
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
        "Every figure has its interval and the method of it; see Methods and All figures."
    ),
    "versions": _versions,
}

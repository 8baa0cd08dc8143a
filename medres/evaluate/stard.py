"""STARD 2015 (Bossuyt et al., BMJ 2015;351:h5527), item by item: what this report answers, and what stays with the authors.

Items are paraphrased. Where the design file has the key named here, its text is the answer; what neither the data nor the
design can answer is left open, never filled in.
"""

from __future__ import annotations

from typing import Any

# number, what it asks for, key of the design file or None, section of the report or None
ITEMS: tuple[tuple[str, str, str | None, str | None], ...] = (
    ("1", "Title says that it is a study of diagnostic accuracy", None, None),
    ("2", "Structured abstract", None, None),
    ("3", "Background, intended use and clinical role of the test", "intended_use", None),
    ("4", "Objectives and hypotheses", "objectives", None),
    ("5", "Data collected before or after the tests were planned", "data_collection", None),
    ("6", "Eligibility criteria", "eligibility", None),
    ("7", "How eligible participants were found", "identification", None),
    ("8", "Setting, place and dates", "setting", None),
    ("9", "Consecutive, random or convenience series", "series", None),
    ("10a", "Index test in enough detail to repeat it", "index_test", None),
    ("10b", "Reference standard in enough detail to repeat it", "reference_standard", None),
    ("11", "Why this reference standard", "reference_rationale", None),
    ("12a", "Cut-offs of the index test, pre-specified or exploratory", None, "thresholds"),
    ("12b", "Cut-offs of the reference standard", "reference_cutoffs", None),
    ("13a", "Whether the index test was blind to clinic and reference", "index_blinding", None),
    ("13b", "Whether the reference was blind to clinic and index test", "reference_blinding", None),
    ("14", "Methods to estimate and compare accuracy", None, "methods"),
    ("15", "How indeterminate results were handled", None, "refused"),
    ("16", "How missing data were handled", None, "missing"),
    ("17", "Analyses of variability, pre-specified or exploratory", None, "subgroups"),
    ("18", "Intended sample size and its reason", "sample_size", None),
    ("19", "Flow of participants", None, "flow"),
    ("20", "Baseline demographic and clinical characteristics", None, "demographics"),
    ("21a", "Severity of disease in those with it", "severity", None),
    ("21b", "Other diagnoses in those without it", "alternative_diagnoses", None),
    ("22", "Time and treatment between index test and reference", "interval", None),
    ("23", "Cross table of index test and reference", None, "cross"),
    ("24", "Estimates of accuracy and their precision", None, "estimates"),
    ("25", "Adverse events", "adverse_events", None),
    ("26", "Limitations", "limitations", None),
    ("27", "Implications for practice", "implications", None),
    ("28", "Registration", "registration", None),
    ("29", "Where the protocol can be read", "protocol", None),
    ("30", "Funding", "funding", None),
)


def stard_rows(numbers: dict[str, Any]) -> list[dict[str, str | None]]:
    """[{"item", "about", "answer"}]; answer is None where the item is left open."""
    rows = []
    for item, about, key, section in ITEMS:
        answer = str(numbers["design"][key]) if key is not None and numbers["design"].get(key) else None
        if section is not None:
            answer = _ANSWERS[section](numbers)
        rows.append({"item": item, "about": about, "answer": answer})
    return rows


def _thresholds(numbers: dict[str, Any]) -> str:
    told = {f"{p['name']} ({p['origin']})" for f in numbers["findings"].values() for p in f["operating_points"]}
    return "Thresholds and their origin: " + (", ".join(sorted(told)) or "none") + "."


def _refused(numbers: dict[str, Any]) -> str:
    missed = numbers["flow"]["refused"] + numbers["flow"]["failed"]
    return (
        f"{missed} images were refused or failed; they keep their label, and rates are also given with them as errors."
    )


def _missing(numbers: dict[str, Any]) -> str:
    gaps = sum(f["n_not_assessed"] for f in numbers["findings"].values())
    unsure = sum(f["n_uncertain"] for f in numbers["findings"].values())
    return f"{gaps} labels not assessed and {unsure} uncertain (over all findings) were left out and counted."


def _subgroups(numbers: dict[str, Any]) -> str | None:
    columns = {row["column"] for f in numbers["findings"].values() for row in f["subgroups"]}
    return f"By {', '.join(sorted(columns))}; see Subgroups." if columns else None


def _demographics(numbers: dict[str, Any]) -> str | None:
    return "See the table under Flow." if numbers["flow"].get("demographics") else None


_ANSWERS = {
    "thresholds": _thresholds,
    "methods": lambda numbers: "See Methods.",
    "refused": _refused,
    "missing": _missing,
    "subgroups": _subgroups,
    "flow": lambda numbers: "See Flow.",
    "demographics": _demographics,
    "cross": lambda numbers: "See the cross table of each threshold.",
    "estimates": lambda numbers: "See All figures.",
}

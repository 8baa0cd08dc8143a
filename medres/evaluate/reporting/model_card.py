"""A model card in Markdown (Mitchell et al. 2019), drawn from the numbers of a report; what is
unknown is said to be.
"""

from __future__ import annotations

import re
from typing import Any

from medres.evaluate.reporting.narrative import UNIT_PLURAL, percent

UNKNOWN = "not stated"


def model_card_markdown(numbers: dict[str, Any]) -> str:
    design = numbers["design"]
    lines = [
        f"# {text(numbers['title'])}",
        "",
        "Research use. Not a medical device.",
        "",
        "## Intended use",
        "",
        text(design.get("intended_use", UNKNOWN)),
        "",
        "## Evaluation data",
        "",
        f"- Sampling: {design['sampling'].replace('_', '-')}",
        f"- Setting: {text(design.get('setting', UNKNOWN))}",
        f"- Reference standard: {text(design.get('reference_standard', UNKNOWN))}",
        f"- Patients: "
        f"{numbers['n']['patients'] if numbers['n']['patients'] is not None else UNKNOWN}; "
        f"{UNIT_PLURAL[numbers['analysis_unit']]}: {numbers['n']['units']}; images: "
        f"{numbers['n']['images']}",
        f"- Refused or failed: {numbers['flow']['refused'] + numbers['flow']['failed']} images",
        "",
        "## Figures",
        "",
        "| Finding | n with / without | AUC | Threshold | Sensitivity | Specificity |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(name, finding) for name, finding in numbers["findings"].items()]
    lines += ["", "## Warnings", ""]
    lines += [
        f"- {text(w['finding'] + ': ' if w['finding'] else '')}{text(w['text'])}"
        for w in numbers["warnings"]
    ] or ["None."]
    lines += ["", "## Methods", "", text(numbers["methods"]), ""]
    return "\n".join(lines)


def text(value: Any) -> str:
    """One line in which nothing is markup."""
    flat = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", flat)


def _row(name: str, finding: dict[str, Any]) -> str:
    cells = [
        text(name),
        f"{finding['n_positive']} / {finding['n'] - finding['n_positive']}",
        _auc(finding["auc"]),
    ]
    if finding["operating_points"]:
        point = finding["operating_points"][0]
        threshold = "–" if point["threshold"] is None else f"{point['threshold']:.4g}"
        cells += [
            f"{threshold} ({point['origin']})",
            _rate(point["sensitivity"]),
            _rate(point["specificity"]),
        ]
    else:
        cells += ["–", "–", "–"]
    return f"| {' | '.join(cells)} |"


def _auc(e: dict[str, Any]) -> str:
    if e["estimate"] is None:
        return "–"
    return f"{e['estimate']:.3f}" + (
        "" if e["ci_low"] is None else f" ({e['ci_low']:.3f} to {e['ci_high']:.3f})"
    )


def _rate(e: dict[str, Any]) -> str:
    if e["estimate"] is None:
        return "–"
    return percent(e["estimate"]) + (
        "" if e["ci_low"] is None else f" ({percent(e['ci_low'])} to {percent(e['ci_high'])})"
    )

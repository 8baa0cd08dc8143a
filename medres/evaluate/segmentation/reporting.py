"""The evaluation of masks for people: the page, the CSV tables, the text for a methods section and
the checklists. Nothing is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from medres.evaluate.analyses.worst_errors import hashed
from medres.evaluate.reporting.checklists import GUIDELINES, items, stated_answer
from medres.evaluate.reporting.csv_tables import Cell, Row
from medres.evaluate.reporting.html import format_percent_limits
from medres.evaluate.reporting.narrative import percent
from medres.evaluate.reporting.static_page import static_page
from medres.evaluate.schema import Checklist, ChecklistItem
from medres.evaluate.segmentation.aggregation import ClassScores
from medres.evaluate.segmentation.case_scores import MM3_PER_ML, CaseScore, Rules
from medres.evaluate.segmentation.figures import dice_forest, histogram, scatter
from medres.evaluate.segmentation.lesions import FRAGMENT
from medres.evaluate.segmentation.outcome import ClassResult, SegmentationResult, SubgroupRow
from medres.evaluate.segmentation.surfaces import CONVENTIONS, PERCENT
from medres.evaluate.serialization import to_plain
from medres.evaluate.statistics.bca import ENOUGH_PATIENTS
from medres.evaluate.statistics.estimate import Estimate

#: the figures of a class, in the order of the page, and what each is
FIGURES = (
    ("dice", "Dice", "2 x overlap / (reference + prediction)"),
    ("iou", "IoU", "overlap / union"),
    ("hd95_mm", "HD95, mm", "95th percentile of the distances between the surfaces"),
    ("hd95_px", "HD95, pixels", "95th percentile of the distances between the surfaces"),
    ("nsd", "NSD", "share of both surfaces within the tolerance of the other"),
    ("assd_mm", "ASSD, mm", "mean distance between the surfaces"),
    ("assd_px", "ASSD, pixels", "mean distance between the surfaces"),
    ("volume_difference_ml", "Volume difference, ml", "prediction - reference"),
    ("area_difference_mm2", "Area difference, mm2", "prediction - reference"),
)
CHECKLISTS = ("stard-2015", "claim-2024")


def masks_methods(
    findings: Mapping[str, ClassResult], rules: Rules, level: float, *, compared: bool
) -> str:
    """Sentences for the methods section of a paper."""
    patients = max(found.n_patients for found in findings.values())
    words = [
        "Predicted and reference masks were compared on the grid of the reference, without "
        "resampling.",
        f"In the convention '{rules.convention.name}', {rules.convention.words}.",
        f"HD95 is the greater of the two directed {PERCENT:g}th percentiles, ASSD the mean over "
        f"both surfaces together, and NSD the share of both surfaces within "
        f"{rules.tolerance:g} mm of the other.",
        "Figures are means over the cases whose reference contains the class, first within the "
        "patient and then over patients. A case that was missed has Dice, IoU and NSD of 0 and no "
        "HD95 and ASSD; with the diagonal of the image in their place HD95 is also given. Cases "
        "with an empty reference are counted apart and are not in these means.",
        "A lesion is a connected component of the reference (26 neighbors, 8 in two dimensions), "
        f"found if its IoU with a component of the prediction is above {rules.hit_iou:g}; "
        "components are matched one to one by greatest overlap. Other components of the "
        f"prediction are false positives, except those with {FRAGMENT:.0%} or more of their "
        "voxels within lesions that were found.",
        f"Intervals of means are two-sided at {level:.0%}, by the BCa bootstrap of patients "
        "(Efron 1987), whose levels are widened as Student's t is (Hesterberg 2015); those of "
        "proportions are Wilson's, with patients as clusters.",
    ]
    if patients < ENOUGH_PATIENTS:
        words.append(
            f"There are fewer than {ENOUGH_PATIENTS} patients, for which the coverage of these "
            "intervals was not shown."
        )
    if compared:
        words.append("Models were compared by the differences within patients.")
    return " ".join(words)


def masks_checklists(
    answers: Mapping[str, Any], findings: Mapping[str, ClassResult], subgroups: Sequence[str]
) -> list[Checklist]:
    """STARD 2015 and CLAIM 2024: what this report or the design file answers; others stay open."""
    here: dict[str, str | None] = {
        "estimates": "See All figures.",
        "here": "In part, for the evaluated data: see All figures.",
        "methods": "See Methods.",
        "missing": "Every reference has a prediction; empty ones are counted: see All figures.",
        "failures": "The worst cases, by hashed name; see Worst cases.",
        "errors": "The worst cases, by hashed name; see Worst cases.",
        "outputs": "This report is stored with its numbers (report.json, tables) and the hashes of "
        "its inputs.",
        "sizes": f"{max(f.n_patients for f in findings.values())} patients were evaluated.",
        "subgroups": f"By {', '.join(subgroups)}; see Subgroups." if subgroups else None,
        "uncertainty": "Every figure has its interval and method; see All figures.",
        "versions": "In part, for this evaluation: see Provenance.",
    }
    return [
        Checklist(*GUIDELINES[key], [_checked(item, answers, here) for item in items(key)])
        for key in CHECKLISTS
    ]


def case_table(title: str, value: int, cases: ClassScores, patients: Sequence[str]) -> list[Row]:
    """A row for each case of a class, for tables/cases.csv."""
    rows = []
    for name, patient, score in zip(cases.names, patients, cases.scores, strict=True):
        mm = score.has_spacing
        row: Row = {
            "case": name,
            "class": title,
            "dice": _cell(score.dice),
            "iou": _cell(score.iou),
            "hd95_mm": _cell(score.hd95) if mm else None,
            "nsd": _cell(score.nsd),
            "assd_mm": _cell(score.assd) if mm else None,
            **_sizes(score),
            "status": _status(score),
            "n_lesions": len(score.lesion_size),
            "n_lesions_found": sum(score.lesion_found),
            "n_lesion_false_positives": len(score.false_lesion_size),
            "patient": patient,
            "case_hash": hashed(name),
            "value": value,
        }
        if not mm:
            row |= {"hd95_px": _cell(score.hd95), "assd_px": _cell(score.assd)}
        rows.append(row)
    return rows


def masks_tables(result: SegmentationResult, cases: list[Row]) -> dict[str, list[Row]]:
    """Rows by table: cases, figures, lesions, and sizes, subgroups and comparisons if there are."""
    findings = result.findings
    tables = {
        "cases": cases,
        "figures": [row for name, found in findings.items() for row in _figure_rows(name, found)],
        "lesions": _rows(findings, "lesion_bins"),
        "sizes": _rows(findings, "size_strata"),
        "subgroups": [
            _subgroup_row(name, row, key, estimate)
            for name, found in findings.items()
            for row in found.subgroups
            for key, estimate in _estimates(row.figures)
        ],
        "comparisons": [_flat(to_plain(row)) for row in result.comparisons],
    }
    return {name: rows for name, rows in tables.items() if rows}


def masks_page(
    result: SegmentationResult, cases: list[Row], pictures: Mapping[tuple[str, str], str]
) -> str:
    """A self-contained HTML page that requests nothing from the network."""
    return static_page(
        "segmentation.html.j2",
        {"pct": percent, "ci_pct": format_percent_limits},
        has_images=True,
        r=result,
        figures=FIGURES,
        convention=CONVENTIONS[result.convention].words,
        forest=Markup(dice_forest(list(result.findings.values()))),
        plots={name: _plots(name, cases, found) for name, found in result.findings.items()},
        pictures=pictures,
        enough=ENOUGH_PATIENTS,
        provenance=result.provenance,
    )


def _plots(name: str, cases: list[Row], found: ClassResult) -> list[Markup]:
    """The distributions of Dice and HD95, and Dice by size."""
    rows = [row for row in cases if row["class"] == name and row["dice"] is not None]
    if not rows:
        return []
    dices = [float(row["dice"]) for row in rows]  # type: ignore[arg-type]
    plots = [histogram(name, dices, name="Dice", upper=1.0)]
    key = "hd95_mm" if any(row["hd95_mm"] is not None for row in rows) else "hd95_px"
    measured = [row for row in rows if row.get(key) is not None]
    distances = [float(row[key]) for row in measured]  # type: ignore[arg-type]
    if any(distances):
        unit = "mm" if key == "hd95_mm" else "pixels"
        plots.append(histogram(name, distances, name=f"HD95, {unit}"))
    size = next((key for key in rows[0] if key.startswith("reference_")), "")
    sizes = [float(row[size]) for row in rows]  # type: ignore[arg-type]
    plots.append(scatter(name, sizes, dices, size.removeprefix("reference_")))
    return [Markup(plot) for plot in plots]


def _sizes(score: CaseScore) -> Row:
    if not score.has_spacing:
        unit, scale = "pixels", 1.0
    else:
        unit, scale = ("ml", MM3_PER_ML) if score.n_axes == 3 else ("mm2", 1.0)
    key = "area_difference_mm2" if unit == "mm2" else "volume_difference_ml"
    return {
        f"reference_{unit}": score.reference_size / scale,
        f"prediction_{unit}": score.prediction_size / scale,
        key: _cell(score.difference),
    }


def _status(score: CaseScore) -> str:
    if score.missed:
        return "missed"
    if score.false_alarm:
        return "false_alarm"
    return "both_empty" if score.empty else "overlap"


def _cell(value: float) -> Cell:
    return None if math.isnan(value) else value


def _estimates(owner: object) -> Iterable[tuple[str, Estimate]]:
    values = vars(owner).items()
    return [(key, value) for key, value in values if isinstance(value, Estimate)]


def _figure_rows(name: str, found: ClassResult) -> list[Row]:
    return [
        {"class": name, "figure": key, **estimate.to_dict()}
        for owner in (found.figures, found)
        for key, estimate in _estimates(owner)
    ]


def _subgroup_row(name: str, row: SubgroupRow, key: str, estimate: Estimate) -> Row:
    counts = {"n_cases": row.n_cases, "n_patients": row.n_patients}
    level = {"class": name, "column": row.column, "level": row.level}
    return {**level, **counts, "figure": key, **estimate.to_dict()}


def _rows(findings: Mapping[str, ClassResult], name: str) -> list[Row]:
    return [
        {"class": title, **_flat(to_plain(item))}
        for title, found in findings.items()
        for item in getattr(found, name)
    ]


def _flat(members: Mapping[str, Any]) -> Row:
    """The members of an object; an estimate takes one column for the number and two for limits."""
    row: Row = {}
    for key, value in members.items():
        if isinstance(value, dict):
            row |= {key: value["estimate"]}
            row |= {f"{key}_{limit}": value[limit] for limit in ("ci_low", "ci_high")}
        else:
            row[key] = value
    return row


def _checked(
    item: Mapping[str, str], answers: Mapping[str, Any], here: Mapping[str, str | None]
) -> ChecklistItem:
    parts = [stated_answer(item, answers), here.get(item["section"])]
    answer = " ".join(part for part in parts if part) or None
    return ChecklistItem(item["item"], item["about"], answer, item["design"] or None)

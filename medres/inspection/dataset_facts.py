"""The contents of a work folder as plain tables for the page, counted from the manifest; no source
file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.ingestion.test_access_log import read_openings
from data_pipelines.labels.exclusion_bias import ExclusionRow, ExclusionTest
from medres.inspection.confounders import ComparedLabel, Subgroup, adjusted, subgroup

MAX_CELLS = 10  # label groups with a contact sheet
LABEL_VALUES = {"present": 1.0, "absent": 0.0, "uncertain": -1.0}
AGES = {
    "0 to 17": (0, 18),
    "18 to 39": (18, 40),
    "40 to 64": (40, 65),
    "65 to 89": (65, 90),
    "90 and over": (90, 999),
}
SUBGROUP_COLUMNS = ("sex", "age", "view", "manufacturer", "model", "site", "body_part")
VERDICTS = {
    "REGULAR": "evenly spaced parallel slices: a volume",
    "TILTED": "evenly spaced slices of a tilted gantry: a sheared volume",
    "MISSING": "slices are missing",
    "IRREGULAR": "the slice spacing varies",
    "DUPLICATE": "several different slices at one position",
    "MIXED_ORIENTATION": "slices of more than one orientation",
    "NOT_A_VOLUME": "too few slices, or slices without a position",
    "SINGLE": "single images",
}


@dataclass(frozen=True)
class SplitFacts:
    """cells: (label group, number of images)."""

    name: str
    patients: int
    studies: int
    images: int
    cells: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class SizeFacts:
    """Minimum, median and maximum of the images of one kind. spacing: mm; None if unknown."""

    kind: str
    rows: tuple[int, ...]
    cols: tuple[int, ...]
    spacing: tuple[float, ...] | None


@dataclass(frozen=True)
class VerdictFacts:
    verdict: str
    series: int
    meaning: str


@dataclass(frozen=True)
class QuarantineReason:
    """A reason with its files and its message. row: of the first file in quarantine.csv, as a
    spreadsheet numbers rows. image: data URI of that file's image, '' without one.
    """

    reason: str
    count: int
    message: str
    row: int
    image: str = ""


@dataclass(frozen=True)
class Exclusions:
    """By label and split, as ingest recorded them."""

    rows: tuple[ExclusionRow, ...]
    tests: tuple[ExclusionTest, ...]


@dataclass(frozen=True)
class DatasetFacts:
    """What the page says in numbers. summary: the content of ingest.json. exclusions: None where an
    earlier version made the folder. openings: accesses to the test split.
    """

    summary: dict[str, Any]
    images: int
    patients: int
    findings: tuple[str, ...]
    splits: tuple[SplitFacts, ...]
    compared_labels: tuple[str, ...]
    subgroups: tuple[Subgroup, ...]
    sizes: tuple[SizeFacts, ...]
    verdicts: tuple[VerdictFacts, ...]
    quarantine: tuple[QuarantineReason, ...]
    exclusions: Exclusions | None
    openings: tuple[dict[str, str], ...]


def facts(manifest: Manifest) -> DatasetFacts:
    """Counts, splits, labels by subgroup, series verdicts, quarantine, exclusions by label, and
    accesses to the test split.
    """
    table, summary = manifest.table, manifest.summary
    labels = _compared(table)
    subgroups = [
        levels
        for column in (*SUBGROUP_COLUMNS, *_meta_columns(table))
        if (levels := _subgroup(table, column, labels)) is not None
    ]
    verdicts = sorted(summary["verdicts"].items(), key=lambda item: -item[1])
    return DatasetFacts(
        summary=summary,
        images=len(table),
        patients=int(table["patient"].nunique()),
        findings=tuple(summary["findings"] or summary["classes"] or ()),
        splits=tuple(_splits(table, summary)),
        compared_labels=tuple(label.name for label in labels),
        subgroups=tuple(adjusted(subgroups)),
        sizes=tuple(_sizes(table)),
        verdicts=tuple(
            VerdictFacts(name, count, VERDICTS.get(name, "")) for name, count in verdicts
        ),
        quarantine=tuple(_quarantine(manifest.quarantine)),
        exclusions=exclusions(summary),
        openings=tuple(read_openings(manifest.work) if manifest.work else []),
    )


def exclusions(summary: Mapping[str, Any]) -> Exclusions | None:
    """What ingest.json says about exclusions by label; None where it says nothing."""
    if "exclusions_by_label" not in summary:
        return None
    rows, tests = summary["exclusions_by_label"], summary.get("exclusion_tests", [])
    return Exclusions(tuple(rows), tuple(tests))


def label_cells(table: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """(name, rows) of the label groups that get a contact sheet: each class; or each value of a
    single finding; or each of several findings.
    """
    if "class" in table:
        cells = [(name, table["class"] == name) for name in sorted(set(table["class"]) - {""})]
    else:
        names = [str(name) for name in table if str(name).startswith("label:")]
        if len(names) == 1:
            cells = [
                (f"{names[0][6:]} {text}", table[names[0]] == value)
                for text, value in LABEL_VALUES.items()
            ]
        else:
            cells = [(name[6:], table[name] == 1) for name in names]
            if names:
                cells.append(("none present", ~(table[names] == 1).any(axis=1)))
    not_empty = [(name, rows) for name, rows in cells if rows.any()]
    return not_empty[:MAX_CELLS] or [("all images", pd.Series(True, index=table.index))]


def _compared(table: pd.DataFrame) -> list[ComparedLabel]:
    """The labels whose shares are compared between subgroups: the first three. "absent" of a single
    finding is left out, because the other shares imply it.
    """
    cells = label_cells(table)
    columns = [str(name) for name in table if str(name).startswith("label:")]
    if len(columns) == 1 and len(cells) > 1:
        cells = [cell for cell in cells if not cell[0].endswith(" absent")]
    return [ComparedLabel(name, rows, _assessed(table, name, columns)) for name, rows in cells[:3]]


def _assessed(table: pd.DataFrame, cell: str, columns: list[str]) -> pd.Series:
    """Which images have a value of the label that a cell is about."""
    if "class" in table:
        return table["class"] != ""
    column = columns[0] if len(columns) == 1 else f"label:{cell}"
    return table[column].notna() if column in table else pd.Series(True, index=table.index)


def _splits(table: pd.DataFrame, summary: dict[str, Any]) -> list[SplitFacts]:
    cells = label_cells(table)
    return [
        SplitFacts(
            name,
            **{key: summary["splits"][name][key] for key in ("patients", "studies", "images")},
            cells=tuple(
                (label, int((rows & (table["split"] == name)).sum())) for label, rows in cells
            ),
        )
        for name in SPLITS
    ]


def _subgroup(table: pd.DataFrame, column: str, labels: list[ComparedLabel]) -> Subgroup | None:
    values = table[column]
    order: tuple[str, ...] = ()
    if column == "age":
        edges = [low for low, _ in AGES.values()] + [999]
        values = pd.Series(
            pd.cut(values, edges, right=False, labels=list(AGES)), index=table.index
        ).astype(object)
        order = (*AGES, "not stated")
    values = values.where(values.notna() & (values != ""), "not stated").astype(str)
    patients = table["patient"].where(table["patient"] != "", table["image"])
    return subgroup(column.removeprefix("meta:"), values, patients, labels, order)


def _meta_columns(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table if str(name).startswith("meta:")]


def _sizes(table: pd.DataFrame) -> list[SizeFacts]:
    def spread(values: pd.Series) -> tuple[float, ...]:
        return tuple(float(v) for v in np.percentile(values, [0, 50, 100]))

    sizes = []
    for kind, part in table.groupby("kind"):
        rows, cols = (tuple(int(v) for v in spread(part[name])) for name in ("rows", "cols"))
        spacing = part["row_spacing"].dropna()
        sizes.append(SizeFacts(str(kind), rows, cols, spread(spacing) if len(spacing) else None))
    return sizes


def _quarantine(quarantine: pd.DataFrame) -> list[QuarantineReason]:
    reasons = [
        QuarantineReason(
            str(reason), len(part), str(part["message"].iloc[0]), int(part.index[0]) + 2
        )
        for reason, part in quarantine.groupby("reason")
    ]
    return sorted(reasons, key=lambda entry: (-entry.count, entry.reason))

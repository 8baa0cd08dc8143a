"""The contents of a work folder as plain tables for the page, counted from the manifest; no source
file is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.ingestion.test_access_log import read_openings

MAX_CELLS = 10  # label groups with a contact sheet
MAX_LEVELS = 12  # of a column, in the tables of subgroups
MIN_IMAGES = 20  # of a level that counts for the spread
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


def facts(manifest: Manifest) -> dict[str, Any]:
    """Counts, splits, labels by subgroup, series verdicts, quarantine, repairs, leakage audit and
    accesses to the test split.
    """
    table, summary = manifest.table, manifest.summary
    return {
        "files": {
            name: summary[name] for name in ("given", "ok", "repaired", "quarantined", "skipped")
        },
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "kinds": summary["kinds"],
        "task": summary["task"],
        "findings": summary["findings"] or summary["classes"] or [],
        "warnings": summary["warnings"],
        "splits": _splits(table, summary),
        "split_origin": summary["split_origin"],
        "seed": summary["seed"],
        "readers": summary["readers"],
        "subgroups": [
            levels
            for column in (*SUBGROUP_COLUMNS, *_meta_columns(table))
            if (levels := _levels(table, column)) is not None
        ],
        "compared_labels": [name for name, _ in _compared(table)],
        "sizes": _sizes(table),
        "verdicts": [
            {"verdict": name, "series": count, "meaning": VERDICTS.get(name, "")}
            for name, count in sorted(summary["verdicts"].items(), key=lambda item: -item[1])
        ],
        "quarantine": _quarantine(manifest.quarantine),
        "repairs": summary["repairs"],
        "audit": summary["audit"],
        "openings": read_openings(manifest.work) if manifest.work else [],
        "manifest_sha256": summary.get("manifest_sha256", ""),
    }


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


def _compared(table: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """The labels whose shares are compared between subgroups: the first three. "absent" of a single
    finding is left out, because the other shares imply it.
    """
    cells = label_cells(table)
    one_finding = sum(str(name).startswith("label:") for name in table) == 1
    return [
        cell
        for cell in cells
        if not (one_finding and cell[0].endswith(" absent") and len(cells) > 1)
    ][:3]


def _splits(table: pd.DataFrame, summary: dict[str, Any]) -> list[dict[str, Any]]:
    cells = label_cells(table)
    return [
        {
            "name": name,
            **{k: summary["splits"][name][k] for k in ("patients", "studies", "images")},
            "cells": [
                (label, int((rows & (table["split"] == name)).sum())) for label, rows in cells
            ],
        }
        for name in SPLITS
    ]


def _levels(table: pd.DataFrame, column: str) -> dict[str, Any] | None:
    """Images, patients and share of each compared label per level of a column; None for a column
    with a single level or with very many.
    """
    values = table[column]
    if column == "age":
        edges = [low for low, _ in AGES.values()] + [999]
        values = pd.Series(
            pd.cut(values, edges, right=False, labels=list(AGES)), index=table.index
        ).astype(object)
    values = values.where(values.notna() & (values != ""), "not stated")
    count = values.value_counts()
    if len(count) < 2 or len(count) > 4 * MAX_LEVELS:
        return None
    order = [*AGES, "not stated"] if column == "age" else list(count.index)
    cells = _compared(table)
    rows: list[dict[str, Any]] = []
    for level in [level for level in order if level in count][:MAX_LEVELS]:
        inside = values == level
        shares = [float((rows & inside).sum() / inside.sum()) for _, rows in cells]
        patients = int(table.loc[inside, "patient"].nunique())
        rows.append(
            {
                "level": str(level),
                "images": int(inside.sum()),
                "patients": patients,
                "shares": shares,
            }
        )
    spread = max(
        (
            abs(a["shares"][0] - b["shares"][0])
            for a in rows
            for b in rows
            if min(a["images"], b["images"]) >= MIN_IMAGES
        ),
        default=0,
    )
    more = max(0, len(count) - MAX_LEVELS)
    return {
        "column": column.removeprefix("meta:"),
        "rows": rows,
        "spread": float(spread),
        "more": more,
    }


def _meta_columns(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table if str(name).startswith("meta:")]


def _sizes(table: pd.DataFrame) -> list[dict[str, Any]]:
    out = []
    for kind, part in table.groupby("kind"):
        spacing = part["row_spacing"].dropna()
        out.append(
            {
                "kind": str(kind),
                "rows": [int(v) for v in np.percentile(part["rows"], [0, 50, 100])],
                "cols": [int(v) for v in np.percentile(part["cols"], [0, 50, 100])],
                "spacing": [float(v) for v in np.percentile(spacing, [0, 50, 100])]
                if len(spacing)
                else None,
            }
        )
    return out


def _quarantine(quarantine: pd.DataFrame) -> list[dict[str, Any]]:
    """Each reason with its count, its message and, as an example, the row of quarantine.csv (as a
    spreadsheet numbers rows).
    """
    out = []
    for reason, part in quarantine.groupby("reason"):
        first = int(part.index[0])
        out.append(
            {
                "reason": str(reason),
                "count": len(part),
                "message": str(part["message"].iloc[0]),
                "row": first + 2,
            }
        )
    return sorted(out, key=lambda entry: (-entry["count"], entry["reason"]))

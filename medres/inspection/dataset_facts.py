"""What a work folder holds, as plain tables for the page: counted from the manifest, nothing is
read from the sources.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.ingestion.test_access_log import read_openings

MAX_CELLS = 10
MAX_LEVELS = 12
VALUES = {"present": 1.0, "absent": 0.0, "uncertain": -1.0}
AGES = {
    "0 to 17": (0, 18),
    "18 to 39": (18, 40),
    "40 to 64": (40, 65),
    "65 to 89": (65, 90),
    "90 and over": (90, 999),
}
WHO = ("sex", "age", "view", "manufacturer", "model", "site", "body_part")
VERDICTS = {
    "REGULAR": "evenly spaced parallel slices: a volume",
    "TILTED": "evenly spaced, with a tilted gantry: a sheared volume",
    "MISSING": "slices are missing in between",
    "IRREGULAR": "the spacing of the slices varies",
    "DUPLICATE": "several different slices at one place",
    "MIXED_ORIENTATION": "slices of more than one direction",
    "NOT_A_VOLUME": "the slices have no places in space, or too few",
    "SINGLE": "single pictures",
}


def facts(manifest: Manifest) -> dict[str, Any]:
    """Counts, splits, labels by subgroup, series verdicts, quarantine, repairs, audit and openings
    of the test split.
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
        "who": [
            one for column in (*WHO, *_meta(table)) if (one := _levels(table, column)) is not None
        ],
        "shown_labels": [name for name, _ in _compared(table)],
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
    """(name, rows) of what contact sheets are made of: each class; or each value of one finding; or
    each of many findings.
    """
    if "class" in table:
        cells = [(name, table["class"] == name) for name in sorted(set(table["class"]) - {""})]
    else:
        names = [str(name) for name in table if str(name).startswith("label:")]
        if len(names) == 1:
            cells = [
                (f"{names[0][6:]} {text}", table[names[0]] == value)
                for text, value in VALUES.items()
            ]
        else:
            cells = [(name[6:], table[name] == 1) for name in names]
            if names:
                cells.append(("none present", ~(table[names] == 1).any(axis=1)))
    kept = [(name, rows) for name, rows in cells if rows.any()]
    return kept[:MAX_CELLS] or [("all images", pd.Series(True, index=table.index))]


def _compared(table: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """The labels that are set against other columns: the first three, `absent` left out, which the
    rest implies.
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
    """Images, patients and share of each shown label by level of a column; None where there is one
    level alone.
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
    for level in [one for one in order if one in count][:MAX_LEVELS]:
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
            if _large(a) and _large(b)
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


def _large(row: dict[str, Any]) -> bool:
    return row["images"] >= 20


def _meta(table: pd.DataFrame) -> list[str]:
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
    """Each reason with its count, what it means and the row of quarantine.csv, as a spreadsheet
    counts, of an example.
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
    return sorted(out, key=lambda one: (-one["count"], one["reason"]))

"""The leakage audit: who may be one patient under two spellings, and which pictures are there
twice, or nearly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.ingestion.manifest import AUDIT_COLUMNS
from data_pipelines.ingestion.perceptual_hash import MAX_IMAGES, near_duplicate_pairs

MAX_PAIRS = 1000


def audit(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What the rows of an ingest share that they should not: a table of AUDIT_COLUMNS, and its
    counts.

    Columns read: source, path, patient, person, pixel_sha256, look, alike, split ('' where it is
    not kept) and reason. Kinds: patient_spelling (identifiers that differ in punctuation or leading
    zeros alone), identical_pixels (decoded, MONOCHROME1 mirrored, in whatever encoding) and
    near_duplicate (see looks), the last two of different patients or the same.
    """
    kept = rows[rows["reason"] == ""]
    found = [_groups("patient_spelling", kept[kept["alike"] != ""], "alike", "person")]
    refused = (
        (rows["reason"] != "").groupby(rows["pixel_sha256"]).transform("any")
    )  # not two empty slices of one patient
    found.append(_groups("identical_pixels", rows[refused], "pixel_sha256", "place"))
    pairs, searched = _near(kept)
    found.append(pairs)
    table = pd.concat(found, ignore_index=True)
    counts = {
        what: _counts(part)
        for what, part in zip(("patient_spelling", "identical_pixels"), found, strict=False)
    }
    near: dict[str, Any] = {"groups": searched, "across_splits": _counts(pairs)["across_splits"]}
    return table, {
        **counts,
        "near_duplicate": near if searched is not None else {"not_searched_over": MAX_IMAGES},
    }


def audit_warnings(counts: dict[str, Any]) -> list[str]:
    """What the audit found, a sentence each, and how to go on."""
    spelt, same, near = (
        counts[what] for what in ("patient_spelling", "identical_pixels", "near_duplicate")
    )
    said = []
    if spelt["groups"]:
        said.append(
            f"{spelt['groups']} patient identifiers occur in several spellings, which differ in "
            f"punctuation or leading zeros "
            f"alone ({spelt['across_splits']} across splits): see audit.csv. Where they are one "
            f"person, write one spelling in a "
            "column patient of the labels table"
        )
    if same["across_patients"]:
        said.append(
            f"{same['across_patients']} pictures occur under several patients: one copy of each "
            f"is kept, or none where labels "
            "differ. See audit.csv, and find out whose they are"
        )
    if near.get("groups"):
        said.append(
            f"{near['groups']} pairs of pictures of different patients look alike "
            f"({near['across_splits']} across splits): see "
            "audit.csv and look at them. Where they are one picture, or one person, give both the "
            "same patient and ingest again"
        )
    if "not_searched_over" in near:
        said.append(
            f"near-duplicates were not searched for: there are more than {MAX_IMAGES} images"
        )
    return said


def _groups(what: str, rows: pd.DataFrame, column: str, differ: str) -> pd.DataFrame:
    """Rows that share `column` and differ in `differ`, numbered by group."""
    rows = rows.assign(place=rows["source"] + "\n" + rows["path"])
    shared = rows[rows.groupby(column)[differ].transform("nunique") > 1] if len(rows) else rows
    numbers = pd.factorize(shared[column])[0] + 1
    return _listed(what, shared, numbers, np.full(len(shared), np.nan)).sort_values(
        "number", kind="stable"
    )


def _near(kept: pd.DataFrame) -> tuple[pd.DataFrame, int | None]:
    """The nearest pairs as rows, two a pair, and how many pairs there are (None: not searched
    for).
    """
    if len(kept) > MAX_IMAGES:
        return _listed("near_duplicate", kept.iloc[:0], np.zeros(0, int), np.zeros(0)), None
    pairs = near_duplicate_pairs(list(kept["look"]), pd.factorize(kept["patient"])[0])
    shown = pairs[:MAX_PAIRS]
    rows = kept.iloc[[place for i, j, _ in shown for place in (i, j)]]
    numbers, distances = (
        np.repeat(np.arange(len(shown)) + 1, 2),
        np.repeat([pair[2] for pair in shown], 2),
    )
    return _listed("near_duplicate", rows, numbers, distances), len(pairs)


def _listed(
    what: str, rows: pd.DataFrame, numbers: np.ndarray, distances: np.ndarray
) -> pd.DataFrame:
    kept = np.where(rows["reason"] == "", "yes", "no")
    return pd.DataFrame(rows[["path", "split", "patient", "source"]]).assign(
        what=what, number=numbers, kept=kept, distance=distances
    )[list(AUDIT_COLUMNS)]


def _counts(part: pd.DataFrame) -> dict[str, int]:
    by_number = part.groupby("number")
    splits = part[part["split"] != ""].groupby("number")["split"].nunique()
    return {
        "groups": int(part["number"].nunique()),
        "across_patients": int((by_number["patient"].nunique() > 1).sum()),
        "across_splits": int((splits > 1).sum()),
    }

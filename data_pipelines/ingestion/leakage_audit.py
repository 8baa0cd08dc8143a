"""The leakage audit: which patient identifiers may be two spellings of one, and which images occur
twice, or nearly.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import pandas as pd

from data_pipelines.ingestion.hierarchy_audit import (
    GroupCounts,
    contradictions,
    hierarchy_warnings,
)
from data_pipelines.ingestion.manifest import AUDIT_COLUMNS
from data_pipelines.ingestion.near_duplicates import near_duplicates
from data_pipelines.runtime.plain_text import counted
from data_pipelines.runtime.worker_pool import ProgressCallback

MAX_PAIRS = 1000  # near-duplicate pairs that are listed; all are counted


class PairCounts(TypedDict):
    """Near-duplicate pairs. at_least: there may be more pairs than were found."""

    groups: int
    across_splits: int
    at_least: bool


class AuditCounts(TypedDict):
    """The audit in numbers, as written to ingest.json."""

    patient_spelling: GroupCounts
    identical_pixels: GroupCounts
    near_duplicate: PairCounts
    hierarchy: dict[str, GroupCounts]


def audit(
    rows: pd.DataFrame, progress: ProgressCallback | None = None
) -> tuple[pd.DataFrame, AuditCounts]:
    """Return what the rows of an ingest share and should not: a table of AUDIT_COLUMNS, and counts.

    Columns read: source, path, patient, person, pixel_sha256, perceptual_hash, similar_id, split
    ('' if excluded), reason and the identifiers. Kinds of entries: patient_spelling (identifiers
    that differ in punctuation or leading zeros only), identical_pixels (after decoding, in whatever
    encoding and polarity), near_duplicate (see perceptual_hash; of different patients; the nearest
    MAX_PAIRS are listed, and all are counted) and those of hierarchy_audit. progress: of the search
    for near-duplicates.
    """
    included = rows[rows["reason"] == ""]
    spelling = _groups(
        "patient_spelling", included[included["similar_id"] != ""], "similar_id", "person"
    )
    # Two empty slices of one patient may be equal: list equal pixels only if one was excluded.
    has_excluded = (rows["reason"] != "").groupby(rows["pixel_sha256"]).transform("any")
    pixels = _groups("identical_pixels", rows[has_excluded], "pixel_sha256", "file")
    pairs, near = _near_duplicates(included, progress)
    hierarchy = {
        kind: _groups(kind, part, "shared", "different")
        for kind, part in contradictions(rows).items()
    }
    entries = [spelling, pixels, pairs, *hierarchy.values()]
    return pd.concat(entries, ignore_index=True), {
        "patient_spelling": _counts(spelling),
        "identical_pixels": _counts(pixels),
        "near_duplicate": near,
        "hierarchy": {kind: _counts(table) for kind, table in hierarchy.items()},
    }


def audit_warnings(counts: AuditCounts) -> list[str]:
    """Return one sentence per problem: how often it occurs, and what to do."""
    spelling, pixels = counts["patient_spelling"], counts["identical_pixels"]
    near = counts["near_duplicate"]
    warnings = []
    if spelling["groups"]:
        warnings.append(
            f"{counted(spelling['groups'], 'patient identifier')} with several spellings "
            f"(punctuation, leading zeros), of which {spelling['across_splits']} across splits: "
            f"see audit.csv. If they are one person, write one spelling in a column patient of the "
            f"labels table"
        )
    if pixels["across_patients"]:
        warnings.append(
            f"{counted(pixels['across_patients'], 'duplicate image')} across patients: one copy "
            f"kept (all dropped where labels conflict). See audit.csv, and find out which patient "
            f"they belong to"
        )
    if near["groups"]:
        at_least = "at least " if near["at_least"] else ""
        warnings.append(
            f"{at_least}{counted(near['groups'], 'pair')} of similar images of different patients, "
            f"of which {near['across_splits']} across splits: see audit.csv and compare them. If "
            f"they show one person, give both the same patient and ingest again"
        )
    warnings += hierarchy_warnings(counts["hierarchy"])
    return warnings


def _groups(what: str, rows: pd.DataFrame, shared: str, different: str) -> pd.DataFrame:
    """Rows that are equal in the column `shared` and differ in `different`, numbered by group."""
    rows = rows.assign(file=rows["source"] + "\n" + rows["path"])
    part = rows[rows.groupby(shared)[different].transform("nunique") > 1] if len(rows) else rows
    numbers = pd.factorize(part[shared])[0] + 1
    return _entries(what, part, numbers, np.full(len(part), np.nan)).sort_values(
        "number", kind="stable"
    )


def _near_duplicates(
    included: pd.DataFrame, progress: ProgressCallback | None
) -> tuple[pd.DataFrame, PairCounts]:
    """The nearest pairs, two rows per pair, and how many pairs there are."""
    result = near_duplicates(
        list(included["perceptual_hash"]),
        pd.factorize(included["patient"])[0],
        pd.factorize(included["split"])[0],
        show=MAX_PAIRS,
        progress=progress,
    )
    rows = included.iloc[[row for i, j, _ in result.nearest for row in (i, j)]]
    numbers = np.repeat(np.arange(len(result.nearest)) + 1, 2)
    distances = np.repeat([distance for _, _, distance in result.nearest], 2)
    counts: PairCounts = {
        "groups": result.pairs,
        "across_splits": result.across_splits,
        "at_least": not result.exact,
    }
    return _entries("near_duplicate", rows, numbers, distances), counts


def _entries(
    what: str, rows: pd.DataFrame, numbers: np.ndarray, distances: np.ndarray
) -> pd.DataFrame:
    """The rows as a table of AUDIT_COLUMNS."""
    kept = np.where(rows["reason"] == "", "yes", "no")
    return pd.DataFrame(rows[["path", "split", "patient", "source"]]).assign(
        what=what, number=numbers, kept=kept, distance=distances
    )[list(AUDIT_COLUMNS)]


def _counts(entries: pd.DataFrame) -> GroupCounts:
    by_number = entries.groupby("number")
    splits = entries[entries["split"] != ""].groupby("number")["split"].nunique()
    return {
        "groups": int(entries["number"].nunique()),
        "across_patients": int((by_number["patient"].nunique() > 1).sum()),
        "across_splits": int((splits > 1).sum()),
    }

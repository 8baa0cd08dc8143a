"""Taking out the images that cannot stay: without a patient or a split, leaking, or there already."""

from __future__ import annotations

import pandas as pd

from data_pipelines.duplicates import MESSAGES, find_duplicates
from data_pipelines.indexing import Rejected
from data_pipelines.labels import Labels

REASONS = {
    "no_patient_id": "PatientID is empty: name the patient in a column patient of the labels table.",
    "no_split": "The labels table gives splits, and this image none.",
    "split_leak": "Its patient, or a copy of it, lies in a split that counts more (test, then tune, then train).",
    "both_sites": "Its patient was also seen at the external site, which is the test split.",
    **MESSAGES,
}


def weed(rows: pd.DataFrame, labels: Labels | None) -> pd.Series:
    """A key of REASONS a row, or '' for a row to keep. A column `excluded` holds what was decided before."""
    reason = pd.Series("", index=rows.index, dtype=object)
    if labels is not None and "split" in labels.columns:
        reason[rows["split"] == ""] = "no_split"
    excluded = rows["excluded"] != ""
    reason[excluded] = rows["excluded"][excluded]
    reason[rows["patient"] == ""] = "no_patient_id"
    copies = find_duplicates(rows[reason == ""])
    reason[copies.index] = copies
    return reason


def lost_files(rows: pd.DataFrame, reason: pd.Series) -> tuple[tuple[Rejected, ...], int]:
    """The files that keep no row, each with its reason, and how many rows are lost by files that keep another."""
    files = pd.MultiIndex.from_frame(rows[["source", "path"]])
    gone = rows.assign(reason=reason)[~files.isin(files[reason == ""])]
    lost_rows = int((reason != "").sum()) - len(gone)
    gone = gone.drop_duplicates(["source", "path"])
    rejected = [
        Rejected(source, path, code, REASONS[code], skipped=False)
        for source, path, code in zip(gone["source"], gone["path"], gone["reason"], strict=True)
    ]
    return tuple(rejected), lost_rows

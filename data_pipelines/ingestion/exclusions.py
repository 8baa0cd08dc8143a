"""Taking out the images that cannot stay: without a patient or a split, leaking, or there
already.
"""

from __future__ import annotations

import pandas as pd

from data_pipelines.ingestion.index import RejectedFile
from data_pipelines.labels.table import Labels
from data_pipelines.volumes.plane import Plane

REASONS = {
    "no_patient_id": "PatientID is empty: name the patient in a column patient of the labels "
    "table.",
    "no_split": "The labels table gives splits, and this image none.",
    "split_leak": "Its patient, or a copy of it, lies in a split that counts more (test, then "
    "tune, then train).",
    "both_sites": "Its patient was also seen at the external site, which is the test split.",
    "duplicate": "The same pixels of the same patient are kept once already.",
    "duplicate_pixels": "The same pixels are kept already, under another patient: find out whose "
    "they are.",
    "duplicate_conflict": "The same pixels occur with different labels: no copy is kept. Mend the "
    "labels.",
    "duplicate_uid": "The same SOP Instance UID stands on other pixels as well: none of them is "
    "kept.",
}


def exclusion_reasons(rows: pd.DataFrame, labels: Labels | None) -> pd.Series:
    """A key of REASONS a row, or '' for a row to keep. A column `excluded` holds what was decided
    before.
    """
    reason = pd.Series("", index=rows.index, dtype=object)
    if labels is not None and "split" in labels.columns:
        reason[rows["split"] == ""] = "no_split"
    excluded = rows["excluded"] != ""
    reason[excluded] = rows["excluded"][excluded]
    reason[rows["patient"] == ""] = "no_patient_id"
    copies = find_duplicates(rows[reason == ""])
    reason[copies.index] = copies
    return reason


def excluded_files(rows: pd.DataFrame, reason: pd.Series) -> tuple[tuple[RejectedFile, ...], int]:
    """The files that keep no row, each with its reason, and how many rows are lost by files that
    keep another.
    """
    files = pd.MultiIndex.from_frame(rows[["source", "path"]])
    gone = rows.assign(reason=reason)[~files.isin(files[reason == ""])]
    lost_rows = int((reason != "").sum()) - len(gone)
    gone = gone.drop_duplicates(["source", "path"])
    rejected = [
        RejectedFile(source, path, code, REASONS[code], skipped=False)
        for source, path, code in zip(gone["source"], gone["path"], gone["reason"], strict=True)
    ]
    return tuple(rejected), lost_rows


def find_duplicates(rows: pd.DataFrame) -> pd.Series:
    """Return a key of REASONS a row, or '' for a row to keep.

    Columns read: pixel_sha256, patient, plane, sop_uid, frame, labelled and the labels. Of equal
    pixels the first labelled row is kept, else the first; all go where labelled copies differ in a
    label. Two slices of one patient with equal pixels at two places are two slices.
    """
    reason = pd.Series("", index=rows.index, dtype=object)
    reason[_reused_uids(rows)] = "duplicate_uid"
    rest = rows[reason == ""]
    rest = rest.assign(
        content=_content(rest), statement=_statements(rest), later=~rest["labelled"].astype(bool)
    ).sort_values("later", kind="stable")
    for _, copies in rest[rest["content"].duplicated(keep=False)].groupby("content", sort=False):
        if copies["statement"][copies["labelled"].astype(bool)].nunique() > 1:
            reason[copies.index] = "duplicate_conflict"
        else:
            later = copies.iloc[1:]
            other = ~copies["patient"].duplicated().iloc[1:]
            reason[later.index] = other.map({True: "duplicate_pixels", False: "duplicate"})
    return reason


def _reused_uids(rows: pd.DataFrame) -> pd.Series:
    content = rows["pixel_sha256"] + rows["plane"].map(_place)
    contents = content.groupby([rows["sop_uid"], rows["frame"]]).transform("nunique")
    return (rows["sop_uid"] != "") & rows["sop_uid"].isin(rows["sop_uid"][contents > 1])


def _content(rows: pd.DataFrame) -> pd.Series:
    """Pixels, and the place as well where they belong to one patient alone."""
    owners = rows.groupby("pixel_sha256")["patient"].transform("nunique")
    return rows["pixel_sha256"] + rows["plane"].map(_place).where(owners == 1, "")


def _place(plane: Plane) -> str:
    """Where in the body a slice lies, to 0.01 mm, '' where that is unknown; frames of one object
    lie apart.
    """
    return (
        " ".join(f"{value:.2f}" for value in plane.position)
        if plane.position
        else f"#{plane.frame}"
    )


def _statements(rows: pd.DataFrame) -> pd.Series:
    names = [name for name in rows if str(name).startswith("label:") or name == "class"]
    return rows[names].map(str).agg(" ".join, axis=1) if names else pd.Series("", index=rows.index)

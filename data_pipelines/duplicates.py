"""The same picture twice: found by the hash of its pixels, kept once, refused where two statements about it differ."""

from __future__ import annotations

import pandas as pd

from data_pipelines.planes import Plane

MESSAGES = {
    "duplicate": "The same pixels of the same patient are kept once already.",
    "duplicate_pixels": "The same pixels are kept already, under another patient: find out whose they are.",
    "duplicate_conflict": "The same pixels occur with different labels: no copy is kept. Mend the labels.",
    "duplicate_uid": "The same SOP Instance UID stands on other pixels as well: none of them is kept.",
}


def find_duplicates(rows: pd.DataFrame) -> pd.Series:
    """Return a key of MESSAGES a row, or '' for a row to keep.

    Columns read: pixel_sha256, patient, plane, sop_uid, frame, labelled and the labels.
    Of equal pixels the first labelled row is kept, else the first; all go where labelled copies differ in a label. Two
    slices of one patient with equal pixels at two places are two slices.
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
    """Where in the body a slice lies, to 0.01 mm, '' where that is unknown; frames of one object lie apart."""
    return " ".join(f"{value:.2f}" for value in plane.position) if plane.position else f"#{plane.frame}"


def _statements(rows: pd.DataFrame) -> pd.Series:
    names = [name for name in rows if str(name).startswith("label:") or name == "class"]
    return rows[names].map(str).agg(" ".join, axis=1) if names else pd.Series("", index=rows.index)

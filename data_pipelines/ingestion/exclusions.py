"""Exclusion of images: no patient, no split, a leak between splits, or a duplicate."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from data_pipelines.annotations.matching import ImageCopy
from data_pipelines.errors import LabelError
from data_pipelines.ingestion.file_inspection import blank_columns
from data_pipelines.ingestion.index.entries import RejectedFile
from data_pipelines.labels.join import join_labels
from data_pipelines.labels.table import Labels
from data_pipelines.sources.acceptance import CONSTANT_SLICE
from data_pipelines.volumes.plane import Plane

#: exclusion reason -> message of quarantine.csv
REASONS = {
    "no_patient_id": "PatientID is empty or a placeholder, and no Study Instance UID can stand "
    "for it. Name the patient in a column patient of the labels table.",
    "no_split": "The labels table gives splits, but none for this image.",
    "split_leak": "Its patient, or a copy of the image, lies in a split of higher rank (test, then "
    "tune, then train).",
    "both_sites": "Its patient was also seen at the external site, which is the test split.",
    "constant_pixels": "All pixels of the series have the same value.",
    "duplicate": "Duplicate: the same pixels of the same patient are already included.",
    "duplicate_pixels": "Duplicate across patients: the same pixels are already included under "
    "another patient. Find out which patient they belong to.",
    "duplicate_conflict": "Duplicates with different labels: no copy is included. Correct the "
    "labels.",
    "duplicate_uid": "Images with different pixels have the same SOP Instance UID: none of them is "
    "included.",
}


def exclusion_reasons(rows: pd.DataFrame, *, splits_given: bool) -> pd.Series:
    """Return a key of REASONS per row, '' for an image that stays.

    The column `excluded` holds reasons that were decided before. splits_given: the labels table
    gives splits, so that a row without one is excluded.
    """
    reason = pd.Series("", index=rows.index, dtype=object)
    if splits_given:
        reason[rows["split"] == ""] = "no_split"
    excluded = rows["excluded"] != ""
    reason[excluded] = rows["excluded"][excluded]
    reason[rows["patient"] == ""] = "no_patient_id"
    reason[_in_constant_series(rows) & (reason == "")] = "constant_pixels"
    duplicates = find_duplicates(rows[reason == ""])
    reason[duplicates.index] = duplicates
    return reason


def with_rejected(
    rows: pd.DataFrame, rejected: Sequence[RejectedFile], tables: Sequence[Labels]
) -> pd.DataFrame:
    """The rows of the accepted images, and one for each quarantined file at its place among them,
    with its labels and with its code in `excluded`.

    The index labels of `rows` stay. A file whose header cannot be read is known by its path alone;
    its kind is taken to be that of most images.
    """
    files = [file for file in rejected if not file.skipped]
    rows = rows.assign(excluded="")
    if not files:
        return rows
    columns = [
        {
            "source": file.source,
            "path": file.path,
            "excluded": file.reason,
            **(file.columns or blank_columns()),
        }
        for file in files
    ]
    first = int(rows.index.max()) + 1
    others = pd.DataFrame(columns, index=range(first, first + len(files)))
    others = others.assign(pixel_sha256="", repairs="")
    others["kind"] = others["kind"].where(others["kind"] != "", rows["kind"].mode()[0])
    try:
        others = join_labels(others, tables, require_match=False).rows
    except LabelError:  # the keys of these files contradict each other: they stay unlabeled
        others = join_labels(others, None).rows
    absent = {str(name): "" for name in rows if name not in others and _is_text_label(str(name))}
    together = pd.concat([rows, others.assign(**absent)])
    flags = ["labeled", "patient_named"]
    return together.astype(dict.fromkeys(flags, bool)).loc[_file_order(rows, others)]


def _is_text_label(name: str) -> bool:
    return name == "class" or name.startswith("meta:")


def _file_order(rows: pd.DataFrame, others: pd.DataFrame) -> list[int]:
    """The index labels of both tables, each of `others` before the first row of a later path."""
    sources = list(dict.fromkeys([*rows["source"], *others["source"]]))

    def keys(table: pd.DataFrame) -> list[tuple[int, str]]:
        pairs = zip(table["source"], table["path"], strict=True)
        return [(sources.index(source), path) for source, path in pairs]

    accepted = keys(rows)
    places = [(2 * n + 1, (0, ""), label) for n, label in enumerate(rows.index)]
    places += [
        (2 * bisect(accepted, key), key, label)
        for key, label in zip(keys(others), others.index, strict=True)
    ]
    return [label for _, _, label in sorted(places)]


def _in_constant_series(rows: pd.DataFrame) -> pd.Series:
    """Whether each row belongs to a series that has constant slices only."""
    constant = rows["repairs"].str.split(";").map(lambda codes: CONSTANT_SLICE in codes)
    return constant.groupby([rows["patient"], rows["series"]]).transform("all").astype(bool)


def excluded_files(rows: pd.DataFrame) -> tuple[tuple[RejectedFile, ...], int]:
    """Return the files of which every row is excluded, each with its reason, and how many rows are
    excluded from files that keep another row. Columns read: source, path, reason.
    """
    files = pd.MultiIndex.from_frame(rows[["source", "path"]])
    of_excluded_files = rows[~files.isin(files[rows["reason"] == ""])]
    other_rows = int((rows["reason"] != "").sum()) - len(of_excluded_files)
    first_rows = of_excluded_files.drop_duplicates(["source", "path"])
    rejected = [
        RejectedFile(source, path, code, REASONS[code], skipped=False)
        for source, path, code in zip(
            first_rows["source"], first_rows["path"], first_rows["reason"], strict=True
        )
    ]
    return tuple(rejected), other_rows


def find_duplicates(rows: pd.DataFrame) -> pd.Series:
    """Return a key of REASONS per row, '' for an image that stays.

    Columns read: pixel_sha256, patient, plane, sop_uid, frame, labeled and the labels. Of equal
    pixels the first labeled row stays, else the first row; all are excluded when labeled copies
    have different labels. Two slices of one patient with equal pixels at two positions are two
    images.
    """
    reason = pd.Series("", index=rows.index, dtype=object)
    reason[reused_uids(rows)] = "duplicate_uid"
    rest = rows[reason == ""]
    rest = rest.assign(
        content=_content(rest), labels=_label_text(rest), later=~rest["labeled"].astype(bool)
    ).sort_values("later", kind="stable")
    for _, copies in rest[rest["content"].duplicated(keep=False)].groupby("content", sort=False):
        if copies["labels"][copies["labeled"].astype(bool)].nunique() > 1:
            reason[copies.index] = "duplicate_conflict"
        else:
            later = copies.iloc[1:]
            new_patient = ~copies["patient"].duplicated().iloc[1:]
            reason[later.index] = new_patient.map({True: "duplicate_pixels", False: "duplicate"})
    return reason


def copies_of_kept(rows: pd.DataFrame) -> pd.Series:
    """For each row that stays, its copies that were left out as duplicates: an annotation that
    belongs to a copy belongs to it. Columns read: those of `find_duplicates` and of `ImageCopy`,
    reason.
    """
    alike = rows[rows["reason"].isin(["", "duplicate", "duplicate_pixels"])]
    table = alike.assign(content=_content(alike))
    kept, left_out = (table[table["reason"] == reason] for reason in ("", "duplicate"))
    origin = ["patient", "content"]
    name_of = dict(zip(_lines(kept, origin), kept.index, strict=True))
    copies: dict[object, list[ImageCopy]] = {}
    for image, copy in zip(
        _lines(left_out, origin), _lines(left_out, ImageCopy._fields), strict=True
    ):
        if image in name_of:
            copies.setdefault(name_of[image], []).append(ImageCopy(*copy))
    return pd.Series({name: tuple(copies.get(name, ())) for name in rows.index}, dtype=object)


def _lines(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return table[list(columns)].itertuples(index=False, name=None)


def reused_uids(rows: pd.DataFrame) -> pd.Series:
    """Whether each row's SOP Instance UID also stands for other pixels or another position."""
    n_contents = contents(rows).groupby([rows["sop_uid"], rows["frame"]]).transform("nunique")
    return (rows["sop_uid"] != "") & rows["sop_uid"].isin(rows["sop_uid"][n_contents > 1])


def contents(rows: pd.DataFrame) -> pd.Series:
    """The pixels and the position of each row, as one text."""
    return rows["pixel_sha256"] + rows["plane"].map(_position)


def _content(rows: pd.DataFrame) -> pd.Series:
    """The pixels; and the position too when only one patient has these pixels."""
    n_patients = rows.groupby("pixel_sha256")["patient"].transform("nunique")
    return rows["pixel_sha256"] + rows["plane"].map(_position).where(n_patients == 1, "")


def _position(plane: Plane) -> str:
    """The position of a slice in the body, to 0.01 mm; where it is unknown, the frame number, so
    that frames of one object differ.
    """
    if plane.position:
        return " ".join(f"{value:.2f}" for value in plane.position)
    return f"#{plane.frame}"


def _label_text(rows: pd.DataFrame) -> pd.Series:
    """All labels of a row as one text."""
    names = [name for name in rows if str(name).startswith("label:") or name == "class"]
    return rows[names].map(str).agg(" ".join, axis=1) if names else pd.Series("", index=rows.index)

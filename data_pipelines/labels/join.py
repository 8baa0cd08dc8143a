"""Joining the labels table with the indexed images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.table import Labels, normalise_key
from data_pipelines.pseudonyms import normalise_patient_id

#: key of the labels table -> column of the index
_INDEX_COLUMN = {
    "path": "path",
    "sop_instance_uid": "sop_uid",
    "series_instance_uid": "series_uid",
    "study_instance_uid": "study_uid",
    "patient_id": "patient_id",
}


@dataclass(frozen=True, eq=False)
class Joined:
    """The index with labels.

    rows: the rows of the index with the columns of the labels table. unmatched_rows: rows of the
    labels table that match no image, numbered as a spreadsheet numbers them.
    """

    rows: pd.DataFrame
    unmatched_rows: tuple[int, ...]


def join_labels(rows: pd.DataFrame, labels: Labels | None) -> Joined:
    """Give each image its row of the labels table.

    Values of age, sex, view, site and patient in the table override those of the header. Adds
    label:<finding> or class, meta:*, split ('' if not given), labeled (bool), `person` and
    `issuer` (the patient's identifier in normal form). Raises LabelError (labels_unmatched when no
    row of the table matches an image, ambiguous_key when a key stands for two things).
    """
    rows = rows.assign(
        person=rows["patient_id"].map(normalise_patient_id),
        issuer=rows["issuer"].map(normalise_patient_id),
        patient_named=False,
        split="",
        labeled=False,
    )
    if labels is None:
        return Joined(rows, ())
    keys = rows[_INDEX_COLUMN[labels.key]].map(lambda value: normalise_key(labels.key, value))
    _require_unambiguous(rows, keys, labels)
    table = labels.rows.set_index("key")
    matched = keys.isin(table.index)
    if not matched.any():
        hint = (
            "Paths are relative to SOURCE."
            if labels.key == "path"
            else "Check that it is the table of these files."
        )
        raise LabelError(
            f"None of the {len(table)} rows of the labels table matches one of the {len(rows)} "
            f"images by {labels.key}. {hint}",
            code="labels_unmatched",
        )
    for name in labels.columns:
        rows = _override(rows, name, table[name].reindex(keys).set_axis(rows.index))
    rows = rows.assign(labeled=matched)
    absent = ~labels.rows["key"].isin(keys)
    return Joined(rows, tuple(int(n) for n in labels.rows.index[absent]))


def _override(rows: pd.DataFrame, name: str, values: pd.Series) -> pd.DataFrame:
    """The rows with one column of the labels table; NaN or '' in it keeps what the header says."""
    if name.startswith("label:"):
        return rows.assign(**{name: values.astype(np.float32)})
    if name == "age":
        return rows.assign(age=values.astype(float).fillna(rows["age"]))
    text = values.fillna("").astype(object)
    if name == "patient":
        person = text.map(normalise_patient_id)
        named = person != ""
        return rows.assign(
            person=person.where(named, rows["person"]),
            issuer=rows["issuer"].where(~named, ""),
            patient_named=named,
        )
    if name == "patient_id":  # a column beside the key, for files without a patient identifier
        absent = rows["person"] == ""
        return rows.assign(
            person=rows["person"].where(~absent, text.map(normalise_patient_id)),
            patient_named=rows["patient_named"] | (absent & (text != "")),
        )
    if name in ("sex", "view", "site"):
        return rows.assign(**{name: text.where(text != "", rows[name])})
    return rows.assign(**{name: text})  # class, split, meta:*


def _require_unambiguous(rows: pd.DataFrame, keys: pd.Series, labels: Labels) -> None:
    """A path of the table must exist under one SOURCE only, a patient_id under one issuer only."""
    column = {"path": "source", "patient_id": "issuer"}.get(labels.key)
    if column is None:
        return
    in_table = keys.isin(labels.rows["key"])
    several = rows[in_table].groupby(keys[in_table])[column].nunique() > 1
    if several.any():
        meaning = (
            "files under two SOURCEs"
            if column == "source"
            else "two patients with different IssuerOfPatientID"
        )
        row = labels.rows.index[labels.rows["key"].isin(several.index[several])][0]
        raise LabelError(
            f"Labels table, column {labels.key}, row {row}: the key stands for {meaning} (rows of "
            f"this kind: {int(several.sum())}). Ingest one SOURCE at a time, or use "
            f"sop_instance_uid as the key.",
            code="ambiguous_key",
        )

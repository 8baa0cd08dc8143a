"""Bringing the labels table and the indexed images together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.table import Labels, normalise_key
from data_pipelines.pseudonyms import normalise_patient_id

_KEY_COLUMN = {
    "path": "path",
    "sop_instance_uid": "sop_uid",
    "series_instance_uid": "series_uid",
    "study_instance_uid": "study_uid",
    "patient_id": "patient_id",
}


@dataclass(frozen=True, eq=False)
class Joined:
    """`rows`: the index's rows with the table's columns; `unmatched_rows`: rows of the table that
    met no image, as a spreadsheet counts.
    """

    rows: pd.DataFrame
    unmatched_rows: tuple[int, ...]


def join_labels(rows: pd.DataFrame, labels: Labels | None) -> Joined:
    """Give each image its row of the labels table; age, sex, view, site and patient of the table
    override the header.

    Adds label:<finding> or class, meta:*, split ('' where not given), labelled, `person` and
    `issuer` (the normal form of the patient's identifier). Raises LabelError where no row of the
    table meets an image or a key means two things.
    """
    rows = rows.assign(
        person=rows["patient_id"].map(normalise_patient_id),
        issuer=rows["issuer"].map(normalise_patient_id),
        split="",
        labelled=False,
    )
    if labels is None:
        return Joined(rows, ())
    keys = rows[_KEY_COLUMN[labels.key]].map(lambda value: normalise_key(labels.key, value))
    _require_unambiguous(rows, keys, labels)
    table = labels.rows.set_index("key")
    met = keys.isin(table.index)
    if not met.any():
        raise LabelError(
            f"None of the {len(table)} rows of the labels table meets one of the {len(rows)} "
            f"images by {labels.key}. "
            + (
                "Paths are relative to SOURCE."
                if labels.key == "path"
                else "Is it the table of these files?"
            )
        )
    for name in labels.columns:
        found = table[name].reindex(keys).set_axis(rows.index)
        rows = _override(rows, name, found)
    rows = rows.assign(labelled=met)
    absent = ~labels.rows["key"].isin(keys)
    return Joined(rows, tuple(int(n) for n in labels.rows.index[absent]))


def _override(rows: pd.DataFrame, name: str, found: pd.Series) -> pd.DataFrame:
    if name.startswith("label:"):
        return rows.assign(**{name: found.astype(np.float32)})
    if name == "age":
        return rows.assign(age=found.astype(float).fillna(rows["age"]))
    text = found.fillna("").astype(object)
    if name == "patient":
        person = text.map(normalise_patient_id)
        given = person != ""
        return rows.assign(
            person=person.where(given, rows["person"]), issuer=rows["issuer"].where(~given, "")
        )
    if name == "patient_id":  # a column beside the key: for files that name no patient
        return rows.assign(
            person=rows["person"].where(rows["person"] != "", text.map(normalise_patient_id))
        )
    if name in ("sex", "view", "site"):
        return rows.assign(**{name: text.where(text != "", rows[name])})
    return rows.assign(**{name: text})  # class, split, meta:*


def _require_unambiguous(rows: pd.DataFrame, keys: pd.Series, labels: Labels) -> None:
    """A path must lie under one SOURCE, a patient_id under one issuer, for the images that the
    table names.
    """
    column = {"path": "source", "patient_id": "issuer"}.get(labels.key)
    if column is None:
        return
    named = keys.isin(labels.rows["key"])
    several = rows[named].groupby(keys[named])[column].nunique() > 1
    if several.any():
        meaning = (
            "files under two SOURCEs"
            if column == "source"
            else "two patients with different IssuerOfPatientID"
        )
        row = labels.rows.index[labels.rows["key"].isin(several.index[several])][0]
        raise LabelError(
            f"Labels, column {labels.key}, row {row}: it means {meaning} ({int(several.sum())} "
            f"such rows). "
            "Ingest one SOURCE at a time, or label by sop_instance_uid."
        )

"""Joining the labels table with the indexed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.combination import combined, first_given
from data_pipelines.labels.table import Labels, normalise_key
from data_pipelines.pseudonyms import normalise_patient_id

#: key of the labels table -> column of the index
INDEX_COLUMN = {
    "path": "path",
    "sop_instance_uid": "sop_uid",
    "series_instance_uid": "series_uid",
    "study_instance_uid": "study_uid",
    "patient_id": "patient_id",
    "accession_number": "accession_number",
}
#: key -> the column of its owner, how many owners one key may have, their name, the key to use
_OWNERS = {
    "accession_number": ("study_uid", 1, "study", "study_instance_uid"),
    "study_instance_uid": ("person", 2, "patients", "patient_id or path"),
    "series_instance_uid": ("person", 2, "patients", "patient_id or path"),
}


@dataclass(frozen=True, eq=False)
class Joined:
    """The index with labels.

    rows: the rows of the index with the columns of the labels tables. labels: what the tables
    together say, None without one. unmatched_rows: rows of the labels tables that match no image,
    numbered as a spreadsheet numbers them.
    """

    rows: pd.DataFrame
    labels: Labels | None
    unmatched_rows: tuple[int | str, ...]


def join_labels(
    rows: pd.DataFrame,
    tables: Labels | Sequence[Labels] | None,
    *,
    require_match: bool = True,
) -> Joined:
    """Give each image its row of each labels table.

    Values of age, sex, view, site and patient in a table override those of the header. Adds
    label:<finding> or class, meta:*, split ('' if not given), labeled (bool), `person` and
    `issuer` (the patient's identifier in normal form) and `patient_named` (a table gives it).
    Raises LabelError (labels_unmatched when no row of a table matches an image, which
    require_match=False allows; ambiguous_key when a key stands for two things; tables_differ when
    two tables contradict each other).
    """
    rows = rows.assign(
        person=rows["patient_id"].map(normalise_patient_id),
        issuer=rows["issuer"].map(normalise_patient_id),
        patient_named=False,
        split="",
        labeled=False,
    )
    tables = [tables] if isinstance(tables, Labels) else list(tables or ())
    if not tables:
        return Joined(rows, None, ())
    columns: dict[str, list[pd.Series]] = {}
    notes: list[str] = []
    unmatched: list[int | str] = []
    labeled = pd.Series(False, index=rows.index)
    for table in tables:
        keys, note = _keys_of(rows, table)
        notes += note
        cells = table.rows.set_index("key")
        matched = keys.isin(cells.index)
        if require_match:
            _require_match(rows, table, matched)
        for name in table.columns:
            columns.setdefault(name, []).append(cells[name].reindex(keys).set_axis(rows.index))
        labeled |= matched & table.has_labels
        absent = ~table.rows["key"].isin(keys)
        unmatched += [name for name, no in zip(table.row_names, absent, strict=True) if no]
    for name, values in columns.items():
        rows = _override(rows, name, first_given(name, values))
    labels = combined(tables)
    labels = replace(labels, notes=(*labels.notes, *notes))
    return Joined(rows.assign(labeled=labeled), labels, tuple(unmatched))


def _keys_of(rows: pd.DataFrame, table: Labels) -> tuple[pd.Series, list[str]]:
    """The key of each image in a table, '' where it has none, and notes."""
    keys = rows[INDEX_COLUMN[table.key]].map(lambda value: normalise_key(table.key, value))
    _require_unambiguous(rows, keys, table)
    if table.key not in _OWNERS:
        return keys, []
    owner, limit, owners, fix = _OWNERS[table.key]
    several = rows[owner].groupby(keys).transform("nunique") > limit
    several &= keys.isin(table.rows["key"])
    if not several.any():
        return keys, []
    return keys.where(~several, ""), [
        f"{keys[several].nunique()} values of {table.key} in the labels table stand for more than "
        f"{limit} {owners} ({int(several.sum())} images): their rows are not used. Label these "
        f"images by {fix}"
    ]


def _require_match(rows: pd.DataFrame, table: Labels, matched: pd.Series) -> None:
    if matched.any():
        return
    hint = (
        "Paths are relative to SOURCE."
        if table.key == "path"
        else "Check that it is the table of these files."
    )
    raise LabelError(
        f"None of the {len(table.rows)} rows of the labels table {table.name}".rstrip()
        + f" matches one of the {len(rows)} images by {table.key}. {hint}",
        code="labels_unmatched",
    )


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

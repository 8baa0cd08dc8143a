"""Pseudonyms of images, series, studies and patients, and identifiers that may mean the same
person.
"""

from __future__ import annotations

import re

import pandas as pd

from data_pipelines.pseudonyms import PseudonymKey
from data_pipelines.splits.stratified import connected_groups


def identify(rows: pd.DataFrame, key: PseudonymKey) -> pd.DataFrame:
    """Add the pseudonyms image, series, study and patient ('' for a DICOM file without PatientID).

    A file without a UID is identified by its path: it is a series and a study of its own and, if it
    is not DICOM, also a patient of its own.
    """
    file = rows["source"] + "\n" + rows["path"]

    def pseudonyms(kind: str, column: str) -> list[str]:
        return [
            key.pseudonym(kind, uid) if uid else key.pseudonym(f"{kind} of file", path)
            for uid, path in zip(rows[column], file, strict=True)
        ]

    images = [
        key.pseudonym("frame", image, str(n))
        for image, n in zip(pseudonyms("image", "sop_uid"), rows["frame"], strict=True)
    ]

    def patient(issuer: str, person: str, form: str, path: str) -> str:
        if person:
            return key.pseudonym("patient", issuer, person)
        return "" if form == "dicom" else key.pseudonym("patient of file", path)

    people = zip(rows["issuer"], rows["person"], rows["form"], file, strict=True)
    return rows.assign(
        image=images,
        series=pseudonyms("series", "series_uid"),
        study=pseudonyms("study", "study_uid"),
        patient=[patient(*fields) for fields in people],
    )


def link_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `similar_id` (see similar_ids) and `group`: a number per group of patients who share an
    identifier, equal pixels, or identifiers that may mean the same person.
    """
    similar = similar_ids(rows)
    links = [list(rows["pixel_sha256"]), list(ids_without_issuer(rows)), list(similar)]
    return rows.assign(group=connected_groups(list(rows["patient"]), links), similar_id=similar)


def ids_without_issuer(rows: pd.DataFrame) -> pd.Series:
    """Identifiers that occur with an issuer and without one, else ''. They count as two patients,
    but may be one person.
    """
    mixed = rows.groupby("person")["issuer"].transform(
        lambda issuers: (issuers == "").any() and (issuers != "").any()
    )
    return rows["person"].where(mixed.astype(bool), "")


def similar_ids(rows: pd.DataFrame) -> pd.Series:
    """The common form of identifiers of one issuer that differ in punctuation or leading zeros
    only, else ''.

    'P-001', 'p_1' and 'P 1' may be one patient or three: hospitals do give '12' and '012' to two
    people.
    """
    form = rows["issuer"] + "\n" + rows["person"].map(canonical_spelling)
    several = rows.groupby(form)["person"].transform("nunique") > 1
    return form.where(several & (rows["person"] != ""), "")


def canonical_spelling(person: str) -> str:
    """An identifier without the leading zeros of its numbers and without punctuation, except
    between two digits.

    >>> canonical_spelling("p-001"), canonical_spelling("12_03")
    ('p1', '12-3')
    """
    plain = re.sub(r"[\W_]+", "-", person)
    plain = re.sub(r"(?<!\d)-|-(?!\d)", "", plain)
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)

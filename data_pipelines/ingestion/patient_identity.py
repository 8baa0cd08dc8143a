"""Who is who: pseudonyms of images, series, studies and patients, and identifiers that may mean the
same person.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from data_pipelines.pseudonyms import PseudonymKey
from data_pipelines.splits.stratified import connected_groups


def identify(rows: pd.DataFrame, key: PseudonymKey) -> pd.DataFrame:
    """Add the pseudonyms image, series, study and patient ('' for a patient who is not named).

    What lacks a UID is identified by its file: a series or study of one file, and where it is no
    DICOM at all, a patient.
    """
    own = rows["source"] + "\n" + rows["path"]

    def pseudonyms(kind: str, column: str) -> list[str]:
        known = zip(rows[column], own, strict=True)
        return [
            key.pseudonym(kind, uid) if uid else key.pseudonym(f"{kind} of file", file)
            for uid, file in known
        ]

    images = [
        key.pseudonym("frame", image, str(n))
        for image, n in zip(pseudonyms("image", "sop_uid"), rows["frame"], strict=True)
    ]

    def patient(issuer: str, person: str, form: str, file: str) -> str:
        if person:
            return key.pseudonym("patient", issuer, person)
        return "" if form == "dicom" else key.pseudonym("patient of file", file)

    people = zip(rows["issuer"], rows["person"], rows["form"], own, strict=True)
    return rows.assign(
        image=images,
        series=pseudonyms("series", "series_uid"),
        study=pseudonyms("study", "study_uid"),
        patient=[patient(*one) for one in people],
    )


def patient_groups(rows: pd.DataFrame) -> np.ndarray:
    """A number a row: one for all rows of patients who share an identity, pixels, or an identifier
    that may be one.
    """
    return connected_groups(
        list(rows["patient"]),
        [list(rows["pixel_sha256"]), list(ids_without_issuer(rows)), list(similar_ids(rows))],
    )


def ids_without_issuer(rows: pd.DataFrame) -> pd.Series:
    """Identifiers that occur with an issuer and without one: two patients by rule, perhaps one in
    truth.
    """
    bare = rows.groupby("person")["issuer"].transform(
        lambda issuers: (issuers == "").any() and (issuers != "").any()
    )
    return rows["person"].where(bare.astype(bool), "")


def similar_ids(rows: pd.DataFrame) -> pd.Series:
    """The common form of identifiers of one issuer that differ in punctuation or leading zeros
    alone, else ''.

    'P-001', 'p_1' and 'P 1' may be one patient spelt thrice, or not: hospitals do give '12' and
    '012' to two people.
    """
    form = rows["issuer"] + "\n" + rows["person"].map(canonical_spelling)
    several = rows.groupby(form)["person"].transform("nunique") > 1
    return form.where(several & (rows["person"] != ""), "")


def canonical_spelling(person: str) -> str:
    """A normal identifier without leading zeros of its numbers and without punctuation, but for
    that between two digits.
    """
    plain = re.sub(r"[\W_]+", "-", person)
    plain = re.sub(r"(?<!\d)-|-(?!\d)", "", plain)
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)

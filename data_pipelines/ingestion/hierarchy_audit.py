"""Contradictions of the hierarchy patient, study, series, instance (PS3.3 A.1.2, 7.1): what one
identifier must not stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import pandas as pd

from data_pipelines.dicom.identity import is_unique_uid, name_key
from data_pipelines.ingestion.exclusions import contents, reused_uids
from data_pipelines.ingestion.patient_identity import patients_per_uid
from data_pipelines.runtime.plain_text import counted


class GroupCounts(TypedDict):
    """How many groups there are, and how many of them lie under several patients or in several
    splits.
    """

    groups: int
    across_patients: int
    across_splits: int


#: kind of an entry of audit.csv -> what it means; {n} is the number of groups
KINDS: dict[str, str] = {
    "study_of_two_patients": "Study Instance UIDs that two or more patients share",
    "series_in_two_studies": "Series Instance UIDs that two or more studies share",
    "sop_instance_two_contents": "SOP Instance UIDs of two or more different images, all of which "
    "are excluded (duplicate_uid)",
    "patient_name": "patients with two or more names under one PatientID",
    "patient_birth_date": "patients with two or more birth dates under one PatientID",
}


def contradictions(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return, for each of KINDS, rows with the columns `shared` (the identifier) and `different`;
    an identifier with several values of `different` is a contradiction.

    Neither a name nor a birth date joins or separates patients.
    """
    patient, study_uid = rows["patient"], rows["study_uid"]
    person = patient.where(~rows["by_study"], "")
    reused = reused_uids(rows)
    pairs = {
        "study_of_two_patients": (study_uid.where(patient != "", ""), patient),
        "series_in_two_studies": (rows["series_uid"], rows["study"]),
        "sop_instance_two_contents": (rows["sop_uid"].where(reused, ""), contents(rows)),
        "patient_name": (person, rows["patient_name"].map(name_key)),
        "patient_birth_date": (person, rows["birth_date"]),
    }
    return {
        kind: rows.assign(shared=shared, different=different)[(shared != "") & (different != "")]
        for kind, (shared, different) in pairs.items()
    }


def hierarchy_warnings(counts: Mapping[str, GroupCounts]) -> list[str]:
    """Return one sentence for each kind of contradiction that occurs."""
    return [
        f"{counts[kind]['groups']} {text}, of which {counts[kind]['across_splits']} across "
        f"splits: see audit.csv ({kind})"
        for kind, text in KINDS.items()
        if counts[kind]["groups"]
    ]


def identity_notes(rows: pd.DataFrame, max_patients: int) -> tuple[list[str], list[str]]:
    """Return warnings about identifiers that identify nobody, and the codes of the reasons why
    ingest cannot attest that no patient lies in two splits; [] where it can.

    Codes: patient_by_study (a study stands for the patient), patient_by_file (an image does),
    uid_no_identifier (a study or series UID of more than `max_patients` patients).
    """
    warnings, codes = [], []
    if rows["by_study"].any():
        n_images, n_studies = int(rows["by_study"].sum()), rows["study"][rows["by_study"]].nunique()
        warnings.append(
            f"{counted(n_images, 'image')} with an empty PatientID or one that stands for nobody "
            f"(a placeholder, or the same for all files), in {counted(n_studies, 'study')}: each "
            f"study is treated as a patient. That no patient lies in two splits cannot be "
            f"attested; a column patient of the labels table names the patients"
        )
        codes.append("patient_by_study")
    if ((rows["form"] != "dicom") & (rows["person"] == "")).any():
        codes.append("patient_by_file")
    if rows["study_by_series"].any():
        n_series = rows["series"][rows["study_by_series"]].nunique()
        warnings.append(
            f"{n_series} series have a study UID of its own in every slice: it identifies no "
            f"study, and each of these series is treated as one study"
        )
    for column, name in (("study_uid", "Study"), ("series_uid", "Series")):
        n_patients = patients_per_uid(rows, column)
        shared = n_patients > max_patients
        n_all = rows["patient"].groupby(rows[column]).transform("nunique")
        dummy = (rows[column] != "") & ~rows[column].map(is_unique_uid) & (n_all > 1)
        if shared.any():
            codes.append("uid_no_identifier")
            warnings.append(
                f"{rows[column][shared].nunique()} {name} Instance UIDs are shared by more than "
                f"{max_patients} patients (up to {n_patients.max()}, in {int(shared.sum())} "
                f"images): they identify nothing and link no patients"
            )
        if dummy.any():
            warnings.append(
                f"{rows[column][dummy].nunique()} {name} Instance UIDs are invalid or dummies and "
                f"shared by patients, in {int(dummy.sum())} images: they link no patients"
            )
    return warnings + _issuer_warnings(rows), sorted(set(codes))


def _issuer_warnings(rows: pd.DataFrame) -> list[str]:
    identified = rows[(rows["form"] == "dicom") & (rows["person"] != "") & ~rows["patient_named"]]
    without = int((identified["issuer"] == "").sum())
    if without == len(identified):
        n_sources = identified.groupby("person")["source"].nunique()
        several = int((n_sources > 1).sum())
        return (
            [
                f"{several} PatientIDs without an IssuerOfPatientID occur under several SOURCEs: "
                f"each is taken for one patient. If two hospitals gave it to two, name them in a "
                f"column patient of the labels table"
            ]
            if several
            else []
        )
    if not without:
        return []
    return [
        f"{counted(without, 'image')} without IssuerOfPatientID, and the others have one: an ID "
        f"with and without issuer counts as two patients of one split"
    ]

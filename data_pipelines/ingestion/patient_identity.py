"""Pseudonyms of images, series, studies and patients, and identifiers that may mean the same
person.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import pandas as pd

from data_pipelines.dicom.identity import is_placeholder_id, is_unique_uid
from data_pipelines.kinds import kinds_with_series
from data_pipelines.pseudonyms import PseudonymKey
from data_pipelines.splits.assignment import MAX_PATIENTS
from data_pipelines.splits.stratified import connected_groups
from data_pipelines.volumes.series import group_planes, is_one_volume
from data_pipelines.volumes.study_identity import series_of_unreliable_studies

#: so many studies under the only identifier of all files are not one patient's
CONSTANT_STUDIES = 3


def identify(rows: pd.DataFrame, key: PseudonymKey) -> pd.DataFrame:
    """Add the pseudonyms image, series, study and patient; `by_study`: whether the study stands
    for the patient; and `study_by_series`: whether the series stands for the study, since each of
    its slices has a study UID of its own.

    A study is one of a patient, and a series is one of a study: an identifier that two patients
    share gives two pseudonyms. Where PatientID is empty or a placeholder (see placeholder_ids), the
    study is the patient; without a usable study UID, `patient` is ''. A file without a UID is
    identified by its path: it is a series and a study of its own and, if it is not DICOM, also a
    patient of its own. Slices of one study without a series UID are one series.
    """
    unknown = (rows["person"] == "") | placeholder_ids(rows)
    dicom = rows["form"] == "dicom"
    by_series = _in_unreliable_studies(rows, unknown)
    study_uid = rows["study_uid"].where(~by_series, rows["series_uid"])
    by_study = unknown & dicom & study_uid.map(is_unique_uid)
    file = rows["source"] + "\n" + rows["path"]

    def of_patient(issuer: str, person: str, study: str, path: str, source: tuple) -> str:
        is_unknown, is_dicom, has_study = source
        if not is_unknown:
            return key.pseudonym("patient", issuer, person)
        if has_study:
            return key.pseudonym("patient of study", study)
        return "" if is_dicom else key.pseudonym("patient of file", path)

    def of_uid(kind: str, uid: str, path: str, *owner: str) -> str:
        return key.pseudonym(kind, uid, *owner) if uid else key.pseudonym(f"{kind} of file", path)

    def of_series(uid: str, path: str, study: str, is_shared: bool, of_study: bool) -> str:
        if of_study:
            return key.pseudonym("series of study", study)
        return of_uid("series", uid, path, *([study] if is_shared else []))

    def each(function: Callable[..., str], *columns: Iterable) -> list[str]:
        return [function(*values) for values in zip(*columns, strict=True)]

    sources = zip(unknown, dicom, by_study, strict=True)
    patient = each(of_patient, rows["issuer"], rows["person"], study_uid, file, sources)
    rows = rows.assign(patient=patient, by_study=by_study, study_by_series=by_series)
    # The pseudonym of a UID depends on its owner only where the UID has several.
    owner = rows["patient"].where(_owners(rows, study_uid, "patient") > 1, "")
    study = [
        of_uid("study", uid, path, *filter(None, [name]))
        for uid, path, name in zip(study_uid, file, owner, strict=True)
    ]
    rows = rows.assign(study=study)
    is_shared = _owners(rows, rows["series_uid"], "study") > 1
    is_slice = rows["kind"].isin(kinds_with_series())
    of_study = (rows["series_uid"] == "") & (study_uid != "") & is_slice
    series = each(of_series, rows["series_uid"], file, study, is_shared, of_study)
    images = each(functools.partial(of_uid, "image"), rows["sop_uid"], file)
    frames = each(functools.partial(key.pseudonym, "frame"), images, rows["frame"].map(str))
    return rows.assign(image=frames, series=series)


def _owners(rows: pd.DataFrame, uids: pd.Series, owner: str) -> pd.Series:
    """The number of different owners of the UID of each row."""
    return rows.groupby(uids)[owner].transform("nunique")


def _in_unreliable_studies(rows: pd.DataFrame, unknown: pd.Series) -> pd.Series:
    """Whether the series of each row holds a study UID of its own per slice, so that the series
    stands for the study (see `series_of_unreliable_studies`, which reading and the cache share).

    unknown: rows without a patient. Where a study would stand for the patient, the slices must also
    form volumes: a constant series UID must not make one patient of a whole cohort. A rejected
    file has no plane: it goes with the series that its header names.
    """
    owner = rows["issuer"] + "\x1f" + rows["person"]
    is_slice = rows["kind"].isin(kinds_with_series()) & rows["plane"].notna()
    planes = [
        replace(plane, patient=patient)
        for plane, patient in zip(rows["plane"][is_slice], owner[is_slice], strict=True)
    ]
    of_rows = pd.Series([(p.patient, p.series) for p in planes], rows.index[is_slice], dtype=object)
    is_unreliable = of_rows.isin(series_of_unreliable_studies(planes))
    of_patient = pd.Series(planes, rows.index[is_slice], dtype=object)
    for _, series in of_patient[is_unreliable & unknown[is_slice]].groupby(of_rows):
        without_copies = {(plane.study, plane.position): plane for plane in series}
        groups = group_planes(list(without_copies.values()))
        if not all(is_one_volume(group.planes) for group in groups):
            is_unreliable[series.index] = False
    named = owner + "\x1f" + rows["series_uid"]
    return named.isin(set(named[is_slice][is_unreliable.astype(bool)]))


def placeholder_ids(rows: pd.DataFrame) -> pd.Series:
    """Whether the patient identifier of each row stands for nobody: a known placeholder such as
    ANON, or the only identifier of all DICOM files although they come from three or more studies.

    An identifier that the labels table gives (`patient_named`) is never a placeholder.
    """
    header = (rows["form"] == "dicom") & (rows["person"] != "") & ~rows["patient_named"]
    words = rows["person"].map(is_placeholder_id)
    identified = rows[header & rows["study_uid"].map(is_unique_uid)]
    constant = (
        header.sum() == (rows["form"] == "dicom").sum()
        and rows["person"][header].nunique() == 1
        and identified["study_uid"].nunique() >= CONSTANT_STUDIES
    )
    return header & (words | constant)


def link_patients(rows: pd.DataFrame, max_patients: int = MAX_PATIENTS) -> pd.DataFrame:
    """Add `similar_id` (see similar_ids) and `group`: a number per group of patients who share an
    identifier, a study, a series, equal pixels, or identifiers that may mean the same person.

    A study or series UID links at most `max_patients` patients: one that more patients share is no
    identifier (see shared_uids).
    """
    similar = similar_ids(rows)
    links = [list(rows["pixel_sha256"]), list(ids_without_issuer(rows)), list(similar)]
    for column in ("study_uid", "series_uid"):
        n_patients = patients_per_uid(rows, column)
        links.append(list(rows[column].where(n_patients.between(2, max_patients), "")))
    return rows.assign(group=connected_groups(list(rows["patient"]), links), similar_id=similar)


def patients_per_uid(rows: pd.DataFrame, column: str) -> pd.Series:
    """The number of patients who share the UID of each row; 0 where it is none, or a dummy."""
    usable = rows[column].map(is_unique_uid) & (rows["patient"] != "")
    counts = rows["patient"].where(usable).groupby(rows[column]).transform("nunique")
    return counts.where(usable, 0).astype(int)


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

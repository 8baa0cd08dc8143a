"""Whose images a request holds: the identity of each file, which files one answer may stand for,
and which files of a folder belong together. Does not load TensorFlow, so decode workers can run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data_pipelines.dicom.eligibility import eligible_kind
from data_pipelines.dicom.header import Header, read_header
from data_pipelines.dicom.identity import is_placeholder_id, is_unique_uid, name_key
from data_pipelines.errors import DicomError, Ineligible
from data_pipelines.pseudonyms import patient_key
from data_pipelines.sources.image_source import file_format_of
from data_pipelines.volumes.plane import plane_of
from data_pipelines.volumes.study_identity import MIN_STUDIES
from medres.errors import RefusedInput
from medres.inference.request_files import FilesBelow


@dataclass(frozen=True)
class FileIdentity:
    """What a DICOM file says about its patient and its place in the hierarchy; '' means absent.

    patient: issuer and PatientID in normal form (see `patient_key`). is_known: whether the
    PatientID is there and no placeholder such as ANON. name, birth_date: in the form in which two
    spellings are equal. is_slice: whether it may be a slice of a
    volume. `repr` hides all values.
    """

    patient: str = field(repr=False)
    is_known: bool
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    sop_instance_uid: str = field(repr=False)
    name: str = field(repr=False)
    birth_date: str = field(repr=False)
    is_slice: bool = False

    def may_share_series(self, other: FileIdentity) -> bool:
        """Whether both may be slices of one series of one known patient."""
        return (
            self.is_slice
            and other.is_slice
            and self.is_known
            and bool(self.series_uid)
            and (self.patient, self.series_uid) == (other.patient, other.series_uid)
        )


@dataclass(frozen=True)
class IdentityRules:
    """What the caller of a prediction has allowed. allow_name_mismatch: PatientName or
    PatientBirthDate may differ under one PatientID. allow_unknown_patient: where no file has a
    usable PatientID, a valid StudyInstanceUID may stand for the patient.
    """

    allow_name_mismatch: bool = False
    allow_unknown_patient: bool = False


#: what a caller allows who says nothing
STRICT = IdentityRules()


def identity_of(header: Header) -> FileIdentity:
    """The identity in the header of a DICOM file."""
    ids = header.identifiers
    patient = patient_key(ids.issuer_of_patient_id, ids.patient_id)
    person = patient.partition("\x1f")[2]
    return FileIdentity(
        patient=patient,
        is_known=bool(person) and not is_placeholder_id(person),
        study_uid=ids.study_instance_uid,
        series_uid=ids.series_instance_uid,
        sop_instance_uid=ids.sop_instance_uid,
        name=name_key(ids.patient_name),
        birth_date="".join(c for c in ids.birth_date if c.isdigit()),
        is_slice=plane_of(header, 0).is_slice,
    )


class OnePatient:
    """Checks, file by file, that one answer may stand for all `n_files` files of a request."""

    def __init__(self, n_files: int, rules: IdentityRules) -> None:
        self._is_single, self._rules = n_files == 1, rules
        self._first: FileIdentity | None = None
        self._studies: list[str] = []
        self._name = self._birth_date = ""

    def add(self, identity: FileIdentity | None) -> None:
        """identity: of the next file; None for a file of another format than DICOM. After the last
        file, call `finish`.

        Raises RefusedInput: several_studies; no_identity (several files, and one of them does not
        say whose it is); several_patients; name_mismatch (unless the rules allow it).
        """
        if self._is_single:
            return
        first = self._first = self._first or identity
        if first is None or identity is None:
            raise _several_studies()
        self._studies.append(identity.study_uid)
        n_studies = len(set(self._studies))
        each_has_its_own = n_studies == len(self._studies) and identity.may_share_series(first)
        if n_studies > 1 and not each_has_its_own:
            raise _several_studies()
        self._require_identity(identity)
        if identity.patient != first.patient:
            raise RefusedInput(
                "the files have different values of PatientID or IssuerOfPatientID: one answer is "
                "for one patient",
                code="several_patients",
            )
        self._require_same_name(identity)

    def finish(self) -> None:
        """Raises RefusedInput (several_studies) unless all files are of one study, or so many
        slices of one series have a study UID of their own that it identifies no study (see
        `series_of_unreliable_studies`).
        """
        if 1 < len(set(self._studies)) < MIN_STUDIES:
            raise _several_studies()

    def _require_identity(self, identity: FileIdentity) -> None:
        by_study = self._rules.allow_unknown_patient and is_unique_uid(identity.study_uid)
        if not identity.study_uid or not (identity.is_known or by_study):
            raise RefusedInput(
                "one answer for several files needs a PatientID and a StudyInstanceUID in each of "
                "them, and one is missing or a placeholder: predict the files one at a time, or, "
                "if the StudyInstanceUID is sure to be of one patient, allow an unknown patient "
                "(allow_unknown_patient=True, --allow-unknown-patient)",
                code="no_identity",
            )

    def _require_same_name(self, identity: FileIdentity) -> None:
        name, birth_date = self._name or identity.name, self._birth_date or identity.birth_date
        differs = identity.name not in ("", name) or identity.birth_date not in ("", birth_date)
        if differs and not self._rules.allow_name_mismatch:
            raise RefusedInput(
                "PatientName or PatientBirthDate differ under one PatientID: check whose images "
                "these are, and only then allow it (allow_name_mismatch=True, "
                "--allow-name-mismatch)",
                code="name_mismatch",
            )
        self._name, self._birth_date = name, birth_date


def _several_studies() -> RefusedInput:
    return RefusedInput(
        "the files belong to more than one study: predict one study at a time",
        code="several_studies",
    )


class FileGroup(NamedTuple):
    """The study of a file (its path, where it is alone), and the series of a slice, else ''.
    patient: of a slice whose study UID may turn out to identify no study.
    """

    study: str
    series: str = ""
    patient: str = ""


@dataclass
class StudyFiles:
    """The files of one request, and the path that stands for them in results. error: why the path
    was not opened.
    """

    path: str
    files: list[Path] = field(default_factory=list)
    error: DicomError | None = None


def group_of_file(path: str, *, by_series: bool) -> FileGroup:
    """To which request a file belongs: to its patient (with the issuer) and study, as in ingest,
    and, with by_series, a slice to its series. Runs in a decode worker. Raises DicomError.

    A file that does not say of which study it is stands alone, and so does one without a usable
    PatientID whose study UID is a dummy. So does a file of another format than DICOM.
    """
    if file_format_of(path) != "dicom":
        return FileGroup(path)
    header = read_header(path)
    identity = identity_of(header)
    is_identified = identity.is_known or is_unique_uid(identity.study_uid)
    if not (identity.study_uid and is_identified):
        return FileGroup(path)
    study = f"{identity.patient}\x1f{identity.study_uid}"
    series = _series_of_slice(header) if by_series else ""
    is_one_of_many = bool(series) and identity.may_share_series(identity)
    return FileGroup(study, series, identity.patient if is_one_of_many else "")


def _series_of_slice(header: Header) -> str:
    try:
        eligible_kind(header)
    except Ineligible:
        return ""
    return header.identifiers.series_instance_uid or "without a UID"


def group_files(
    path: str | Path, files: Sequence[Path], groups: Iterable[FileGroup | DicomError]
) -> list[StudyFiles]:
    """Divide the files below `path` into requests, in the order in which they are found.

    groups: those of `group_of_file`. Files that are no slices (localizers, reports) go with the
    first series of their study. A file that cannot be read is a request of its own, so that it is
    not lost. The path of a request is that of its first file; if there is only one request below
    `path`, it is `path`.
    """
    keys = [
        FileGroup(str(file)) if isinstance(group, DicomError) else group
        for file, group in zip(files, groups, strict=True)
    ]
    keys = _with_studies_of_series(keys)
    first_series: dict[str, str] = {}
    for key in keys:
        if key.series:
            first_series.setdefault(key.study, key.series)
    requests: dict[FileGroup, StudyFiles] = {}
    for file, key in zip(files, keys, strict=True):
        group = FileGroup(key.study, key.series or first_series.get(key.study, ""))
        requests.setdefault(group, StudyFiles(str(file))).files.append(file)
    return [StudyFiles(str(path), list(files))] if len(requests) == 1 else [*requests.values()]


def requests_below(
    path: str | Path, below: FilesBelow, groups: Iterable[FileGroup | DicomError]
) -> list[StudyFiles]:
    """As `group_files`, with a request for each entry that was not opened, which carries the error.
    A path without files gives a request without files.
    """
    others = [StudyFiles(str(other), error=error) for other, error in below.not_opened]
    if below.files:
        return group_files(path, below.files, groups) + others
    return others or [StudyFiles(str(path))]


def _with_studies_of_series(groups: Sequence[FileGroup]) -> list[FileGroup]:
    """The groups, where a series of slices that each have a study UID of their own is one study."""
    studies: dict[tuple[str, str], list[str]] = {}
    for group in groups:
        if group.patient:
            studies.setdefault((group.patient, group.series), []).append(group.study)
    unreliable = {
        series
        for series, uids in studies.items()
        if len(uids) >= MIN_STUDIES and len(set(uids)) == len(uids)
    }
    return [
        FileGroup("\x1f".join((group.patient, group.series)), group.series)
        if (group.patient, group.series) in unreliable
        else group
        for group in groups
    ]

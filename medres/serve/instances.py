"""What the server needs to know about a received file: whose it is, and what its bytes are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines.dicom.header import read_header
from data_pipelines.pseudonyms import patient_key
from data_pipelines.runtime.limits import limited
from medres.errors import ServeError
from medres.results.identity import MANUFACTURER, content_sha256

MAX_HEADER = 64 << 20  # bytes of a deflated data set that are inflated to read its header
_MAX_UID = 64  # characters (PS3.5 section 9.1)


@dataclass(frozen=True)
class Instance:
    """One received file. patient: issuer and PatientID in normal form, '' if unknown. sha256: of
    the data set as it was sent, with its transfer syntax. `repr` hides the identifiers.
    """

    sop: str = field(repr=False)
    sop_class: str
    study: str = field(repr=False)
    patient: str = field(repr=False)
    sha256: str = field(repr=False)
    n_bytes: int
    modality: str
    body_part: str
    view: str


def read_instance(path: Path) -> Instance:
    """Raises DicomError (not_dicom, unreadable, limit_exceeded ...) and ServeError: no_uid without
    a SOP or study UID, own_output for an object that medres has written.
    """
    with limited(inflated=MAX_HEADER):
        header = read_header(path)
    ids = header.identifiers
    sop, study = ids.sop_instance_uid, ids.study_instance_uid
    if not sop or not study or max(len(sop), len(study)) > _MAX_UID:
        raise ServeError(
            "the file has no valid SOPInstanceUID or StudyInstanceUID: it belongs to no study",
            code="no_uid",
        )
    if header.manufacturer == MANUFACTURER:
        raise own_output()
    with path.open("rb") as file:
        sha256 = content_sha256(file, header.transfer_syntax)
    return Instance(
        sop=sop,
        sop_class=header.sop_class_uid,
        study=study,
        patient=patient_key(ids.issuer_of_patient_id, ids.patient_id),
        sha256=sha256,
        n_bytes=path.stat().st_size,
        modality=header.modality,
        body_part=header.body_part,
        view=header.view_position,
    )


def own_output() -> ServeError:
    return ServeError(
        "the object was made by medres: its own output is not taken in again", code="own_output"
    )

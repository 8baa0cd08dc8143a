"""Synthetic radiographs with a canary in every element that may identify a person, and the
encodings in which a canary may leak.
"""

from __future__ import annotations

import base64

import numpy as np
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.dicom.writer import derived_uid, new_dataset, set_pixels

TEXT_VRS = {
    "PN": "CANARY^PN",
    "LO": "CANARYLO",
    "SH": "CANARYSH",
    "DA": "19010203",
    "UI": "2.25.73194628051",
}
MORE_VRS = {
    "ST": "CANARYST",
    "LT": "CANARYLT",
    "UT": "CANARYUT",
    "UC": "CANARYUC",
    "AE": "CANARYAE",
}
CANARIES = ("CANARY", "19010203", "73194628051")
TECHNICAL = ("Manufacturer", "ManufacturerModelName", "SOPClassUID", "TransferSyntaxUID")


def radiograph(patient: str, number: int, *, issuer: str = "") -> Dataset:
    uids = {name: derived_uid(name, number) for name in ("study", "series", "sop")}
    dataset = new_dataset("CR", ExplicitVRLittleEndian, patient_id=patient, patient="", **uids)
    if issuer:
        dataset.IssuerOfPatientID = issuer
    set_pixels(
        dataset,
        np.random.default_rng(number).integers(0, 4096, (12, 12)).astype(np.uint16),
        bits=12,
    )
    return dataset


def with_canaries(number: int) -> Dataset:
    """A valid radiograph with a canary in every element of these VRs, except the elements of the
    technical allow-list.
    """
    dataset = radiograph("CANARY-ID-" + str(number), number)
    for tag, entry in DicomDictionary.items():
        vr, keyword = entry[0], keyword_for_tag(tag)
        eligible = (
            vr in TEXT_VRS | MORE_VRS
            and keyword not in TECHNICAL
            and not entry[3]
            and tag >> 16 not in (0, 2, 4)
        )
        if eligible and keyword not in ("PatientID", "SOPInstanceUID"):
            dataset.add_new(tag, vr, (TEXT_VRS | MORE_VRS)[vr])
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, name, f"2.25.73194628051{number}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    block = dataset.private_block(0x0011, "CANARY CREATOR", create=True)
    block.add_new(1, "LO", "CANARYPRIVATE")
    return dataset


def encodings(canary: str) -> list[bytes]:
    """The canary as UTF-8, UTF-16 and base64 at each alignment."""
    plain = canary.encode()
    shifted = [base64.b64encode(b"x" * n + plain)[2 * n : -4] for n in range(3)]
    return [plain, canary.encode("utf-16-le"), canary.encode("utf-16-be"), *shifted]

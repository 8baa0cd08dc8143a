"""Writes DICOM files, for synthetic cohorts and for wrapped PNG and JPEG images.

The readers share no code with this module, so that tests of reading are independent of it.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from data_pipelines.errors import InputError

SOP_CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "SC": SecondaryCaptureImageStorage,
}
_NAMESPACE = uuid.UUID("6f0f0c1e-5d0c-5c3c-9f5b-6d6564726573")


def derived_uid(*parts: object) -> UID:
    """A DICOM UID under 2.25 (PS3.5 B.2) made from `parts`: equal parts give equal UIDs.

    >>> derived_uid("study", 1) == derived_uid("study", 1) != derived_uid("study", 2)
    True
    """
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, chr(31).join(map(str, parts))).int}")


def new_dataset(
    modality: str, syntax: UID, *, patient_id: str, patient: str, study: UID, series: UID, sop: UID
) -> Dataset:
    """A data set with its file meta header and the attributes that every image object must have.
    Unknown values are empty.

    modality: a key of SOP_CLASSES. patient: the PatientName. study, series, sop: the UIDs.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SOP_CLASSES[modality]
    meta.MediaStorageSOPInstanceUID = sop
    meta.TransferSyntaxUID = syntax
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = sop
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = series
    dataset.Modality = modality
    dataset.PatientName = patient
    dataset.PatientID = patient_id
    for keyword in (
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
    ):
        setattr(dataset, keyword, "")
    dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    return dataset


def set_pixels(
    dataset: Dataset, pixels: np.ndarray, *, bits: int, photometric: str = "MONOCHROME2"
) -> None:
    """Encode `pixels` in the transfer syntax of `dataset` and set the pixel module (C.7.6.3).

    pixels: (rows, columns), uint8, uint16 or int16. bits: BitsStored. Raises InputError
    (`no_encoder`) for a transfer syntax, or a number of bits, that cannot be written.
    """
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        dataset.PixelData = encapsulate([_encode(pixels, syntax, bits)])
        dataset["PixelData"].is_undefined_length = True
    else:
        big = syntax == ExplicitVRBigEndian
        data = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated or pixels.dtype.itemsize == 1 else "OW"


def save(dataset: Dataset, path: Path) -> None:
    """Write `dataset` as a DICOM file (PS3.10) with preamble and meta header. The parent folders of
    `path` are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _encode(pixels: np.ndarray, syntax: UID, bits: int) -> bytes:
    if syntax == RLELossless:
        return _rle(pixels)
    if syntax == JPEG2000Lossless:
        return bytes(
            imagecodecs.jpeg2k_encode(
                pixels, level=0, codecformat="j2k", reversible=True, bitspersample=bits
            )
        )
    if syntax == HTJ2KLossless and bits == pixels.dtype.itemsize * 8:
        return bytes(imagecodecs.htj2k_encode(pixels, reversible=True))
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")  # the streams below have no signed samples
    if syntax == JPEGLSLossless and bits == pixels.dtype.itemsize * 8:
        # the JPEG-LS encoder writes the full precision only
        return bytes(imagecodecs.jpegls_encode(unsigned))
    if syntax == JPEGLosslessSV1:
        return bytes(imagecodecs.ljpeg_encode(unsigned, bitspersample=bits))
    raise InputError(
        f"There is no encoder for transfer syntax {syntax} with {bits} bits.", code="no_encoder"
    )


def _rle(pixels: np.ndarray) -> bytes:
    """One RLE frame (PS3.5 Annex G): a 64-byte header of segment offsets, then one PackBits segment
    per byte plane.
    """
    planes = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(*pixels.shape, -1)
    segments = []
    # G.3.1: the most significant byte comes first, and each row is encoded separately
    for index in range(planes.shape[-1]):
        rows = [bytes(imagecodecs.packbits_encode(row.tobytes())) for row in planes[..., index]]
        segment = b"".join(rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = np.zeros(16, "<u4")
    offsets[0] = len(segments)
    offsets[1 : len(segments) + 1] = 64 + np.cumsum([0, *map(len, segments[:-1])])
    return offsets.tobytes() + b"".join(segments)

"""Writing DICOM files: for made-up cohorts and for wrapped pictures. Reading shares no code with
this module.
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
    RLELossless,
    SecondaryCaptureImageStorage,
)

SOP_CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "CT": CTImageStorage,
    "SC": SecondaryCaptureImageStorage,
}
_NAMESPACE = uuid.UUID("6f0f0c1e-5d0c-5c3c-9f5b-6d6564726573")


def derived_uid(*parts: object) -> UID:
    """A DICOM UID under 2.25 (PS3.5 B.2) that follows from `parts` alone: the same parts give the
    same UID.
    """
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, chr(31).join(map(str, parts))).int}")


def new_dataset(
    modality: str, syntax: UID, *, patient_id: str, patient: str, study: UID, series: UID, sop: UID
) -> Dataset:
    """A dataset with its file meta header and the attributes that every image object must have,
    empty where unknown.

    `modality` is a key of SOP_CLASSES; `patient` is the PatientName; study, series and sop are
    UIDs.
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
    """Put 2-D uint8, uint16 or int16 `pixels` of `bits` stored bits into `dataset`, in its transfer
    syntax.
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
    """Write `dataset` as a DICOM file (PS3.10) with preamble and meta header, making the folders of
    `path`.
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
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")  # neither stream below knows a sign
    if (
        syntax == JPEGLSLossless and bits == pixels.dtype.itemsize * 8
    ):  # the encoder writes the full precision only
        return bytes(imagecodecs.jpegls_encode(unsigned))
    if syntax == JPEGLosslessSV1:
        return bytes(imagecodecs.ljpeg_encode(unsigned, bitspersample=bits))
    raise ValueError(f"no encoder for transfer syntax {syntax} with {bits} bits")


def _rle(pixels: np.ndarray) -> bytes:
    """One RLE frame (PS3.5 Annex G): a 64-byte header of segment offsets, then one PackBits segment
    a byte plane.
    """
    planes = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(*pixels.shape, -1)
    segments = []
    for index in range(
        planes.shape[-1]
    ):  # most significant byte first; each row is encoded on its own (G.3.1)
        rows = [bytes(imagecodecs.packbits_encode(row.tobytes())) for row in planes[..., index]]
        segment = b"".join(rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = np.zeros(16, "<u4")
    offsets[0] = len(segments)
    offsets[1 : len(segments) + 1] = 64 + np.cumsum([0, *map(len, segments[:-1])])
    return offsets.tobytes() + b"".join(segments)

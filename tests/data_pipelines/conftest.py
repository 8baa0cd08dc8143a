"""Made-up DICOM data sets in memory, for the tests of the reading half."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from helpers import work_in_process
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

MakeGrey = Callable[..., Dataset]
ToBytes = Callable[..., bytes]

_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}


def make_grey(
    pixels: np.ndarray,
    *,
    syntax: str = ExplicitVRLittleEndian,
    data: bytes | None = None,
    **elements,
) -> Dataset:
    """A grey data set of (rows, columns) or (frames, rows, columns); `data` replaces the native
    bytes; an element given as None is left out.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    modality = elements.get("Modality", "CT")
    defaults: dict[str, object] = {
        "SOPClassUID": _CLASSES.get(modality, ComputedRadiographyImageStorage),
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "Modality": modality,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PatientID": "P1",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": pixels.dtype.itemsize * 8,
        "HighBit": pixels.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if pixels.ndim == 3:
        defaults["NumberOfFrames"] = len(pixels)
    with disable_value_validation():
        for keyword, value in {**defaults, **elements}.items():
            if value is not None:
                setattr(dataset, keyword, value)
    native = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = (native + b"\0" * (len(native) % 2)) if data is None else data
    dataset["PixelData"].VR = "OB" if data is not None or pixels.dtype.itemsize == 1 else "OW"
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def file_bytes(dataset: Dataset) -> bytes:
    """The data set as a DICOM file, preamble and meta header included."""
    buffer = BytesIO()
    with disable_value_validation():
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def grey() -> MakeGrey:
    return make_grey


@pytest.fixture(scope="session")
def to_bytes() -> ToBytes:
    return file_bytes


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at and prepared here, not in workers of their own: for tests of what is
    found, not of isolation.
    """
    work_in_process(monkeypatch)

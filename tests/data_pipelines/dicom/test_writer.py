from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers import raises_code
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import InputError
from data_pipelines.pixels.stored_values import read_stored

SYNTAXES = [
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
]
STORED = [
    ("uint8", 8, 0, 255),
    ("uint16", 12, 0, 4095),
    ("uint16", 16, 0, 65535),
    ("int16", 16, -2000, 3000),
]


def write(path: Path, syntax: UID, pixels: np.ndarray, bits: int) -> pydicom.Dataset:
    uids = {name: derived_uid(name) for name in ("study", "series", "sop")}
    dataset = new_dataset("CT", syntax, patient_id="p", patient="n", **uids)
    set_pixels(dataset, pixels, bits=bits)
    save(dataset, path)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize(("dtype", "bits", "low", "high"), STORED)
def test_pixels_survive_every_syntax(
    tmp_path: Path, syntax: UID, dtype: str, bits: int, low: int, high: int
) -> None:
    pixels = np.random.default_rng(0).integers(low, high, (33, 21)).astype(dtype)
    pixels[:8] = low  # runs, for the run-length encoder
    if syntax in (HTJ2KLossless, JPEGLSLossless) and bits == 12:
        with raises_code(InputError, "no_encoder"):
            write(tmp_path / "a.dcm", syntax, pixels, bits)
        return
    dataset = write(tmp_path / "a.dcm", syntax, pixels, bits)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    assert (read_stored(tmp_path / "a.dcm") == pixels).all()
    if syntax not in (
        HTJ2KLossless,
        JPEGLSLossless,
        JPEGLosslessSV1,
    ):  # pydicom has no plugin for these
        assert (dataset.pixel_array == pixels).all()


def test_derived_uids_are_valid_stable_and_apart() -> None:
    assert derived_uid("a", 1) == derived_uid("a", 1)
    assert (
        len(
            {derived_uid("a", 1), derived_uid("a1"), derived_uid("a", "1", ""), derived_uid("b", 1)}
        )
        == 4
    )
    assert derived_uid("a").is_valid
    assert derived_uid("a").startswith("2.25.")

"""Files that pydicom cannot parse and other readers can: read, with the code of the repair."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from helpers import raises_code
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from data_pipelines.dicom.byte_repairs import repaired_bytes
from data_pipelines.dicom.header import read_header
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import DecodeFailed, TruncatedPixelData
from data_pipelines.pixels.stored_values import read_stored

PIXELS = np.random.default_rng(1).integers(0, 4096, (16, 12)).astype(np.uint16)
JPEG_LOSSLESS, UNDEFINED = "1.2.840.10008.1.2.4.70", 0xFFFFFFFF
DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.fixture
def compressed(grey, to_bytes) -> bytes:
    stream = bytes(imagecodecs.ljpeg_encode(PIXELS, bitspersample=12))
    dataset = grey(PIXELS, syntax=JPEG_LOSSLESS, data=encapsulate([stream]))
    data = to_bytes(dataset)
    assert data.endswith(DELIMITER)
    return data


@pytest.mark.parametrize(
    "ending",
    [b"", bytes(8), bytes(3), b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0abcd"],
    ids=["missing", "zeros", "some zeros", "trailing padding"],
)
def test_whole_fragments_without_a_delimiter_are_read(compressed, ending):
    data = compressed[:-8] + ending
    assert parse(data, pixels=True).repairs == ("missing_sequence_delimiter",)
    np.testing.assert_array_equal(read_stored(data), PIXELS)


@pytest.mark.parametrize("cut", [9, 10, 40])
def test_an_incomplete_fragment_is_still_truncation(compressed, cut):
    with raises_code(TruncatedPixelData, "truncated_pixels"):
        read_stored(compressed[:-cut])


def test_a_missing_frame_is_still_refused(grey, to_bytes):
    stream = bytes(imagecodecs.ljpeg_encode(PIXELS, bitspersample=12))
    frames = np.stack([PIXELS, PIXELS])
    dataset = grey(frames, syntax=JPEG_LOSSLESS, data=encapsulate([stream]), NumberOfFrames=2)
    with raises_code(DecodeFailed, "frame_count"):
        read_stored(to_bytes(dataset)[:-8])


def test_a_sound_file_is_left_as_it_is(compressed, grey, to_bytes):
    plain = to_bytes(grey(PIXELS))
    for data in (compressed, plain):
        assert parse(data, pixels=True).repairs == ()
    assert repaired_bytes(plain) == (plain, ())


@pytest.mark.parametrize(
    "value", [b"\xff\xfe\x00\x01", b"GARBAGE ", b"ISO_IR 999", b"ISO 2022 IR 6\\\xe9\xe8 "]
)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian, "big"])
def test_garbage_in_the_character_set_is_the_default_one(grey, to_bytes, value, syntax):
    big = syntax == "big"
    data = to_bytes(grey(PIXELS, syntax=ExplicitVRBigEndian if big else syntax))
    tag = b"\x00\x08\x00\x05" if big else b"\x08\x00\x05\x00"
    if syntax == ImplicitVRLittleEndian:
        element = tag + struct.pack("<L", len(value)) + value
    else:
        element = tag + b"CS" + struct.pack(">H" if big else "<H", len(value)) + value
    start = data.index(b"\x00\x08\x00\x08CS" if big else b"\x08\x00\x08\x00")
    data = data[:start] + element + data[start:]
    header = read_header(data)
    assert header.identifiers.patient_id == "P1"
    assert "invalid_SpecificCharacterSet" in header.repairs
    if not big:
        np.testing.assert_array_equal(read_stored(data), PIXELS)


def implicit(tag: int, length: int) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)


INNER = implicit(0x00091010, 4) + b"ABCD"
ITEMS = {
    "undefined item": implicit(0xFFFEE000, UNDEFINED) + INNER + implicit(0xFFFEE00D, 0),
    "defined item": implicit(0xFFFEE000, len(INNER)) + INNER,
    "no item": b"",
}


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize("count", [1, 2])
def test_an_unknown_sequence_in_big_endian_is_left_out(grey, to_bytes, items, count):
    """PS3.5 section 6.2.2: its items are implicit little endian in every transfer syntax."""
    data = to_bytes(grey(PIXELS, syntax=ExplicitVRBigEndian))
    patient = data.index(b"\x00\x10\x00\x20LO")
    unknown = b"".join(
        struct.pack(">HH", 9, 0x1010 + n)
        + b"UN\0\0\xff\xff\xff\xff"
        + items
        + implicit(0xFFFEE0DD, 0)
        for n in range(count)
    )
    damaged = data[:patient] + b"\x00\x09\x00\x10LO\x00\x04ABCD" + unknown + data[patient:]
    np.testing.assert_array_equal(read_stored(damaged), read_stored(data))
    header = read_header(damaged)
    assert header.identifiers.patient_id == "P1"
    assert header.repairs == ("unknown_sequence_left_out",)

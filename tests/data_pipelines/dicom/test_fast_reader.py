"""The plain way of reading a data set: what it gives is what pydicom's reader gives, and the rest
is left to that reader.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from data_pipelines.dicom.fast_reader import PIXEL_TAGS, NonCanonicalEncoding, scan_file
from data_pipelines.dicom.reader import parse, silence_pydicom
from data_pipelines.errors import Unreadable
from data_pipelines.runtime.limits import limited

PIXELS = np.arange(48, dtype=np.int16).reshape(6, 8)
UNDEFINED = 0xFFFFFFFF
PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def element(tag: int, vr: str, value: bytes, *, implicit: bool, length: int | None = None) -> bytes:
    """Written by hand, PS3.5 section 7.1.2 and 7.1.3."""
    head, size = (
        struct.pack("<HH", tag >> 16, tag & 0xFFFF),
        len(value) if length is None else length,
    )
    if implicit:
        return head + struct.pack("<L", size) + value
    if vr == "SQ":
        return head + b"SQ\0\0" + struct.pack("<L", size) + value
    return head + vr.encode() + struct.pack("<H", size) + value


def sequence(tag: int, content: bytes, *, implicit: bool, undefined: bool) -> bytes:
    """One of a single item; section 7.5."""
    if undefined:
        item = (
            struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
            + content
            + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
        )
        closed = item + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
        return element(tag, "SQ", closed, implicit=implicit, length=UNDEFINED)
    return element(
        tag, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content, implicit=implicit
    )


def with_sequence(whole: bytes, added: bytes) -> bytes:
    at = whole.index(b"\x10\x00\x20\x00")  # PatientID
    return whole[:at] + added + whole[at:]


def by_pydicom(data: bytes, *, pixels: bool = True) -> Dataset:
    with silence_pydicom():
        stop = None if pixels else lambda tag, vr, length: tag in PIXEL_TAGS
        return read_partial(BytesIO(data), stop, force=True)


def assert_same(scanned: Dataset, expected: Dataset) -> None:
    with silence_pydicom():
        assert Dataset(dict(scanned.items())) == Dataset(dict(expected.items()))
        assert scanned.file_meta == expected.file_meta
        assert scanned.original_encoding == expected.original_encoding
        assert scanned.original_character_set == expected.original_character_set


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", PLAIN)
def test_elements_sequences_and_text_are_those_of_pydicom(
    grey, to_bytes, syntax, undefined, pixels
):
    implicit = syntax == ImplicitVRLittleEndian
    dataset = grey(
        PIXELS, syntax=syntax, SpecificCharacterSet="ISO_IR 192", PatientID="é", PatientComments=""
    )
    inner = sequence(0x00081140, b"", implicit=implicit, undefined=undefined)
    inner += element(0x00080100, "SH", b"R-10", implicit=implicit)
    data = with_sequence(
        to_bytes(dataset), sequence(0x00540220, inner, implicit=implicit, undefined=undefined)
    )
    scanned = scan_file(data, True, pixels, None)
    assert_same(scanned, by_pydicom(data, pixels=pixels))
    assert scanned.ViewCodeSequence[0].CodeValue == "R-10"
    assert scanned.PatientID == "é"
    assert ("PixelData" in scanned) == pixels


def test_only_the_wanted_elements_are_kept(grey, to_bytes):
    scanned = scan_file(to_bytes(grey(PIXELS, PatientID="p")), True, False, frozenset({0x00280010}))
    assert [int(tag) for tag in scanned.keys()] in ([0x00280010], [0x00080005, 0x00280010])  # noqa: SIM118


@pytest.mark.parametrize("syntax", PLAIN)
def test_a_file_that_breaks_off_is_unusual_or_read_as_far_as_it_goes(grey, to_bytes, syntax):
    whole = to_bytes(grey(PIXELS, syntax=syntax))
    read = 0
    for length in range(len(whole)):
        try:
            scanned = scan_file(whole[:length], True, True, None)
        except NonCanonicalEncoding:
            continue
        assert_same(scanned, by_pydicom(whole[:length]))
        read += 1
    assert 10 < read < 80  # one at the end of each element


def test_the_beginning_of_a_file_is_not_taken_for_the_whole(grey, to_bytes):
    whole = to_bytes(grey(PIXELS))
    at = whole.index(b"\x10\x00\x20\x00")
    with pytest.raises(NonCanonicalEncoding):
        scan_file(whole[:at], False, False, None)
    assert "PatientID" not in scan_file(whole[:at], True, False, None)
    long = with_sequence(whole, element(0x00104000, "LT", b" " * 65000, implicit=False))
    assert parse(long, pixels=False, tags=frozenset({0x00280010})).dataset.Rows == 6


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: b"\0" * 128 + b"MCID" + data[132:], "no mark"),
        (
            lambda data: data.replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00QQ"),
            "no such value representation",
        ),
        (lambda data: data + b"\0" * 64, "something behind the pixels"),
        (
            lambda data: data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),
            "big endian is declared",
        ),
    ],
)
def test_what_is_not_plain_is_left_to_pydicom(grey, to_bytes, damage, why):
    whole = to_bytes(grey(PIXELS))
    assert damage(whole) != whole, why
    with pytest.raises(NonCanonicalEncoding):
        scan_file(damage(whole), True, True, None)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [*PLAIN, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("pixels", [True, False])
def test_an_element_twice_in_an_item_is_refused(grey, to_bytes, syntax, undefined, nested, pixels):
    implicit = syntax == ImplicitVRLittleEndian
    once = element(0x00080100, "SH", b"CANARY", implicit=implicit)

    def file(content: bytes) -> bytes:
        inner = (
            sequence(0x00081140, content, implicit=implicit, undefined=undefined)
            if nested
            else content
        )
        added = sequence(0x00540220, inner, implicit=implicit, undefined=undefined)
        whole = to_bytes(grey(PIXELS, PatientID="p", syntax=syntax))
        if syntax != DeflatedExplicitVRLittleEndian:
            return with_sequence(whole, added)
        (length,) = struct.unpack("<L", whole[140:144])
        squeezer = zlib.compressobj(wbits=-15)
        body = with_sequence(zlib.decompress(whole[144 + length :], -15), added)
        return whole[: 144 + length] + squeezer.compress(body) + squeezer.flush()

    assert parse(file(once), pixels=pixels).dataset.Rows == 6
    with pytest.raises(Unreadable) as caught:
        parse(file(once + once), pixels=pixels)
    assert caught.value.code == "duplicate_element"
    assert "CANARY" not in str(caught.value)


def test_the_same_element_in_two_items_is_no_duplicate(grey, to_bytes):
    dataset, codes = grey(PIXELS, PatientID="p"), [Dataset(), Dataset()]
    for code in codes:
        code.CodeValue = "R-10"
    dataset.ViewCodeSequence = Sequence(codes)
    assert len(parse(to_bytes(dataset), pixels=True).dataset.ViewCodeSequence) == 2


def test_deep_sequences_are_left_to_the_reader_that_knows_the_limit(grey, to_bytes):
    inner = b""
    for _ in range(5):
        inner = sequence(0x00081140, inner, implicit=False, undefined=True)
    data = with_sequence(to_bytes(grey(PIXELS, PatientID="p")), inner)
    assert "PixelData" in scan_file(data, True, True, None)
    with limited(depth=4), pytest.raises(NonCanonicalEncoding):
        scan_file(data, True, True, None)


def test_the_conformance_files_are_read_as_pydicom_reads_them(medres_data):
    """Every file, whole and without its pixels; most are plain."""
    plain = others = 0
    for path in sorted((medres_data / "dicom-conformance").rglob("*")):
        if not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        data = path.read_bytes()
        try:
            scanned = scan_file(data, True, True, None)
        except (NonCanonicalEncoding, Unreadable):
            others += 1
            continue
        assert_same(scanned, by_pydicom(data))
        plain += 1
    assert plain > others > 0


def test_big_endian_is_still_read(grey, to_bytes):
    data = to_bytes(grey(PIXELS, syntax=ExplicitVRBigEndian))
    assert pydicom.dcmread(BytesIO(data)).Rows == parse(data, pixels=True).dataset.Rows == 6

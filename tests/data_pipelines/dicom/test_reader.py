"""Opening files: what is no DICOM, what can be repaired, what is refused, and that nothing of a
patient leaks.
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers import raises_code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from data_pipelines.dicom.reader import parse, silence_pydicom, transfer_syntax_of
from data_pipelines.errors import (
    DicomError,
    LimitExceeded,
    NotDicom,
    TruncatedPixelData,
    Unreadable,
)
from data_pipelines.pixels.image import read_image
from data_pipelines.runtime.limits import limited

PIXELS = np.arange(48, dtype=np.int16).reshape(6, 8)
CANARY = "CANARY^Jane"


def without_preamble(data: bytes) -> bytes:
    """The data set alone: no preamble, no DICM, no meta header."""
    (length,) = struct.unpack("<L", data[140:144])
    return data[144 + length :]


@pytest.mark.parametrize("pixels", [False, True])
def test_a_whole_file_needs_no_repair(grey, to_bytes, pixels):
    parsed = parse(to_bytes(grey(PIXELS)), pixels=pixels)
    assert parsed.repairs == ()
    assert parsed.dataset.Rows == 6
    assert ("PixelData" in parsed.dataset) == pixels


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian])
def test_a_bare_data_set_is_repaired_and_its_syntax_found(grey, to_bytes, syntax):
    bare = without_preamble(to_bytes(grey(PIXELS, syntax=syntax)))
    parsed = parse(bare, pixels=True)
    assert parsed.repairs == ("missing_preamble", "missing_meta")
    assert transfer_syntax_of(parsed.dataset) == syntax
    assert parsed.dataset.PixelData == PIXELS.tobytes()


def test_a_missing_transfer_syntax_is_repaired(grey, to_bytes):
    dataset = grey(PIXELS)
    whole = to_bytes(dataset)
    element = b"\x02\x00\x10\x00UI\x14\x00" + b"1.2.840.10008.1.2.1\0"
    assert element in whole
    (length,) = struct.unpack("<L", whole[140:144])
    cut = whole.replace(element, b"")
    cut = cut[:140] + struct.pack("<L", length - len(element)) + cut[144:]
    parsed = parse(cut, pixels=True)
    assert parsed.repairs == ("missing_transfer_syntax",)
    assert transfer_syntax_of(parsed.dataset) == pydicom.uid.ExplicitVRLittleEndian


def test_an_implicit_data_set_under_an_explicit_syntax_is_repaired(grey, to_bytes):
    explicit, implicit = (
        to_bytes(grey(PIXELS)),
        to_bytes(grey(PIXELS, syntax=ImplicitVRLittleEndian)),
    )
    (length,) = struct.unpack("<L", explicit[140:144])
    mixed = explicit[: 144 + length] + without_preamble(implicit)
    parsed = parse(mixed, pixels=True)
    assert "wrong_vr_encoding" in parsed.repairs
    assert parsed.dataset.Columns == 8


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"plain text, no DICOM at all" * 20,
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"\x08\x00" + b"\xff" * 400,
        bytes(4000),
    ],
)
def test_what_is_no_dicom_is_said_to_be_none(junk):
    with pytest.raises(NotDicom):
        parse(junk, pixels=True)


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path: Path):
    for path in (tmp_path / "nothing.dcm", tmp_path):
        with raises_code(Unreadable, "unreadable"):
            parse(path, pixels=False)


def test_a_header_that_breaks_off_inside_a_sequence_is_unreadable(grey, to_bytes):
    dataset = grey(PIXELS, ViewCodeSequence=[pydicom.Dataset()])
    dataset.ViewCodeSequence[0].CodeMeaning = "x" * 60
    dataset["ViewCodeSequence"].is_undefined_length = True
    whole = to_bytes(dataset)
    with pytest.raises(Unreadable):
        parse(whole[: whole.index(b"x" * 60) + 30], pixels=False)


def test_pixel_data_that_break_off_are_told_from_a_broken_header(grey, to_bytes):
    dataset = grey(
        PIXELS, syntax=pydicom.uid.JPEGLSLossless, data=pydicom.encaps.encapsulate([bytes(200)])
    )
    whole = to_bytes(dataset)
    with pytest.raises(TruncatedPixelData):
        parse(whole[:-60], pixels=True)
    assert parse(whole[:-60], pixels=False).dataset.Rows == 6


def test_deflated_data_sets_are_inflated_up_to_a_cap(grey, to_bytes):
    deflated = to_bytes(grey(np.zeros((300, 300), np.int16), syntax=DeflatedExplicitVRLittleEndian))
    assert len(deflated) < 3000
    assert len(parse(deflated, pixels=True).dataset.PixelData) == 180_000
    assert "PixelData" not in parse(deflated, pixels=False).dataset
    with limited(inflated=100_000), pytest.raises(LimitExceeded):
        parse(deflated, pixels=True)


def test_a_broken_deflate_stream_is_unreadable(grey, to_bytes):
    deflated = to_bytes(grey(PIXELS, syntax=DeflatedExplicitVRLittleEndian))
    for broken in (deflated[:-40], deflated[:-40] + b"\xff" * 40, deflated[:-200] + b"\xff" * 200):
        with pytest.raises(Unreadable):
            parse(broken, pixels=True)


def test_a_file_over_the_limit_is_not_read(grey, to_bytes, tmp_path: Path):
    path = tmp_path / "large.dcm"
    path.write_bytes(to_bytes(grey(PIXELS)))
    with limited(file=500), raises_code(LimitExceeded, "limit_exceeded", "500"):
        parse(path, pixels=False)


def test_sequences_nested_too_deep_are_refused_and_not_a_crash(grey, to_bytes):
    whole = to_bytes(grey(PIXELS, syntax=ImplicitVRLittleEndian))
    start = b"\x08\x00\x15\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    (length,) = struct.unpack("<L", whole[140:144])
    with pytest.raises(LimitExceeded):
        read_image(whole[: 144 + length] + start * 3000)


@pytest.mark.parametrize("defined", [False, True])
def test_sequences_may_be_as_deep_as_the_limit(grey, to_bytes, defined):
    def nested(depth: int) -> bytes:
        dataset, inner = grey(PIXELS), Dataset()
        for _ in range(depth):
            outer = Dataset()
            outer.ContentSequence = [inner]
            outer["ContentSequence"].is_undefined_length = not defined
            inner.is_undefined_length_sequence_item = not defined
            inner = outer
        dataset.ContentSequence = inner.ContentSequence
        dataset["ContentSequence"].is_undefined_length = not defined
        return to_bytes(dataset)

    assert parse(nested(64), pixels=True).dataset.Rows == 6
    if not defined:  # others stay unparsed bytes, at any depth
        with raises_code(LimitExceeded, "limit_exceeded", "64"):
            parse(nested(65), pixels=True)
        with limited(depth=70):
            assert parse(nested(70), pixels=False).dataset.Rows == 6


def test_big_endian_without_meta_header_is_recognised(grey, to_bytes):
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("ExplVR_BigEndNoMeta.dcm"), force=True)
    assert (
        parse(pydicom.data.get_testdata_file("ExplVR_BigEndNoMeta.dcm"), pixels=False).dataset
        == dataset
    )
    assert transfer_syntax_of(dataset) == ExplicitVRBigEndian


def test_a_data_set_passes_through(grey):
    dataset = grey(PIXELS)
    assert parse(dataset, pixels=True).dataset is dataset


def test_quiet_collects_warnings_and_stops_the_log(caplog):
    with caplog.at_level(logging.DEBUG), silence_pydicom() as caught:
        warnings.warn(CANARY, UserWarning, stacklevel=1)
        logging.getLogger("pydicom").warning(CANARY)
    assert [str(w.message) for w in caught] == [CANARY]
    assert CANARY not in caplog.text
    assert not logging.getLogger("pydicom").disabled


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(128, 900), byte=st.integers(0, 255), cut=st.integers(0, 900))
def test_damage_ends_in_an_image_or_in_a_named_reason_that_leaks_nothing(
    grey, to_bytes, place, byte, cut
):
    dataset = grey(
        PIXELS,
        PatientName=CANARY,
        PatientID="CANARY-ID",
        StudyDescription="CANARY text",
        RescaleSlope=1,
    )
    whole = bytearray(to_bytes(dataset))
    whole[place % len(whole)] = byte
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        message, cause = "", None
        try:
            assert read_image(bytes(whole[: len(whole) - cut // 4])).pixels.ndim == 2
        except DicomError as error:
            message, cause = str(error), error.__cause__
    assert "CANARY" not in message
    assert cause is None
    assert not caught


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("pixels", [True, False])
def test_an_element_twice_is_refused(grey, to_bytes, syntax, pixels):
    whole = to_bytes(grey(PIXELS, PatientID="CANARY"))
    twice = pydicom.dcmread(BytesIO(whole), force=True)
    start = whole.index(b"\x10\x00\x20\x00")
    element = whole[start : start + 14]
    assert element.endswith(b"CANARY")
    doubled = whole[:start] + element + whole[start:]
    assert pydicom.dcmread(BytesIO(doubled)).PatientID == twice.PatientID
    if syntax == DeflatedExplicitVRLittleEndian:
        deflated = to_bytes(grey(PIXELS, PatientID="CANARY", syntax=syntax))
        (length,) = struct.unpack("<L", deflated[140:144])
        body = zlib.decompress(deflated[144 + length :], -15)
        at = body.index(element)
        squeezer = zlib.compressobj(wbits=-15)
        doubled = (
            deflated[: 144 + length]
            + squeezer.compress(body[:at] + element + body[at:])
            + squeezer.flush()
        )
    with raises_code(Unreadable, "duplicate_element") as caught:
        parse(doubled, pixels=pixels)
    assert "CANARY" not in str(caught.value)


def test_zeros_after_the_pixels_are_no_elements(grey, to_bytes):
    whole = to_bytes(grey(PIXELS))
    assert parse(whole + b"\0" * 64, pixels=True).dataset.Rows == 6

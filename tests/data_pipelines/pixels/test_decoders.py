"""Which decoder reads what, and what is said where none can."""

from __future__ import annotations

import dataclasses
import sys

import imagecodecs
import numpy as np
import pytest
from helpers import raises_code

from data_pipelines.errors import DecodeFailed, UnsupportedSyntax
from data_pipelines.pixels import decoders as codecs
from data_pipelines.pixels.decoders import (
    IMAGECODECS,
    PLUGINS,
    PixelFormat,
    capabilities,
    decode_frame,
    decoders_for,
    syntax_name,
)

JPEG = "1.2.840.10008.1.2.4"
RAMP = (np.arange(7 * 9, dtype=np.uint16) * 1000).reshape(7, 9)


def format_of(syntax: str, bits: int = 16) -> PixelFormat:
    return PixelFormat(7, 9, 1, 16 if bits > 8 else 8, bits, bits - 1, False, syntax)


@pytest.fixture(autouse=True)
def _fresh_tables():
    decoders_for.cache_clear()
    yield
    decoders_for.cache_clear()


@pytest.mark.parametrize(
    ("syntax", "encoded"),
    [
        (f"{JPEG}.57", imagecodecs.ljpeg_encode(RAMP, bitspersample=16)),
        (f"{JPEG}.70", imagecodecs.ljpeg_encode(RAMP, bitspersample=16)),
        (f"{JPEG}.80", imagecodecs.jpegls_encode(RAMP)),
        (
            f"{JPEG}.90",
            imagecodecs.jpeg2k_encode(RAMP, codecformat="j2k", reversible=True, level=0),
        ),
        (f"{JPEG}.201", imagecodecs.htj2k_encode(RAMP, reversible=True)),
        (f"{JPEG}.202", imagecodecs.htj2k_encode(RAMP, reversible=True)),
        (f"{JPEG}.203", imagecodecs.htj2k_encode(RAMP, reversible=True)),
    ],
)
def test_every_installed_decoder_of_a_lossless_syntax_gives_the_same_values(syntax, encoded):
    able = [decoder for decoder in decoders_for(syntax) if not decoder.missing]
    assert able
    for decoder in able:
        np.testing.assert_array_equal(decoder.decode(bytes(encoded), format_of(syntax)), RAMP)
    samples, name = decode_frame(bytes(encoded), format_of(syntax))
    np.testing.assert_array_equal(samples, RAMP)
    assert name == able[0].name


def test_rle_by_every_decoder():
    planes = [RAMP >> 8, RAMP & 255]
    segments = [
        b"".join(imagecodecs.packbits_encode(row.astype(np.uint8).tobytes()) for row in plane)
        for plane in planes
    ]
    segments = [bytes(s) + b"\0" * (len(s) % 2) for s in segments]
    head = np.zeros(16, "<u4")
    head[:3] = 2, 64, 64 + len(segments[0])
    data = head.tobytes() + b"".join(segments)
    able = [decoder for decoder in decoders_for(codecs.RLE) if not decoder.missing]
    assert [decoder.name for decoder in able] == ["imagecodecs.dicomrle", "pydicom.pydicom"]
    for decoder in able:
        np.testing.assert_array_equal(decoder.decode(data, format_of(codecs.RLE)), RAMP)


@pytest.mark.parametrize("syntax", [f"{JPEG}.50", f"{JPEG}.51", f"{JPEG}.53", f"{JPEG}.55"])
def test_eight_bit_jpeg(syntax):
    flat = np.full((7, 9), 77, np.uint8)
    samples, _ = decode_frame(
        bytes(imagecodecs.jpeg8_encode(flat, level=100)), format_of(syntax, bits=8)
    )
    np.testing.assert_array_equal(samples, flat)


def test_imagecodecs_comes_first():
    for syntax in IMAGECODECS:
        assert decoders_for(syntax)[0].name.startswith("imagecodecs.")


@pytest.mark.parametrize("missing", [None, "pyjpegls"])
def test_a_failing_decoder_gives_way_and_every_name_is_told(monkeypatch, missing):
    first, second = decoders_for(f"{JPEG}.80")

    def fails(data, pixels):
        raise RuntimeError

    both = first, dataclasses.replace(second, decode=fails, missing=missing)
    monkeypatch.setattr("data_pipelines.pixels.decoders.decoders_for", lambda syntax: both)
    with pytest.raises(DecodeFailed) as caught:
        decode_frame(b"\xff\xd8garbage", format_of(f"{JPEG}.80"))
    for name in ("imagecodecs.jpegls", "pydicom.pyjpegls", f"{JPEG}.80"):
        assert name in str(caught.value)
    assert ("pip install pyjpegls" in str(caught.value)) == bool(missing)


def test_the_next_decoder_is_asked_when_the_first_fails():
    encoded = bytes(imagecodecs.jpeg2k_encode(RAMP, codecformat="j2k", reversible=True, level=0))
    samples, name = decode_frame(encoded, format_of(f"{JPEG}.201"))
    np.testing.assert_array_equal(samples, RAMP)
    assert name == "imagecodecs.jpeg2k"


def test_an_image_of_another_shape_is_a_failure():
    """Also where pyjpegls is installed, which would give its bytes the shape of the header."""
    encoded = bytes(imagecodecs.jpegls_encode(RAMP.T.copy()))
    with raises_code(DecodeFailed, "decode_failed", "imagecodecs.jpegls"):
        decode_frame(encoded, format_of(f"{JPEG}.80"))


def test_where_imagecodecs_is_missing_its_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with raises_code(UnsupportedSyntax, "unsupported_syntax", "pip install imagecodecs"):
        decode_frame(b"", format_of(f"{JPEG}.70"))
    encoded = bytes(imagecodecs.jpeg2k_encode(RAMP, codecformat="j2k", reversible=True, level=0))
    assert decode_frame(encoded, format_of(f"{JPEG}.90"))[1] == "pydicom.pylibjpeg"


def test_capabilities_of_this_machine_and_of_one_without_imagecodecs(monkeypatch):
    rows = {row.syntax: row for row in capabilities()}
    assert set(rows) == set(IMAGECODECS)
    assert rows[f"{JPEG}.80"].name == "JPEG-LS Lossless Image Compression"
    assert all(row.installed for row in rows.values())
    decoders_for.cache_clear()
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    rows = {row.syntax: row for row in capabilities()}
    assert rows[f"{JPEG}.70"].installed == ()
    assert rows[f"{JPEG}.70"].missing == ("imagecodecs", "imagecodecs")
    assert rows[f"{JPEG}.90"].installed == ("pydicom.pylibjpeg",)


def test_no_message_asks_for_a_package_under_the_gpl():
    packages = {package for plugins in PLUGINS.values() for _, package in plugins}
    assert packages == {"pydicom", "pillow", "pyjpegls", "pylibjpeg-openjpeg"}


@pytest.mark.parametrize(
    "syntax", [f"{JPEG}.100", f"{JPEG}.110", f"{JPEG}.112", f"{JPEG}.52", "1.2.3", "CANARY"]
)
def test_unproven_and_unknown_syntaxes_have_no_decoder(syntax):
    assert decoders_for(syntax) == ()
    assert "CANARY" not in syntax_name(syntax)

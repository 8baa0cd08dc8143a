"""Stored values: bit-exact, with the sign and the unused bits resolved, against plain Python
arithmetic.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import pydicom
import pytest
from helpers import raises_code
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.encaps import encapsulate, encapsulate_extended

from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import (
    ColourImage,
    DecodeFailed,
    DicomError,
    InputError,
    LimitExceeded,
    NoPixelData,
    TruncatedPixelData,
    UnsupportedSyntax,
)
from data_pipelines.pixels import decoders as codecs
from data_pipelines.pixels import stored_values as pixels
from data_pipelines.pixels.decoders import PixelFormat
from data_pipelines.pixels.stored_values import (
    cell_values,
    decode_stored_values,
    pixel_format,
    read_stored,
    sample_values,
)
from data_pipelines.runtime.limits import limited

JPEG = "1.2.840.10008.1.2.4"
RAMP = (np.arange(6 * 8, dtype=np.int16) * 100 - 2000).reshape(6, 8)
STACK = np.stack([RAMP, RAMP + 7, RAMP + 9])


def repairs_of(dataset) -> tuple[str, ...]:
    parsed = parse(dataset, pixels=True)
    return decode_stored_values(parsed.dataset, header_of(parsed))[1]


def obvious_value(cell: int, stored: int, high_bit: int, signed: bool) -> int:
    """PS3.5 section 8.1.1 by hand: cut the bits out, then read them as two's complement."""
    bits = (cell >> (high_bit + 1 - stored)) & ((1 << stored) - 1)
    return bits - (1 << stored) if signed and bits >> (stored - 1) else bits


@given(st.data())
def test_cells_against_bit_arithmetic(data):
    allocated = data.draw(st.sampled_from([8, 16, 32]))
    stored = data.draw(st.integers(1, allocated))
    high_bit = data.draw(st.integers(stored - 1, allocated - 1))
    signed = data.draw(st.booleans())
    cells = data.draw(hnp.arrays(f"u{allocated // 8}", (2, 3)))
    layout = PixelFormat(2, 3, 1, allocated, stored, high_bit, signed, "")
    result = cell_values(cells, layout)
    assert result.dtype == layout.dtype
    assert result.tolist() == [
        [obvious_value(int(c), stored, high_bit, signed) for c in row] for row in cells
    ]


@given(st.data())
def test_samples_against_bit_arithmetic(data):
    """A stream that does not know the sign gives the low bits of the value; whatever it says, the
    value comes back.
    """
    stored = data.draw(st.integers(2, 16))
    signed = data.draw(st.booleans())
    low, high = (
        (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    )
    values = data.draw(hnp.arrays(np.int64, (2, 3), elements=st.integers(low, high)))
    layout = PixelFormat(2, 3, 1, 16, stored, stored - 1, signed, "")
    unsigned_stream = (values & ((1 << stored) - 1)).astype(np.uint16)
    assert sample_values(unsigned_stream, stored, layout).tolist() == values.tolist()
    sign_bit = 1 << (stored - 1)
    signed_stream = ((values & ((1 << stored) - 1)) ^ sign_bit).astype(np.int64) - sign_bit
    result = sample_values(
        signed_stream.astype(np.int16 if stored < 16 or signed else np.int32), stored, layout
    )
    assert result.tolist() == values.tolist()


@given(arr=hnp.arrays(np.int16, (3, 4)))
def test_a_wide_stream_of_sign_extended_values_fits_fewer_stored_bits(arr):
    values = arr >> 4
    layout = PixelFormat(3, 4, 1, 16, 12, 11, True, "")
    assert sample_values(values, 16, layout).tolist() == values.tolist()
    assert sample_values(values.view(np.uint16), 16, layout).tolist() == values.tolist()


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"]
)
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4"])
def test_uncompressed_round_trip(grey, to_bytes, syntax, dtype):
    values = RAMP.astype(dtype)
    result = read_stored(to_bytes(grey(values, syntax=syntax)))
    assert result.dtype == np.dtype(dtype)
    assert result.flags.writeable
    np.testing.assert_array_equal(result, values)


@pytest.mark.parametrize(
    ("dtype", "vr"), [("u2", "OW"), ("i2", "OW"), ("i4", "OW"), ("u1", "OW"), ("u1", "OB")]
)
def test_big_endian_swaps_words_also_of_bytes_in_ow(grey, to_bytes, dtype, vr):
    """PS3.5 A.3: in Explicit VR Big Endian, OW is swapped in 16-bit words, even where a pixel is a
    byte.
    """
    values = np.abs(RAMP).astype(dtype)
    swapped = values.astype(">" + dtype).tobytes()
    if dtype == "u1" and vr == "OW":
        swapped = values.view("<u2").astype(">u2").tobytes()
    dataset = grey(values, syntax="1.2.840.10008.1.2.2", data=swapped)
    dataset["PixelData"].VR = vr
    np.testing.assert_array_equal(read_stored(to_bytes(dataset)), values)


def test_unused_bits_and_overlays_in_them_are_dropped(grey):
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 85
    dirty = (values | 0xA000).astype(np.uint16)
    dataset = grey(dirty, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_stored(dataset), values)
    shifted = grey((values << 4).astype(np.uint16), BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_stored(shifted), values)


def test_twelve_signed_bits_are_sign_extended(grey):
    values = (RAMP // 2).astype(np.int16)
    assert values.min() < 0
    cells = (values.view(np.uint16) & 0x0FFF | 0x5000).astype(np.uint16)
    dataset = grey(cells, BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_array_equal(read_stored(dataset), values)


def test_frames(grey):
    dataset = grey(STACK)
    np.testing.assert_array_equal(read_stored(dataset), STACK)
    for index in range(3):
        np.testing.assert_array_equal(read_stored(dataset, frame=index), STACK[index])
    for index in (-1, 3):
        with raises_code(InputError, "no_such_frame", "0 to 2"):
            read_stored(dataset, frame=index)
    assert read_stored(grey(RAMP[None])).shape == (6, 8)


def test_too_few_bytes_are_truncation_and_a_frame_too_many_is_an_error(grey):
    native = STACK.tobytes()
    with raises_code(TruncatedPixelData, "truncated_pixels", "286 bytes", "288"):
        read_stored(grey(STACK, data=native[:-2]))
    with raises_code(DecodeFailed, "frame_count"):
        read_stored(grey(RAMP, data=native))
    with raises_code(DecodeFailed, "frame_count", "192 bytes", "is 1,", "96 bytes"):
        read_stored(grey(RAMP, data=STACK[:2].tobytes()))
    padded = grey(RAMP, data=RAMP.tobytes() + b"\0" * 10)
    np.testing.assert_array_equal(read_stored(padded), RAMP)
    assert repairs_of(padded) == ("trailing_bytes",)
    odd = np.arange(9, dtype=np.uint8).reshape(3, 3)
    np.testing.assert_array_equal(read_stored(grey(odd)), odd)
    assert repairs_of(grey(odd)) == ()


def encoded(values: np.ndarray, syntax: str) -> bytes:
    unsigned = values.view(np.uint16)
    if syntax == f"{JPEG}.80":
        return bytes(imagecodecs.jpegls_encode(unsigned))
    if syntax == f"{JPEG}.70":
        return bytes(imagecodecs.ljpeg_encode(unsigned, bitspersample=16))
    if syntax == f"{JPEG}.201":
        return bytes(imagecodecs.htj2k_encode(values, reversible=True))
    return bytes(imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True, level=0))


COMPRESSED = [f"{JPEG}.70", f"{JPEG}.80", f"{JPEG}.90", f"{JPEG}.201"]


@pytest.mark.parametrize("syntax", COMPRESSED)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("fragments", [1, 3])
def test_compressed_frames(grey, to_bytes, syntax, table, fragments):
    data = encapsulate(
        [encoded(frame, syntax) for frame in STACK], fragments_per_frame=fragments, has_bot=table
    )
    whole = to_bytes(grey(STACK, syntax=syntax, data=data))
    np.testing.assert_array_equal(read_stored(whole), STACK)
    np.testing.assert_array_equal(read_stored(whole, frame=1), STACK[1])


def test_an_extended_offset_table_says_which_fragment_is_which_frame(grey, to_bytes):
    order = [2, 0, 1]
    data, *tables = encapsulate_extended([encoded(frame, f"{JPEG}.80") for frame in STACK])
    offsets, lengths = (np.frombuffer(table, "<u8")[order].tobytes() for table in tables)
    dataset = grey(
        STACK,
        syntax=f"{JPEG}.80",
        data=data,
        ExtendedOffsetTable=offsets,
        ExtendedOffsetTableLengths=lengths,
    )
    np.testing.assert_array_equal(read_stored(to_bytes(dataset)), STACK[order])
    del dataset.ExtendedOffsetTableLengths  # half a table is none
    np.testing.assert_array_equal(read_stored(to_bytes(dataset)), STACK)


@pytest.mark.parametrize("signed", [True, False])
def test_rle_by_an_independent_encoder(grey, to_bytes, signed):
    dataset = grey(STACK if signed else STACK.view(np.uint16))
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    result = read_stored(to_bytes(dataset))
    np.testing.assert_array_equal(result, STACK if signed else STACK.view(np.uint16))
    assert repairs_of(dataset) == ()


def test_rle_keeps_unused_bits_which_are_then_dropped(grey):
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 85
    dataset = grey((values | 0xA000).astype(np.uint16), BitsStored=12, HighBit=11)
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    np.testing.assert_array_equal(read_stored(dataset), values)


def test_a_jpeg_2000_stream_that_calls_signed_samples_unsigned(grey, to_bytes):
    values = (RAMP // 2).astype(np.int16)
    stream = imagecodecs.jpeg2k_encode(
        (values.view(np.uint16) & 0x1FFF).astype(np.uint16),
        codecformat="j2k",
        reversible=True,
        level=0,
        bitspersample=13,
    )
    dataset = grey(
        values, syntax=f"{JPEG}.90", data=encapsulate([bytes(stream)]), BitsStored=13, HighBit=12
    )
    np.testing.assert_array_equal(read_stored(to_bytes(dataset)), values)
    assert repairs_of(dataset) == ("codestream_sign",)


def test_a_jpeg_2000_stream_that_calls_unsigned_samples_signed(grey, to_bytes):
    values = (np.arange(48, dtype=np.uint16) * 80).reshape(6, 8)
    stream = imagecodecs.jpeg2k_encode(
        (values.astype(np.int16) ^ 2048) - 2048,
        codecformat="j2k",
        reversible=True,
        level=0,
        bitspersample=12,
    )
    dataset = grey(
        values, syntax=f"{JPEG}.90", data=encapsulate([bytes(stream)]), BitsStored=12, HighBit=11
    )
    np.testing.assert_array_equal(read_stored(to_bytes(dataset)), values)
    assert repairs_of(dataset) == ("codestream_sign",)


def wide_stream(values: np.ndarray, syntax: str) -> bytes:
    """A codestream of 12 bits per sample."""
    if syntax.endswith(".51"):
        return bytes(imagecodecs.jpeg8_encode(values, level=60, bitspersample=12))
    if syntax.endswith(".70"):
        return bytes(imagecodecs.ljpeg_encode(values, bitspersample=12))
    if syntax.endswith((".80", ".81")):
        return bytes(imagecodecs.jpegls_encode(values))
    if syntax.endswith(".90"):
        return bytes(
            imagecodecs.jpeg2k_encode(
                values, codecformat="j2k", reversible=True, bitspersample=12, level=0
            )
        )
    return bytes(imagecodecs.htj2k_encode(values, reversible=True))


WIDE_SYNTAXES = [f"{JPEG}.{n}" for n in ("51", "70", "80", "81", "90", "201")]


@pytest.mark.parametrize("syntax", WIDE_SYNTAXES)
def test_a_stream_wider_than_bits_stored_keeps_its_values_and_is_flagged(grey, syntax):
    rng = np.random.default_rng(1)
    lossy = syntax.endswith(".51")
    values = rng.normal(1500, 12, (64, 64)) if lossy else rng.integers(0, 4096, (64, 64))
    values = values.astype(np.uint16)
    stream = wide_stream(values, syntax)
    dataset = grey(
        values, syntax=syntax, data=encapsulate([stream]), BitsStored=10, HighBit=9, Modality="CR"
    )
    difference = np.abs(read_stored(dataset).astype(int) - values)
    assert difference.max() <= (64 if lossy else 0)
    assert "codestream_wider" in repairs_of(dataset)


@pytest.mark.parametrize("syntax", WIDE_SYNTAXES)
def test_a_wide_stream_of_values_that_fit_is_nothing_to_flag(grey, syntax):
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 64 + 400
    dataset = grey(
        values,
        syntax=syntax,
        data=encapsulate([wide_stream(values, syntax)]),
        BitsStored=10,
        HighBit=9,
    )
    assert "codestream_wider" not in repairs_of(dataset)


def test_wide_signed_samples_of_a_stream_without_a_sign():
    layout = PixelFormat(1, 4, 1, 16, 10, 9, True, "")
    two_complement = np.array([[-1800, -3, 5, 1700]]) & 4095
    assert sample_values(two_complement.astype(np.uint16), 12, layout).tolist() == [
        [-1800, -3, 5, 1700]
    ]
    masked = np.array([[-500, -3, 5, 400]]) & 1023
    assert sample_values(masked.astype(np.uint16), 12, layout).tolist() == [[-500, -3, 5, 400]]


def test_lossy_overshoot_is_clipped_to_the_precision_of_the_stream():
    layout = PixelFormat(1, 3, 1, 16, 12, 11, False, "")
    assert sample_values(np.array([[0, 4095, 4100]], np.uint16), 12, layout).tolist() == [
        [0, 4095, 4095]
    ]


@pytest.mark.parametrize("syntax", [f"{JPEG}.70", f"{JPEG}.80", f"{JPEG}.201", f"{JPEG}.90"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_stream_that_breaks_off_is_refused(grey, syntax, share):
    rng = np.random.default_rng(0)
    noise = rng.integers(-2000, 2000, (64, 64)).astype(np.int16)
    stream = encoded(noise, syntax)
    cut = stream[: int(len(stream) * share)]
    with pytest.raises((TruncatedPixelData, DecodeFailed)):
        read_stored(grey(noise, syntax=syntax, data=encapsulate([cut])))


def test_a_stream_larger_than_its_header_is_refused_before_it_is_decoded(grey, monkeypatch):
    stream = encoded(np.zeros((64, 64), np.int16), f"{JPEG}.80")
    monkeypatch.setattr(pixels, "decode_frame", lambda *_: pytest.fail("decoded"))
    with raises_code(DecodeFailed, "decode_failed", "64 x 64"):
        read_stored(grey(RAMP, syntax=f"{JPEG}.80", data=encapsulate([stream])))


def test_more_bits_than_allocated_and_colour_streams_are_refused(grey):
    wide = encapsulate([encoded(RAMP, f"{JPEG}.80")])
    with raises_code(DecodeFailed, "decode_failed", "16 bits"):
        read_stored(grey(RAMP.astype(np.int8), syntax=f"{JPEG}.80", data=wide))
    colour = imagecodecs.jpeg8_encode(np.zeros((6, 8, 3), np.uint8))
    with raises_code(ColourImage, "colour", "3 components"):
        read_stored(
            grey(RAMP.astype(np.uint8), syntax=f"{JPEG}.50", data=encapsulate([bytes(colour)]))
        )


def test_a_fallback_decoder_is_named_as_a_repair(grey, monkeypatch):
    def fails(data, pixels):
        raise RuntimeError

    stream = encoded(RAMP, f"{JPEG}.90")
    dataset = grey(RAMP, syntax=f"{JPEG}.90", data=encapsulate([stream]))
    installed = codecs.decoders_for(f"{JPEG}.90")
    broken = (codecs.Decoder("broken", fails), *installed)
    for module in (codecs, pixels):
        monkeypatch.setattr(module, "decoders_for", lambda syntax: broken)
    np.testing.assert_array_equal(read_stored(dataset), RAMP)
    assert repairs_of(dataset) == ("fallback_decoder",)


def test_a_decoder_that_reports_no_damage_is_not_asked_after_a_failure(grey, monkeypatch):
    def fails(data, pixels):
        raise RuntimeError

    stream = encoded(RAMP, f"{JPEG}.201")
    dataset = grey(RAMP, syntax=f"{JPEG}.201", data=encapsulate([stream]))
    tolerant = [d for d in codecs.decoders_for(f"{JPEG}.201") if d.name in codecs.TOLERANT]
    assert tolerant
    monkeypatch.setattr(
        codecs, "decoders_for", lambda syntax: (codecs.Decoder("broken", fails), *tolerant)
    )
    with raises_code(DecodeFailed, "decode_failed"):
        read_stored(dataset)


MODULE = "bad_pixel_module"


@pytest.mark.parametrize(
    ("change", "error", "code", "mention"),
    [
        ({"Rows": None}, NoPixelData, "no_pixel_data", "Rows (0028,0010)"),
        ({"BitsAllocated": None}, NoPixelData, "no_pixel_data", "BitsAllocated (0028,0100)"),
        ({"PixelData": None}, NoPixelData, "no_pixel_data", "PixelData (7FE0,0010)"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            ColourImage,
            "colour",
            "(3 samples",
        ),
        (
            {"PhotometricInterpretation": "PALETTE COLOR"},
            ColourImage,
            "colour",
            "(1 samples",
        ),
        ({"PhotometricInterpretation": "YBR_FULL"}, ColourImage, "colour", "(1 samples"),
        ({"BitsAllocated": 1}, UnsupportedSyntax, "unsupported_syntax", "is 1;"),
        ({"BitsAllocated": 64}, UnsupportedSyntax, "unsupported_syntax", "is 64;"),
        ({"PixelRepresentation": None}, DecodeFailed, MODULE, "PixelRepresentation (0028,0103)"),
        ({"PixelRepresentation": 7}, DecodeFailed, MODULE, "PixelRepresentation (0028,0103)"),
        (
            {"BitsStored": 17, "HighBit": 16},
            DecodeFailed,
            MODULE,
            "BitsStored 17 and HighBit 16",
        ),
        (
            {"BitsStored": 12, "HighBit": 3},
            DecodeFailed,
            MODULE,
            "BitsStored 12 and HighBit 3",
        ),
        (
            {"Rows": 65535, "Columns": 65535},
            LimitExceeded,
            "limit_exceeded",
            f"{65535**2 * 2} bytes",
        ),
        ({"NumberOfFrames": 999_999_999}, LimitExceeded, "limit_exceeded", "536870912"),
    ],
)
def test_pixel_modules_that_make_no_sense_are_refused_by_name(grey, change, error, code, mention):
    dataset = grey(RAMP)
    for keyword, value in change.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    with raises_code(error, code, mention):
        read_stored(dataset)


def test_the_limit_is_the_size_of_all_frames(grey):
    with limited(inflated=STACK.nbytes):
        np.testing.assert_array_equal(read_stored(grey(STACK)), STACK)
    with limited(inflated=STACK.nbytes - 1), pytest.raises(LimitExceeded):
        read_stored(grey(STACK))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", None])
def test_stored_values_know_no_polarity(grey, photometric):
    np.testing.assert_array_equal(
        read_stored(grey(RAMP, PhotometricInterpretation=photometric)), RAMP
    )


def test_one_stored_bit(grey):
    bits = (RAMP > 0).astype(np.uint8)
    np.testing.assert_array_equal(read_stored(grey(bits | 0x40, BitsStored=1, HighBit=0)), bits)


def test_missing_bits_stored_is_repaired(grey):
    dataset = grey(RAMP, BitsStored=None, HighBit=None)
    np.testing.assert_array_equal(read_stored(dataset), RAMP)
    assert repairs_of(dataset) == ("missing_BitsStored", "missing_HighBit")


@pytest.mark.parametrize("syntax", [f"{JPEG}.100", f"{JPEG}.102", f"{JPEG}.94"])
def test_unsupported_syntaxes_are_named(grey, syntax):
    with raises_code(UnsupportedSyntax, "unsupported_syntax", syntax):
        read_stored(grey(RAMP, syntax=syntax, data=encapsulate([b"\0" * 20])))


def test_what_is_no_stream_or_has_no_end_is_said_to_be_so(grey):
    with raises_code(DecodeFailed, "decode_failed"):
        read_stored(grey(RAMP, syntax=f"{JPEG}.80", data=encapsulate([b"\0" * 20])))
    with raises_code(TruncatedPixelData, "truncated_pixels"):
        read_stored(
            grey(RAMP, syntax=f"{JPEG}.80", data=encapsulate([encoded(RAMP, f"{JPEG}.80")[:-2]]))
        )


@given(junk=st.binary(min_size=4, max_size=200))
def test_junk_in_a_stream_ends_in_a_named_reason(junk):
    """JPEG-LS and RLE only: decoders that take junk without harm to the process."""
    for syntax in (f"{JPEG}.80", codecs.RLE):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.PixelRepresentation = (
            4,
            4,
            16,
            0,
        )
        dataset.PixelData = encapsulate([junk])
        try:
            result = read_stored(dataset)
        except DicomError:
            continue
        assert result.shape == (4, 4)


def test_pixel_format_of_a_header(grey):
    layout, repairs = pixel_format(header_of(parse(grey(STACK), pixels=False)))
    assert layout == PixelFormat(6, 8, 3, 16, 16, 15, True, "1.2.840.10008.1.2.1")
    assert (layout.frame_bytes, repairs) == (96, ())

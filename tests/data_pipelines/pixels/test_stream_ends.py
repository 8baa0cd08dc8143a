"""Entropy-coded data must end where the last block ends: JPEG, JPEG-LS, JPEG 2000, HTJ2K, RLE."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from helpers import raises_code
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder

from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import DecodeFailed, PixelError
from data_pipelines.pixels.color import decode_color
from data_pipelines.pixels.jpeg_scan import check_jpeg_scan
from data_pipelines.pixels.rle_segments import check_rle_segments
from data_pipelines.pixels.stored_values import decode_stored_values, read_stored

JPEG = "1.2.840.10008.1.2.4"
RLE = "1.2.840.10008.1.2.5"
EOI = b"\xff\xd9"
DAMAGED = "damaged_codestream"
_y, _x = np.mgrid[:48, :40]
SMOOTH = (
    1000
    + 500 * np.sin(_x / 9)
    + 400 * np.cos(_y / 13)
    + np.random.default_rng(0).normal(0, 8, _x.shape)
).astype(np.uint16)


def streams() -> dict[str, bytes]:
    eight = (SMOOTH >> 4).astype(np.uint8)
    reversible = {"codecformat": "j2k", "reversible": True, "level": 0}
    made = {
        f"{JPEG}.50": imagecodecs.jpeg8_encode(eight, level=92),
        f"{JPEG}.51": imagecodecs.jpeg8_encode(SMOOTH, level=92, bitspersample=12),
        f"{JPEG}.57": imagecodecs.jpeg8_encode(eight, lossless=True),
        f"{JPEG}.70": imagecodecs.ljpeg_encode(SMOOTH, bitspersample=12),
        f"{JPEG}.80": imagecodecs.jpegls_encode(SMOOTH),
        f"{JPEG}.81": imagecodecs.jpegls_encode(SMOOTH, level=2),
        f"{JPEG}.90": imagecodecs.jpeg2k_encode(SMOOTH, **reversible),
        f"{JPEG}.201": imagecodecs.htj2k_encode(SMOOTH),
    }
    return {syntax: bytes(stream) for syntax, stream in made.items()}


STREAMS = streams()
HUFFMAN = [f"{JPEG}.{n}" for n in ("50", "51", "57", "70")]
JPEG_2000 = [f"{JPEG}.{n}" for n in ("90", "201")]


def dataset_of(grey, syntax: str, stream: bytes):
    wide = syntax not in (f"{JPEG}.50", f"{JPEG}.57")
    pixels = SMOOTH if wide else SMOOTH.astype(np.uint8)
    return grey(pixels, syntax=syntax, data=encapsulate([stream]))


def before_end(stream: bytes, *, cut: int = 0, extra: bytes = b"") -> bytes:
    """The stream with bytes taken away or added before its end marker; JPEG 2000's length of the
    tile-part follows.
    """
    body = stream[: stream.rindex(EOI)]
    changed = bytearray(body[: len(body) - cut] + extra + EOI)
    tile = stream.find(b"\xff\x90\x00\x0a")
    if stream[:2] == b"\xff\x4f" and tile > 0:
        changed[tile + 6 : tile + 10] = struct.pack(">L", len(changed) - 2 - tile)
    return bytes(changed)


@pytest.mark.parametrize("syntax", STREAMS)
def test_a_sound_stream_is_read_without_a_repair(grey, syntax):
    parsed = parse(dataset_of(grey, syntax, STREAMS[syntax]), pixels=True)
    assert decode_stored_values(parsed.dataset, header_of(parsed))[1] == ()


@pytest.mark.parametrize("syntax", STREAMS)
@pytest.mark.parametrize("cut", [2, 5, 40])
def test_a_stream_that_ends_before_its_last_block_is_refused(grey, syntax, cut):
    with pytest.raises(PixelError):
        read_stored(dataset_of(grey, syntax, before_end(STREAMS[syntax], cut=cut)))


@pytest.mark.parametrize("syntax", [s for s in STREAMS if s not in JPEG_2000])
def test_data_after_the_last_block_are_refused(grey, syntax):
    longer = before_end(STREAMS[syntax], extra=b"\x35\x92\x17")
    with pytest.raises(DecodeFailed):
        read_stored(dataset_of(grey, syntax, longer))


@pytest.mark.parametrize("syntax", JPEG_2000)
def test_data_after_the_last_tile_are_refused(grey, syntax):
    stream = STREAMS[syntax]
    with pytest.raises(DecodeFailed):
        read_stored(dataset_of(grey, syntax, stream[:-2] + b"\x35\x92\x17\x11" + EOI))


@pytest.mark.parametrize("syntax", HUFFMAN)
@pytest.mark.parametrize("fill", [b"\xff", b"\xff\xff\xff", b"\0", b"\0\0"])
def test_fill_before_the_end_and_anything_after_it_are_accepted(grey, syntax, fill):
    stream = STREAMS[syntax]
    expected = read_stored(dataset_of(grey, syntax, stream))
    filled = before_end(stream, extra=fill) + b"\0"
    np.testing.assert_array_equal(read_stored(dataset_of(grey, syntax, filled)), expected)


@pytest.mark.parametrize("syntax", STREAMS)
@pytest.mark.parametrize("tail", [b"\0" * 600, b"\xff" * 600, bytes(range(1, 255)) * 4])
def test_whatever_follows_the_end_marker_is_no_part_of_the_image(grey, syntax, tail):
    expected = read_stored(dataset_of(grey, syntax, STREAMS[syntax]))
    longer = dataset_of(grey, syntax, STREAMS[syntax] + tail)
    np.testing.assert_array_equal(read_stored(longer), expected)


COLOR = np.stack([(SMOOTH >> 4).astype(np.uint8)] * 3, axis=-1)
COLOR_STREAMS = {
    "444": bytes(imagecodecs.jpeg8_encode(COLOR, level=92, subsampling="444")),
    "422": bytes(imagecodecs.jpeg8_encode(COLOR[:, :37], level=92, subsampling="422")),
    "420": bytes(imagecodecs.jpeg8_encode(COLOR[:45], level=92, subsampling="420")),
    "lossless": bytes(imagecodecs.jpeg8_encode(COLOR, lossless=True)),
}


@pytest.mark.parametrize("name", COLOR_STREAMS)
def test_a_color_stream_is_checked_too(name):
    stream = COLOR_STREAMS[name]
    assert check_jpeg_scan(stream) == ()
    assert check_jpeg_scan(before_end(stream, extra=b"\xff\xff") + b"\1\2\3") == ()
    for damaged in (before_end(stream, cut=9), before_end(stream, extra=b"\x35\x92\x17")):
        with raises_code(DecodeFailed, DAMAGED):
            check_jpeg_scan(damaged)


def test_a_radiograph_of_a_truncated_color_stream_is_refused(grey):
    dataset = grey(COLOR[..., 0], syntax=f"{JPEG}.50", data=encapsulate([COLOR_STREAMS["444"]]))
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "YBR_FULL_422"
    dataset.PlanarConfiguration = 0
    header = header_of(parse(dataset, pixels=False))
    assert decode_color(dataset, header, 0).rgb.shape == COLOR.shape
    dataset.PixelData = encapsulate([before_end(COLOR_STREAMS["444"], cut=30)])
    with raises_code(DecodeFailed, DAMAGED):
        decode_color(dataset, header, 0)


def walk_by_definition(data: bytes) -> str:
    """The end of the data of a lossless JPEG stream, one bit at a time (F.2.2.3, H.2)."""
    start = data.index(b"\xff\xc4")
    counts = data[start + 5 : start + 21]
    symbols = iter(data[start + 21 : start + 21 + sum(counts)])
    codes, code = {}, 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            codes[f"{code:0{length}b}"] = next(symbols)
            code += 1
        code <<= 1
    position, coded = data.index(b"\xff\xda") + 10, bytearray()
    while data[position] != 0xFF or data[position + 1] == 0:
        coded.append(data[position])
        position += 2 if data[position] == 0xFF else 1
    if data[position + 1] != 0xD9:
        return DAMAGED
    bits, at = "".join(f"{byte:08b}" for byte in coded), 0
    for _ in range(SMOOTH.size):
        end = next((n for n in range(1, 17) if bits[at : at + n] in codes), None)
        if end is None:
            return DAMAGED
        at += end + codes[bits[at : at + end]] % 16
    left = bits[at:]
    whole = [left[n : n + 8] for n in range(len(left) % 8, len(left), 8)]
    if at > len(bits) or any(len(set(byte)) > 1 for byte in whole):
        return DAMAGED
    return "codestream_padding" if len(set(left[: len(left) % 8])) > 1 else ""


@pytest.mark.parametrize("seed", range(60))
def test_one_flipped_bit_against_a_walk_by_definition(seed):
    rng = np.random.default_rng(seed)
    stream = bytearray(STREAMS[f"{JPEG}.70"])
    stream[rng.integers(stream.index(b"\xff\xda") + 10, len(stream) - 2)] ^= 1 << rng.integers(8)
    try:
        finding = "".join(check_jpeg_scan(bytes(stream)))
    except DecodeFailed as error:
        finding = error.code
    assert finding == walk_by_definition(bytes(stream))


@pytest.mark.parametrize("syntax", [s for s in HUFFMAN if s != f"{JPEG}.57"])
def test_many_flipped_bits_of_huffman_coded_data_are_noticed(syntax):
    rng, stream, noticed = np.random.default_rng(0), STREAMS[syntax], 0
    first = stream.index(b"\xff\xda") + 10
    for _ in range(100):
        damaged = bytearray(stream)
        damaged[rng.integers(first, len(stream) - 2)] ^= 1 << rng.integers(8)
        try:
            noticed += bool(check_jpeg_scan(bytes(damaged)))
        except DecodeFailed:
            noticed += 1
    assert noticed >= 20


def test_a_marker_in_the_data_is_damage():
    stream = STREAMS[f"{JPEG}.70"]
    middle = len(stream) // 2
    for marker in (b"\xff\xc4", b"\xff\xd0", b"\xff\x30"):
        with raises_code(DecodeFailed, DAMAGED):
            check_jpeg_scan(stream[:middle] + marker + stream[middle + 2 :])


def rle_frame(pixels: np.ndarray) -> bytes:
    return RLELosslessEncoder.encode(
        pixels,
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=0,
        number_of_frames=1,
        photometric_interpretation="MONOCHROME2",
    )


def test_rle_segments_must_fill_their_plane_exactly(grey):
    frame = rle_frame(SMOOTH)
    size = SMOOTH.size
    check_rle_segments(frame, size)
    check_rle_segments(frame + b"\0\0", size)
    for damaged in (frame[:-8], frame + b"\x02\x35\x92\x17", frame[:40]):
        with raises_code(DecodeFailed, DAMAGED):
            check_rle_segments(damaged, size)
    header = bytearray(frame)
    header[64] ^= 4  # the length of the first run
    with raises_code(DecodeFailed, DAMAGED):
        read_stored(grey(SMOOTH, syntax=RLE, data=encapsulate([bytes(header)])))

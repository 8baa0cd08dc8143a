"""Reads stored pixel values, bit-exact, from every supported transfer syntax.

PS3.3 C.7.6.3 (pixel module), PS3.5 section 8 (encoding of pixels) and Annex A (transfer syntaxes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from data_pipelines.dicom.header import Header, header_of
from data_pipelines.dicom.reader import PARSER_ERRORS, DicomSource, parse, silence_pydicom
from data_pipelines.errors import (
    ColourImage,
    DecodeFailed,
    InputError,
    LimitExceeded,
    NoPixelData,
    TruncatedPixelData,
    UnsupportedSyntax,
)
from data_pipelines.pixels.codestream import JPEG_START, Codestream, read_codestream
from data_pipelines.pixels.decoders import RLE, PixelFormat, decode_frame, decoders_for, syntax_name
from data_pipelines.pixels.encapsulation import encapsulated_frames
from data_pipelines.pixels.jpeg_scan import check_jpeg_scan
from data_pipelines.pixels.rle_segments import check_rle_segments
from data_pipelines.runtime.limits import active_limits

Stored = NDArray[np.integer]

NATIVE = frozenset(
    map(
        str,
        (
            ImplicitVRLittleEndian,
            ExplicitVRLittleEndian,
            ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian,
        ),
    )
)
#: JPEG 2000: its decoders find the end of the image without the marker
_END_MARKER_OPTIONAL = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})


def read_stored(source: DicomSource, *, frame: int | None = None) -> Stored:
    """The stored values of a grayscale image, before any modality or VOI transform. Unused bits are
    removed and the sign is extended.

    source: a path, the bytes of a file, or a pydicom data set. frame: 0-based; None reads all.

    Returns integers (rows, columns) for a single frame, else (frames, rows, columns). The dtype has
    the size of BitsAllocated and the sign of PixelRepresentation.

    Raises a PixelError (NoPixelData, TruncatedPixelData, UnsupportedSyntax, DecodeFailed,
    ColourImage, LimitExceeded); NotDicom, Unreadable or Ineligible for the header; InputError
    (`no_such_frame`) for a frame that the file does not have.
    """
    parsed = parse(source, pixels=True)
    stored, _ = decode_stored_values(parsed.dataset, header_of(parsed), frame)
    return stored


def decode_stored_values(
    dataset: Dataset, header: Header, frame: int | None = None
) -> tuple[Stored, tuple[str, ...]]:
    """As `read_stored`, for a parsed data set and its header. Also returns the codes of repairs
    that decoding needed.
    """
    pixels, repairs = pixel_format(header)
    if frame is not None and not 0 <= frame < pixels.frames:
        raise InputError(
            f"Frame {frame} does not exist: the file has frames 0 to {pixels.frames - 1}.",
            code="no_such_frame",
        )
    if pixels.syntax not in NATIVE and not decoders_for(pixels.syntax):
        raise UnsupportedSyntax(
            f"There is no decoder for {syntax_name(pixels.syntax)}. Convert the file first."
        )
    data, vr, extended = pixel_elements(dataset)
    if pixels.syntax in NATIVE:
        stored, more = _native(data, vr, pixels, frame)
    else:
        stored, more = _encapsulated(data, extended, pixels, frame)
    single = frame is not None or pixels.frames == 1
    return (stored[0] if single else stored), repairs + more


def pixel_format(header: Header) -> tuple[PixelFormat, tuple[str, ...]]:
    """Check the pixel module of a header; also returns the codes of repairs. Raises NoPixelData,
    ColourImage, UnsupportedSyntax, LimitExceeded, DecodeFailed.
    """
    if not (header.rows and header.columns and header.bits_allocated):
        raise NoPixelData(
            "No image: Rows (0028,0010), Columns (0028,0011) or BitsAllocated (0028,0100) are "
            "missing."
        )
    if not header.is_grayscale:
        raise ColourImage(
            f"Color image ({header.samples_per_pixel} samples per pixel): it has no grayscale "
            f"stored values. To take its luminance, use read_image or medres ingest."
        )
    if header.bits_allocated not in (8, 16, 32):
        raise UnsupportedSyntax(
            f"BitsAllocated (0028,0100) is {header.bits_allocated}; supported: 8, 16 and 32."
        )
    if header.pixel_representation not in (0, 1):
        raise DecodeFailed(
            "PixelRepresentation (0028,0103) is neither 0 nor 1: the sign is unknown.",
            code="bad_pixel_module",
        )
    stored = header.bits_stored or header.bits_allocated
    high_bit = stored - 1 if header.high_bit is None else header.high_bit
    if not (0 < stored <= high_bit + 1 <= header.bits_allocated):
        raise DecodeFailed(
            f"BitsAllocated {header.bits_allocated}, BitsStored {stored} and HighBit {high_bit} "
            f"contradict each other.",
            code="bad_pixel_module",
        )
    size = header.rows * header.columns * header.frames * header.bits_allocated // 8
    if size > active_limits().inflated:
        raise LimitExceeded(
            f"The image would take {size} bytes; the limit is {active_limits().inflated}."
        )
    missing = {
        "missing_BitsStored": header.bits_stored is None,
        "missing_HighBit": header.high_bit is None,
    }
    pixels = PixelFormat(
        rows=header.rows,
        columns=header.columns,
        frames=header.frames,
        bits_allocated=header.bits_allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=header.pixel_representation == 1,
        syntax=header.transfer_syntax,
    )
    return pixels, tuple(code for code, absent in missing.items() if absent)


def cell_values(cells: NDArray[np.unsignedinteger], pixels: PixelFormat) -> Stored:
    """The values in pixel cells (PS3.5 section 8.1.1): two shifts drop the unused bits, which may
    contain anything (for example an overlay), and extend the sign.
    """
    left, right = (
        pixels.bits_allocated - 1 - pixels.high_bit,
        pixels.bits_allocated - pixels.bits_stored,
    )
    values = (cells << left if left else cells).view(pixels.dtype)
    return values >> right if right else values.copy()


def sample_values(samples: NDArray[np.integer], bits: int, pixels: PixelFormat) -> Stored:
    """The values of decoded samples of a codestream of `bits` per sample, with the sign of the
    header (PS3.5 A.4.2-A.4.4).

    The precision of the codestream counts, also where it exceeds BitsStored: no value is reduced
    to BitsStored. Samples beyond that precision (lossy overshoot) are clipped to it. A codestream
    may declare signed samples as unsigned: they are sign-extended from its precision, or from
    BitsStored where no sample has a higher bit set.
    """
    from_signed = samples.dtype.kind == "i"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if from_signed else (0, (1 << bits) - 1)
    if samples.min() < low or samples.max() > high:
        samples = np.clip(samples, low, high)
    if from_signed == pixels.signed:
        return samples.astype(pixels.dtype)
    if pixels.signed and bits > pixels.bits_stored and not samples.max() >> pixels.bits_stored:
        bits = pixels.bits_stored
    wide = samples.astype(np.int64) << (64 - bits)
    return (
        wide >> (64 - bits) if pixels.signed else wide.view(np.uint64) >> np.uint64(64 - bits)
    ).astype(pixels.dtype)


def exceeds_bits_stored(values: Stored, pixels: PixelFormat) -> bool:
    """Whether a value needs more bits than BitsStored."""
    span = 1 << pixels.bits_stored
    low, high = (-span // 2, span // 2 - 1) if pixels.signed else (0, span - 1)
    return bool(values.min() < low or values.max() > high)


def _native(
    data: bytes, vr: str, pixels: PixelFormat, frame: int | None
) -> tuple[Stored, tuple[str, ...]]:
    expected = pixels.frame_bytes * pixels.frames
    if len(data) < expected:
        raise TruncatedPixelData(
            f"There are {len(data)} bytes of pixel data; the header describes {expected}. Fetch "
            f"the file again."
        )
    if len(data) >= expected + pixels.frame_bytes:
        raise DecodeFailed(
            f"There are {len(data)} bytes of pixel data; NumberOfFrames is {pixels.frames}, with "
            f"{pixels.frame_bytes} bytes per frame. Correct the header.",
            code="frame_count",
        )
    first, count = (0, pixels.frames) if frame is None else (frame, 1)
    area = pixels.rows * pixels.columns
    cells = native_cells(data, vr, pixels, first=first * area, count=count * area)
    values = cell_values(cells.reshape(count, pixels.rows, pixels.columns), pixels)
    has_trailing_bytes = len(data) > expected + expected % 2
    return values, ("trailing_bytes",) if has_trailing_bytes else ()


def native_cells(
    data: bytes, vr: str, pixels: PixelFormat, *, first: int, count: int
) -> NDArray[np.unsignedinteger]:
    """`count` pixel cells of uncompressed data from number `first` on, in native byte order."""
    big = pixels.syntax == str(ExplicitVRBigEndian)
    if big and pixels.bits_allocated == 8 and vr == "OW":
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    n_bytes = pixels.bits_allocated // 8
    cells = np.frombuffer(
        data, f"{'>' if big else '<'}u{n_bytes}", count=count, offset=first * n_bytes
    )
    return cells.astype(cells.dtype.newbyteorder("="), copy=False)


def _encapsulated(
    data: bytes, extended: tuple[bytes, bytes] | None, pixels: PixelFormat, frame: int | None
) -> tuple[Stored, tuple[str, ...]]:
    frames, repairs = encapsulated_frames(data, pixels.frames, extended)
    chosen = frames if frame is None else [frames[frame]]
    codes = dict.fromkeys(repairs)
    stored = np.empty((len(chosen), pixels.rows, pixels.columns), pixels.dtype)
    for index, fragments in enumerate(chosen):
        stored[index], more = _decode_frame(b"".join(fragments), pixels)
        codes |= dict.fromkeys(more)
    return stored, tuple(codes)


def _decode_frame(data: bytes, pixels: PixelFormat) -> tuple[Stored, tuple[str, ...]]:
    """Decode one compressed frame. Its codestream is checked against the header before a decoder
    allocates memory.
    """
    if pixels.syntax == RLE:
        check_rle_segments(data, pixels.rows * pixels.columns)
        cells, name = decode_frame(data, pixels)
        values = cell_values(cells.view(f"u{pixels.bits_allocated // 8}"), pixels)
        return values, _fallback(name, pixels)
    stream = checked_codestream(data, pixels)
    padding = check_jpeg_scan(data) if data.startswith(JPEG_START) else ()
    samples, name = decode_frame(data, pixels)
    values = sample_values(samples, stream.precision, pixels)
    repairs = {
        "codestream_sign": stream.signed not in (None, pixels.signed),
        "codestream_wider": exceeds_bits_stored(values, pixels),
    }
    codes = tuple(code for code, present in repairs.items() if present)
    return values, codes + padding + _fallback(name, pixels)


def checked_codestream(data: bytes, pixels: PixelFormat) -> Codestream:
    """The parameters of a codestream that agrees with the header. Raises DecodeFailed, ColourImage,
    TruncatedPixelData.
    """
    stream = read_codestream(data)
    if stream is None:
        raise DecodeFailed("The frame does not start with a JPEG, JPEG-LS or JPEG 2000 codestream.")
    if (stream.rows, stream.columns) != (pixels.rows, pixels.columns):
        raise DecodeFailed(
            f"The codestream has {stream.rows} x {stream.columns} pixels, the header "
            f"{pixels.rows} x {pixels.columns}."
        )
    if stream.components != pixels.samples:
        raise ColourImage(
            f"The codestream has {stream.components} components, the header {pixels.samples}: "
            f"convert the image to grayscale."
        )
    if stream.precision > pixels.bits_allocated:
        raise DecodeFailed(
            f"The codestream has {stream.precision} bits per sample, BitsAllocated is "
            f"{pixels.bits_allocated}."
        )
    if not stream.complete and pixels.syntax not in _END_MARKER_OPTIONAL:
        raise TruncatedPixelData(
            "The codestream has no end-of-image marker: it ends early. Fetch the file again."
        )
    return stream


def _fallback(name: str, pixels: PixelFormat) -> tuple[str, ...]:
    return () if name == decoders_for(pixels.syntax)[0].name else ("fallback_decoder",)


def pixel_elements(dataset: Dataset) -> tuple[bytes, str, tuple[bytes, bytes] | None]:
    """The pixel data, their value representation, and the extended offset table with its lengths
    (None where there is none). Raises NoPixelData, DecodeFailed.
    """
    with silence_pydicom():
        try:
            element = dataset.get("PixelData") and dataset["PixelData"]
            tables = tuple(
                dataset.get(key) for key in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
            )
        except PARSER_ERRORS as error:
            raise DecodeFailed(
                f"PixelData (7FE0,0010) cannot be read ({type(error).__name__})."
            ) from None
    if not element or not isinstance(element.value, bytes | bytearray):
        raise NoPixelData(
            "There is no PixelData (7FE0,0010): the file is not an image, or its pixels were "
            "removed."
        )
    extended = tables if all(isinstance(table, bytes) and table for table in tables) else None
    return bytes(element.value), element.VR, extended

"""Stored pixel values, bit-exact: any supported transfer syntax in, plain integers out.

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
from data_pipelines.pixels.codestream import read_codestream
from data_pipelines.pixels.decoders import RLE, PixelFormat, decode_frame, decoders_for, syntax_name
from data_pipelines.pixels.encapsulation import encapsulated_frames
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
_FINDS_ITS_OWN_END = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})


def read_stored(source: DicomSource, *, frame: int | None = None) -> Stored:
    """Stored values of a grey image: sign and unused bits resolved, before any modality or VOI
    transform.

    `source`: a path, the bytes of a file, or a data set. Gives (rows, columns) for one frame, or
        where `frame` (0-based) is given, else (frames, rows, columns); the dtype is the smallest
        that BitsAllocated and PixelRepresentation ask for.
    Raises a PixelError (NoPixelData, TruncatedPixelData, UnsupportedSyntax, DecodeFailed,
    ColourImage, LimitExceeded), or NotDicom, Unreadable, Ineligible from the header.
    """
    parsed = parse(source, pixels=True)
    stored, _ = decode_stored_values(parsed.dataset, header_of(parsed), frame)
    return stored


def decode_stored_values(
    dataset: Dataset, header: Header, frame: int | None = None
) -> tuple[Stored, tuple[str, ...]]:
    """As `read_stored`, from a parsed data set and its header; also the codes of repairs made while
    decoding.
    """
    pixels, repairs = pixel_format(header)
    if frame is not None and not 0 <= frame < pixels.frames:
        raise InputError(
            f"Frame {frame} was asked for; the file has frames 0 to {pixels.frames - 1}."
        )
    if pixels.syntax not in NATIVE and not decoders_for(pixels.syntax):
        raise UnsupportedSyntax(
            f"No decoder is known for {syntax_name(pixels.syntax)}. Convert the file first."
        )
    data, vr, extended = pixel_elements(dataset)
    if pixels.syntax in NATIVE:
        stored, more = _native(data, vr, pixels, frame)
    else:
        stored, more = _encapsulated(data, extended, pixels, frame)
    single = frame is not None or pixels.frames == 1
    return (stored[0] if single else stored), repairs + more


def pixel_format(header: Header) -> tuple[PixelFormat, tuple[str, ...]]:
    """Check the pixel module. Raises NoPixelData, ColourImage, UnsupportedSyntax, LimitExceeded,
    DecodeFailed.
    """
    if not (header.rows and header.columns and header.bits_allocated):
        raise NoPixelData(
            "No image: Rows, Columns or BitsAllocated (0028,0010/0011/0100) are missing."
        )
    if header.samples_per_pixel != 1 or header.photometric not in (
        "MONOCHROME1",
        "MONOCHROME2",
        "",
    ):
        raise ColourImage(
            f"A colour image ({header.samples_per_pixel} samples a pixel); only grey images are "
            f"read."
        )
    if header.bits_allocated not in (8, 16, 32):
        raise UnsupportedSyntax(f"BitsAllocated is {header.bits_allocated}; 8, 16 and 32 are read.")
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
            f"contradict one another.",
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
    return pixels, tuple(code for code, true in missing.items() if true)


def cell_values(cells: NDArray[np.unsignedinteger], pixels: PixelFormat) -> Stored:
    """Values of pixel cells as PS3.5 section 8.1.1 lays them out: drop the unused bits, which may
    hold anything (an overlay, say), and extend the sign. Two shifts do both.
    """
    left, right = (
        pixels.bits_allocated - 1 - pixels.high_bit,
        pixels.bits_allocated - pixels.bits_stored,
    )
    values = (cells << left if left else cells).view(pixels.dtype)
    return values >> right if right else values.copy()


def sample_values(samples: NDArray[np.integer], bits: int, pixels: PixelFormat) -> Stored:
    """Values of decoded samples of `bits` significant bits, whose sign the codestream may not know
    (PS3.5 A.4.2-A.4.4).

    A stream that calls two's complement samples unsigned is sign-extended from its precision, or
    from BitsStored where that is less; one that calls unsigned samples signed is masked.
    """
    if samples.dtype.kind == pixels.dtype.kind and bits <= pixels.bits_stored:
        return samples.astype(pixels.dtype)
    unused = 64 - min(bits, pixels.bits_stored)
    wide = samples.astype(np.int64) << unused
    return (wide >> unused if pixels.signed else wide.view(np.uint64) >> np.uint64(unused)).astype(
        pixels.dtype
    )


def _native(
    data: bytes, vr: str, pixels: PixelFormat, frame: int | None
) -> tuple[Stored, tuple[str, ...]]:
    expected = pixels.frame_bytes * pixels.frames
    if len(data) < expected:
        raise TruncatedPixelData(
            f"{len(data)} bytes of pixel data where the header needs {expected}. Fetch the file "
            f"again."
        )
    if len(data) >= expected + pixels.frame_bytes:
        raise DecodeFailed(
            f"{len(data)} bytes of pixel data, but NumberOfFrames says {pixels.frames} of "
            f"{pixels.frame_bytes} bytes.",
            code="frame_count",
        )
    first, count = (0, pixels.frames) if frame is None else (frame, 1)
    big = pixels.syntax == str(ExplicitVRBigEndian)
    if big and pixels.bits_allocated == 8 and vr == "OW":
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    cells = np.frombuffer(
        data,
        f"{'>' if big else '<'}u{pixels.bits_allocated // 8}",
        count=count * pixels.rows * pixels.columns,
        offset=first * pixels.frame_bytes,
    ).reshape(count, pixels.rows, pixels.columns)
    native = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    return cell_values(native, pixels), ("trailing_bytes",) if len(
        data
    ) > expected + expected % 2 else ()


def _encapsulated(
    data: bytes, extended: tuple[bytes, bytes] | None, pixels: PixelFormat, frame: int | None
) -> tuple[Stored, tuple[str, ...]]:
    frames, repairs = encapsulated_frames(data, pixels.frames, extended)
    chosen = frames if frame is None else [frames[frame]]
    found: dict[str, None] = dict.fromkeys(repairs)
    stored = np.empty((len(chosen), pixels.rows, pixels.columns), pixels.dtype)
    for index, fragments in enumerate(chosen):
        stored[index], more = _decoded(b"".join(fragments), pixels)
        found.update(dict.fromkeys(more))
    return stored, tuple(found)


def _decoded(data: bytes, pixels: PixelFormat) -> tuple[Stored, tuple[str, ...]]:
    """One compressed frame; its codestream is checked against the header before a decoder may
    allocate.
    """
    if pixels.syntax == RLE:
        cells, name = decode_frame(data, pixels)
        return cell_values(cells.view(f"u{pixels.bits_allocated // 8}"), pixels), _fallback(
            name, pixels
        )
    stream = read_codestream(data)
    if stream is None:
        raise DecodeFailed("The frame does not start as a JPEG, JPEG-LS or JPEG 2000 stream does.")
    if (stream.rows, stream.columns) != (pixels.rows, pixels.columns):
        raise DecodeFailed(
            f"The codestream holds {stream.rows} x {stream.columns}, the header {pixels.rows} x "
            f"{pixels.columns}."
        )
    if stream.components != 1:
        raise ColourImage(
            f"The codestream holds {stream.components} components; only grey images are read."
        )
    if stream.precision > pixels.bits_allocated:
        raise DecodeFailed(
            f"The codestream holds {stream.precision} bits a sample, BitsAllocated "
            f"{pixels.bits_allocated}."
        )
    if not stream.complete and pixels.syntax not in _FINDS_ITS_OWN_END:
        raise TruncatedPixelData("The codestream has no end-of-image mark. Fetch the file again.")
    samples, name = decode_frame(data, pixels)
    codes = ("codestream_sign",) if stream.signed not in (None, pixels.signed) else ()
    return sample_values(samples, stream.precision, pixels), codes + _fallback(name, pixels)


def _fallback(name: str, pixels: PixelFormat) -> tuple[str, ...]:
    return () if name == decoders_for(pixels.syntax)[0].name else ("fallback_decoder",)


def pixel_elements(dataset: Dataset) -> tuple[bytes, str, tuple[bytes, bytes] | None]:
    """Pixel data, their value representation, and the extended offset table with its lengths if
    there is one.
    """
    with silence_pydicom():
        try:
            element = dataset.get("PixelData") and dataset["PixelData"]
            tables = tuple(
                dataset.get(key) for key in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
            )
        except PARSER_ERRORS as error:
            raise DecodeFailed(
                f"PixelData (7FE0,0010) cannot be read: {type(error).__name__}."
            ) from None
    if not element or not isinstance(element.value, bytes | bytearray):
        raise NoPixelData(
            "The file holds no PixelData (7FE0,0010): no image, or its pixels were left out."
        )
    extended = tables if all(isinstance(table, bytes) and table for table in tables) else None
    return bytes(element.value), element.VR, extended

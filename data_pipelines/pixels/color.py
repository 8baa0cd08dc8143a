"""Decodes DICOM images that store color (RGB, YBR, PALETTE COLOR) to red, green and blue.

PS3.3 C.7.6.3.1.2 (photometric interpretation), C.7.6.3.1.3 (planar configuration), C.7.6.3.1.5
(palette), PS3.5 8.2.1 (JPEG) and Annex G (RLE).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, convert_color_space

from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.header import Header
from data_pipelines.dicom.reader import PARSER_ERRORS, silence_pydicom
from data_pipelines.errors import (
    ColourImage,
    DecodeFailed,
    InputError,
    LimitExceeded,
    TruncatedPixelData,
    UnsupportedSyntax,
)
from data_pipelines.pixels.decoders import (
    JPEG_LOSSY,
    RLE,
    PixelFormat,
    decode_frame,
    decoders_for,
    syntax_name,
)
from data_pipelines.pixels.encapsulation import encapsulated_frames
from data_pipelines.pixels.rle_segments import check_rle_segments
from data_pipelines.pixels.stored_values import (
    NATIVE,
    cell_values,
    checked_codestream,
    decode_stored_values,
    native_cells,
    pixel_elements,
    pixel_format,
)
from data_pipelines.runtime.limits import active_limits

PALETTE = "PALETTE COLOR"
#: chroma that the decoder does not turn into RGB
_YBR = frozenset({"YBR_FULL", "YBR_FULL_422"})
_THREE_SAMPLES = _YBR | {"RGB", "YBR_RCT", "YBR_ICT"}


class ColorPixels(NamedTuple):
    """rgb: uint8 or uint16 (rows, columns, 3). maximum: the value of full intensity. repairs: codes
    of what was malformed and handled.
    """

    rgb: NDArray[np.integer]
    maximum: int
    repairs: tuple[str, ...]


def decode_color(dataset: Dataset, header: Header, frame: int) -> ColorPixels:
    """One frame of a color image. Raises the errors of decode_stored_values; ColourImage (`colour`)
    for a photometric interpretation or a palette that is not read.
    """
    if header.photometric == PALETTE and header.samples_per_pixel == 1:
        return _of_palette(dataset, header, frame)
    if header.samples_per_pixel != 3 or header.photometric not in _THREE_SAMPLES:
        raise ColourImage(
            f"Color image ({header.samples_per_pixel} samples per pixel) with another "
            f"PhotometricInterpretation (0028,0004) than RGB, YBR or PALETTE COLOR: convert it to "
            f"grayscale."
        )
    pixels, repairs = pixel_format(_as_grayscale(header))
    pixels = replace(pixels, samples=3)
    _check(pixels, frame)
    data, vr, extended = pixel_elements(dataset)
    if pixels.syntax in NATIVE:
        samples = _native(data, vr, dataset, pixels, header, frame)
        more: tuple[str, ...] = ()
    else:
        frames, more = encapsulated_frames(data, pixels.frames, extended)
        samples = _decode(b"".join(frames[frame]), pixels, header.photometric)
    if header.photometric in _YBR and pixels.syntax not in JPEG_LOSSY:
        samples = convert_color_space(samples, "YBR_FULL", "RGB")
    return ColorPixels(samples, (1 << pixels.bits_stored) - 1, repairs + more)


def _as_grayscale(header: Header) -> Header:
    return replace(header, samples_per_pixel=1, photometric="MONOCHROME2")


def _of_palette(dataset: Dataset, header: Header, frame: int) -> ColorPixels:
    stored, repairs = decode_stored_values(dataset, _as_grayscale(header), frame)
    with silence_pydicom():
        try:
            rgb = apply_color_lut(stored, dataset)
        except PARSER_ERRORS as error:
            raise ColourImage(
                f"Color image whose palette cannot be read ({type(error).__name__}): convert it to "
                f"grayscale."
            ) from None
    return ColorPixels(rgb, int(np.iinfo(rgb.dtype).max), repairs)


def _check(pixels: PixelFormat, frame: int) -> None:
    if not 0 <= frame < pixels.frames:
        raise InputError(
            f"Frame {frame} does not exist: the file has frames 0 to {pixels.frames - 1}.",
            code="no_such_frame",
        )
    if pixels.signed or pixels.bits_allocated > 16:
        raise UnsupportedSyntax(
            "Color image with signed samples, or with more than 16 bits per sample: convert it to "
            "grayscale."
        )
    if pixels.syntax not in NATIVE and not decoders_for(pixels.syntax):
        raise UnsupportedSyntax(
            f"There is no decoder for {syntax_name(pixels.syntax)}. Convert the file first."
        )
    if 3 * pixels.frame_bytes * pixels.frames > active_limits().inflated:
        raise LimitExceeded(
            f"The image would take {3 * pixels.frame_bytes * pixels.frames} bytes; the limit is "
            f"{active_limits().inflated}."
        )


def _native(
    data: bytes, vr: str, dataset: Dataset, pixels: PixelFormat, header: Header, frame: int
) -> NDArray[np.integer]:
    rows, columns = pixels.rows, pixels.columns
    halved = header.photometric == "YBR_FULL_422"
    per_frame = rows * columns * (2 if halved else 3)
    expected = per_frame * pixels.frames * pixels.bits_allocated // 8
    if len(data) < expected:
        raise TruncatedPixelData(
            f"There are {len(data)} bytes of pixel data; the header describes {expected}. Fetch "
            f"the file again."
        )
    cells = native_cells(data, vr, pixels, first=frame * per_frame, count=per_frame)
    values = cell_values(cells, pixels)
    if halved:
        return _from_422(values, rows, columns)
    with silence_pydicom():
        is_planar = Elements(dataset).integer("PlanarConfiguration") == 1
    if is_planar:
        return np.moveaxis(values.reshape(3, rows, columns), 0, -1)
    return values.reshape(rows, columns, 3)


def _from_422(values: NDArray[np.integer], rows: int, columns: int) -> NDArray[np.integer]:
    """Y1 Y2 Cb Cr for each two pixels -> Y Cb Cr for each pixel."""
    if columns % 2:
        raise DecodeFailed("YBR_FULL_422 needs an even number of columns.", code="bad_pixel_module")
    groups = values.reshape(rows, columns // 2, 4)
    y = groups[..., :2].reshape(rows, columns)
    cb, cr = (np.repeat(groups[..., n], 2, axis=1) for n in (2, 3))
    return np.stack([y, cb, cr], axis=-1)


def _decode(data: bytes, pixels: PixelFormat, photometric: str) -> NDArray[np.integer]:
    if pixels.syntax == RLE:
        check_rle_segments(data, pixels.rows * pixels.columns)
        cells, _ = decode_frame(data, pixels)
        return cell_values(cells.view(f"u{pixels.bits_allocated // 8}"), pixels)
    checked_codestream(data, pixels)
    if pixels.syntax in JPEG_LOSSY and not _names_its_color_space(data):
        pixels = replace(pixels, jpeg_color="RGB" if photometric == "RGB" else "YCBCR")
    samples, _ = decode_frame(data, pixels)
    return np.clip(samples, 0, (1 << pixels.bits_stored) - 1).astype(pixels.dtype)


def _names_its_color_space(data: bytes) -> bool:
    """Whether a JFIF or Adobe segment before the image tells the decoder what the channels are."""
    start = data[: data.find(b"\xff\xda")]
    return b"JFIF\0" in start or b"Adobe" in start

"""The decoders of compressed frames, by transfer syntax: imagecodecs first, then pydicom's plugins.

imagecodecs releases the interpreter lock, reads 12-bit JPEG, and was the fastest decoder for every
syntax that was measured. GDCM is not used: it is slow and writes to the terminal. pylibjpeg-rle is
not used: on damaged data it panics, which no `except` catches. OpenJPEG is asked before OpenJPH,
which does not report that a stream ends early. Processes 6, 8, 10 and 12 of JPEG
(.53, .55) are listed because they give the values of process 4 on the conformance files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, UID_dictionary

from data_pipelines.dicom.reader import PARSER_ERRORS, silence_pydicom
from data_pipelines.errors import DecodeFailed, UnsupportedSyntax

RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4"
#: their decoder turns YBR into RGB
JPEG_LOSSY = frozenset(f"{_JPEG}.{n}" for n in (50, 51, 53, 55))

#: transfer syntax -> functions of imagecodecs, in order of preference
IMAGECODECS: dict[str, tuple[str, ...]] = {
    RLE: ("dicomrle",),
    **dict.fromkeys((f"{_JPEG}.50", f"{_JPEG}.51", f"{_JPEG}.53", f"{_JPEG}.55"), ("jpeg8",)),
    **dict.fromkeys((f"{_JPEG}.57", f"{_JPEG}.70"), ("jpegsof3", "ljpeg")),
    **dict.fromkeys((f"{_JPEG}.80", f"{_JPEG}.81"), ("jpegls",)),
    **dict.fromkeys((f"{_JPEG}.90", f"{_JPEG}.91"), ("jpeg2k",)),
    **dict.fromkeys((f"{_JPEG}.201", f"{_JPEG}.202", f"{_JPEG}.203"), ("jpeg2k", "htj2k")),
}
#: Decoders that report no damage: OpenJPH gives arbitrary pixels for what it cannot read. They are
#: not asked once another decoder has failed.
TOLERANT = frozenset({"imagecodecs.htj2k"})
#: transfer syntax -> plugins of pydicom.pixels, and the package that each needs
PLUGINS: dict[str, tuple[tuple[str, str], ...]] = {
    RLE: (("pydicom", "pydicom"),),
    **dict.fromkeys((f"{_JPEG}.50", f"{_JPEG}.51"), (("pillow", "pillow"),)),
    **dict.fromkeys((f"{_JPEG}.80", f"{_JPEG}.81"), (("pyjpegls", "pyjpegls"),)),
    **dict.fromkeys(
        (f"{_JPEG}.90", f"{_JPEG}.91", f"{_JPEG}.201", f"{_JPEG}.202", f"{_JPEG}.203"),
        (("pylibjpeg", "pylibjpeg-openjpeg"),),
    ),
}
CODEC_ERRORS = (RuntimeError, ImportError, *PARSER_ERRORS)


@dataclass(frozen=True)
class PixelFormat:
    """The pixel module (C.7.6.3), after all checks.

    samples: 1, or 3 for color. jpeg_color: the color space of a JPEG that does not name it.
    """

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    syntax: str
    samples: int = 1
    jpeg_color: Literal["RGB", "YCBCR"] | None = None

    @property
    def dtype(self) -> np.dtype:
        """The integer type of BitsAllocated and PixelRepresentation, in native byte order."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all pixels of a frame."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a decoded frame: (rows, columns), or (rows, columns, 3) for color."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, 3)


@dataclass(frozen=True)
class Decoder:
    """Decodes one frame. `missing` is the package to install, None where the decoder can run.
    `color`: whether it gives RGB for a color image.
    """

    name: str
    decode: Callable[[bytes, PixelFormat], NDArray[np.integer]]
    missing: str | None = None
    color: bool = False


def decode_frame(data: bytes, pixels: PixelFormat) -> tuple[NDArray[np.integer], str]:
    """Decode one compressed frame with the first decoder that succeeds.

    Returns integer samples of `pixels.shape` and the name of the decoder. Raises UnsupportedSyntax
    when no decoder of the syntax is installed, and DecodeFailed when every installed one failed;
    both name all decoders, and the packages that are missing.
    """
    failures, failed = [], False
    usable = [d for d in decoders_for(pixels.syntax) if pixels.samples == 1 or d.color]
    for decoder in usable:
        if decoder.missing:
            failures.append(f"{decoder.name}: not installed (pip install {decoder.missing})")
            continue
        if failed and decoder.name in TOLERANT:
            continue
        try:
            samples = decoder.decode(data, pixels)
        except CODEC_ERRORS as error:
            failures.append(f"{decoder.name}: {type(error).__name__}")
            failed = True
            continue
        if samples.shape == pixels.shape and samples.dtype.kind in "iu":
            return samples, decoder.name
        # No other decoder is asked: some give the bytes of another image the shape of the header.
        failures.append(f"{decoder.name}: the shape is not {' x '.join(map(str, pixels.shape))}")
        break
    kind = DecodeFailed if any(not decoder.missing for decoder in usable) else UnsupportedSyntax
    raise kind(
        f"Pixel data in {syntax_name(pixels.syntax)} cannot be decoded. Tried: "
        f"{'; '.join(failures)}."
    )


@dataclass(frozen=True)
class Capability:
    """What this machine can decode: the installed decoders of one compressed transfer syntax, in
    order of preference, and the missing packages.
    """

    syntax: str
    name: str
    installed: tuple[str, ...]
    missing: tuple[str, ...]


def capabilities() -> list[Capability]:
    """One row per compressed transfer syntax that medres can read, in the order of IMAGECODECS.
    Uncompressed syntaxes need no decoder.
    """
    return [
        Capability(
            syntax=syntax,
            name=UID_dictionary[syntax][0],
            installed=tuple(
                decoder.name for decoder in decoders_for(syntax) if not decoder.missing
            ),
            missing=tuple(decoder.missing for decoder in decoders_for(syntax) if decoder.missing),
        )
        for syntax in IMAGECODECS
    ]


@cache
def decoders_for(syntax: str) -> tuple[Decoder, ...]:
    """All decoders of a transfer syntax in order of preference, installed or not."""
    return tuple(
        [_imagecodecs(name) for name in IMAGECODECS.get(syntax, ())]
        + [_plugin(name, package, syntax) for name, package in PLUGINS.get(syntax, ())]
    )


def _imagecodecs(name: str) -> Decoder:
    try:
        import imagecodecs

        available = getattr(imagecodecs, name.upper()).available
    except (ImportError, AttributeError):
        available = False
    decode = _decode_rle if name == "dicomrle" else _imagecodecs_function(name)
    return Decoder(f"imagecodecs.{name}", decode, None if available else "imagecodecs", color=True)


def _imagecodecs_function(name: str) -> Callable[[bytes, PixelFormat], NDArray[np.integer]]:
    options = {"numthreads": 1} if name == "jpeg2k" else {}

    def decode(data: bytes, pixels: PixelFormat) -> NDArray[np.integer]:
        import imagecodecs

        space = (
            {"colorspace": pixels.jpeg_color, "outcolorspace": "RGB"} if pixels.jpeg_color else {}
        )
        return getattr(imagecodecs, f"{name}_decode")(data, **options, **space)

    return decode


def _decode_rle(data: bytes, pixels: PixelFormat) -> NDArray[np.integer]:
    import imagecodecs

    dtype = np.dtype(f"<u{pixels.bits_allocated // 8}")
    raw = imagecodecs.dicomrle_decode(data, dtype.str)
    planes = np.frombuffer(raw, dtype).reshape(pixels.samples, pixels.rows, pixels.columns)
    return planes[0] if pixels.samples == 1 else np.ascontiguousarray(np.moveaxis(planes, 0, -1))


def _plugin(name: str, package: str, syntax: str) -> Decoder:
    available = name in get_decoder(UID(syntax)).available_plugins
    return Decoder(f"pydicom.{name}", _plugin_function(name), None if available else package)


def _plugin_function(plugin: str) -> Callable[[bytes, PixelFormat], NDArray[np.integer]]:
    def decode(data: bytes, pixels: PixelFormat) -> NDArray[np.integer]:
        options: dict[str, Any] = {  # pydicom annotates these as if each were all options
            "rows": pixels.rows,
            "columns": pixels.columns,
            "number_of_frames": 1,
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "bits_allocated": pixels.bits_allocated,
            "bits_stored": pixels.bits_stored,
            "pixel_representation": int(pixels.signed),
            "pixel_keyword": "PixelData",
        }
        with silence_pydicom():
            samples, _ = get_decoder(UID(pixels.syntax)).as_array(
                encapsulate([data]), raw=True, decoding_plugin=plugin, **options
            )
        return samples

    return decode


def syntax_name(syntax: str) -> str:
    """A transfer syntax as messages show it. Only registered UIDs are shown, since the element may
    contain any text.

    >>> syntax_name("1.2.840.10008.1.2.5")
    'RLE Lossless (1.2.840.10008.1.2.5)'
    """
    return (
        f"{UID_dictionary[syntax][0]} ({syntax})"
        if syntax in UID_dictionary
        else "a transfer syntax that is not registered in DICOM"
    )

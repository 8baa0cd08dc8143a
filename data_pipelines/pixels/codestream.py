"""The parameters that a compressed frame declares: size, precision, sign, components. They are
checked before a decoder runs.

ISO/IEC 10918-1 B.2.2 (JPEG), 14495-1 C.2.2 (JPEG-LS), 15444-1 A.5.1 (JPEG 2000, HTJ2K).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: the first bytes of a JPEG or JPEG-LS stream (SOI)
JPEG_START = b"\xff\xd8"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_SIZ = b"\xff\x4f\xff\x51"
_SOD = b"\xff\x93"


@dataclass(frozen=True)
class Codestream:
    """Parameters of one compressed frame.

    rows, columns: in pixels. precision: bits per sample. signed: None where the format does not say
    (only JPEG 2000 does). components: samples per pixel. complete: whether the end-of-image marker
    is there.
    """

    rows: int
    columns: int
    precision: int
    signed: bool | None
    components: int
    complete: bool


def read_codestream(data: bytes) -> Codestream | None:
    """Parameters of a JPEG, JPEG-LS or JPEG 2000 stream (also inside a JP2 box); None for anything
    else.
    """
    if data.startswith(JPEG_START):
        return _jpeg(data)
    start = data[:1024].find(_SIZ)
    return _jpeg2000(data, start) if start >= 0 else None


def _jpeg(data: bytes) -> Codestream | None:
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _BARE_MARKERS:
            position += 2
        elif marker in _FRAME_MARKERS:
            if position + 10 > len(data):
                return None
            precision, rows, columns, components = struct.unpack(
                ">BHHB", data[position + 4 : position + 10]
            )
            is_complete = _has_end(data, position)
            return Codestream(rows, columns, precision, None, components, is_complete)
        else:
            position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return None


def _jpeg2000(data: bytes, start: int) -> Codestream | None:
    if start + 43 > len(data):
        return None
    right, bottom, left, top = struct.unpack(">4L", data[start + 8 : start + 24])
    components, depth = struct.unpack(">HB", data[start + 40 : start + 43])
    return Codestream(
        bottom - top,
        right - left,
        (depth & 0x7F) + 1,
        bool(depth & 0x80),
        components,
        _has_end(data, max(data.find(_SOD, start), start)),
    )


def _has_end(data: bytes, start: int) -> bool:
    """Whether an end-of-image marker follows the header that begins at `start`; entropy-coded data
    cannot hold its two bytes. What comes after it does not belong to the image. Without this check
    a truncated stream would pass: libjpeg fills the missing part with gray and reports no error.
    """
    return data.find(b"\xff\xd9", start) >= 0

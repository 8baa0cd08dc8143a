"""Repairs of known defects in the bytes of a file that pydicom cannot parse. Each repair has a
code, and keeps every value that other readers (DCMTK, GDCM) would read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from data_pipelines.dicom.fast_reader import NonCanonicalEncoding, Scanner

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
_TRAILING_PADDING = b"\xfc\xff\xfc\xff"
_PIXEL_SEQUENCE = re.compile(rb"\xe0\x7f\x10\x00O[BW]\0\0\xff\xff\xff\xff(?=\xfe\xff\x00\xe0)")
_UNKNOWN_SEQUENCE = re.compile(rb"UN\0\0\xff\xff\xff\xff(?=\xfe\xff[\x00\xdd]\xe0)")
#: beginning of SpecificCharacterSet (0008,0005): explicit little endian, explicit big endian,
#: implicit; and the format of the length that follows
_CHARACTER_SETS = (
    (b"\x08\x00\x05\x00CS", "<H"),
    (b"\x00\x08\x00\x05CS", ">H"),
    (b"\x08\x00\x05\x00", "<L"),
)
_HEADER_BYTES = 1 << 16


def repaired_bytes(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a file after all repairs that apply, and their codes; the same bytes and no code
    where none applies.

    - invalid_SpecificCharacterSet: the value is not ASCII. It is blanked, which means the default
      character set.
    - unknown_sequence_left_out: an element of unknown representation (UN) and undefined length in
      big endian, whose items are implicit little endian (PS3.5 section 6.2.2).
    - missing_sequence_delimiter: the fragments of the pixel data are complete, but the item that
      ends them is missing or zeros (PS3.5 section A.4).
    """
    codes = []
    for code, repair in _REPAIRS.items():
        repaired = repair(data)
        if repaired is not None:
            data = repaired
            codes.append(code)
    return data, tuple(codes)


def _blank_character_set(data: bytes) -> bytes | None:
    for tag, format_of_length in _CHARACTER_SETS:
        start = data.find(tag, 0, _HEADER_BYTES) + len(tag)
        end = start + struct.calcsize(format_of_length)
        if start < len(tag) or end > len(data):
            continue
        (length,) = struct.unpack(format_of_length, data[start:end])
        value = data[end : end + length]
        if len(value) == length and not value.isascii():
            return data[:end] + b" " * length + data[end + length :]
    return None


def _without_unknown_sequences(data: bytes) -> bytes | None:
    match, remaining = _UNKNOWN_SEQUENCE.search(data), data
    while match is not None:
        try:
            after = Scanner(remaining, implicit=True, whole=True).end_of_sequence(match.end())
        except NonCanonicalEncoding:
            return None
        remaining = remaining[: match.start() - 4] + remaining[after:]
        match = _UNKNOWN_SEQUENCE.search(remaining)
    return None if remaining is data else remaining


def _with_sequence_delimiter(data: bytes) -> bytes | None:
    for match in _PIXEL_SEQUENCE.finditer(data):
        end = _end_of_fragments(data, match.end())
        rest = data[end:]
        rest = rest[8:] if rest[:8] == bytes(8) else rest
        if end > len(data):
            continue
        if rest.startswith(_TRAILING_PADDING):
            return data[:end] + _DELIMITER + rest
        if not any(rest) or _DELIMITER.startswith(rest):
            return data[:end] + _DELIMITER
    return None


def _end_of_fragments(data: bytes, position: int) -> int:
    """Where the last fragment ends; beyond the data where it is incomplete."""
    while data[position : position + 4] == _ITEM and position + 8 <= len(data):
        position += 8 + struct.unpack("<L", data[position + 4 : position + 8])[0]
    return position


_REPAIRS: dict[str, Callable[[bytes], bytes | None]] = {
    "invalid_SpecificCharacterSet": _blank_character_set,
    "unknown_sequence_left_out": _without_unknown_sequences,
    "missing_sequence_delimiter": _with_sequence_delimiter,
}

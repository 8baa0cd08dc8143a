"""Splits a data set that is written as the standard says into raw elements, in one pass over its
bytes.

PS3.5 section 7.1 (elements), 7.5 (sequences), A.4 (fragments). Every other encoding is left to
pydicom's reader, which handles damaged files but takes several times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from functools import lru_cache
from typing import cast

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    PrivateTransferSyntaxes,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from data_pipelines.errors import Unreadable
from data_pipelines.runtime.limits import active_limits

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_PIXEL_DATA, _CHARACTER_SET, _SYNTAX = 0x7FE00010, 0x00080005, 0x00020010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED, _FIRST = 0xFFFFFFFF, 0x00080000
_SHORT = {vr.encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_16}
_LONG = {vr.encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_32}
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_LEFT_TO_PYDICOM = frozenset(
    str(uid).encode()
    for uid in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, *PrivateTransferSyntaxes)
)
_base_tag = lru_cache(maxsize=4096)(BaseTag)
RawElements = dict[BaseTag, DataElement | RawDataElement]


class NonCanonicalEncoding(Exception):
    """The encoding is not the usual one, or the bytes end early. The caller then uses pydicom's
    reader; users never see this exception.
    """


def scan_file(data: bytes, whole: bool, pixels: bool, keep: Container[int] | None) -> Dataset:
    """The data set of a file's bytes with its meta header, as pydicom's `read_partial` returns it,
    except that every sequence is still raw.

    data: the `whole` file, or its beginning. pixels: False stops before the pixel data. keep: tags
    of the elements to keep (None: all). Raises NonCanonicalEncoding, and Unreadable
    (`duplicate_element`) where an element occurs twice in the data set or in an item of a sequence.
    """
    if data[128:132] != b"DICM":
        raise NonCanonicalEncoding
    meta, position = Scanner(data, implicit=False, whole=whole).elements(132, group=2)
    syntax = (meta[_base_tag(_SYNTAX)].value or b"").rstrip(b"\0 ") if _SYNTAX in meta else b""
    if not syntax or syntax in _LEFT_TO_PYDICOM:
        raise NonCanonicalEncoding
    implicit = syntax == ImplicitVRLittleEndian.encode()
    dataset = scan_dataset(data, position, implicit, pixels, keep, whole=whole)
    dataset.file_meta = FileMetaDataset(meta)
    dataset.file_meta.set_original_encoding(False, True, default_encoding)
    return dataset


def scan_dataset(
    data: bytes,
    position: int,
    implicit: bool,
    pixels: bool,
    keep: Container[int] | None,
    *,
    whole: bool = True,
) -> Dataset:
    """As `scan_file`, for a data set in little endian that starts at `position`."""
    elements, _ = Scanner(data, implicit, whole).elements(position, pixels=pixels, keep=keep)
    dataset = Dataset(elements)
    charset = dataset[_CHARACTER_SET].value if _CHARACTER_SET in elements else None
    dataset.set_original_encoding(
        implicit, True, convert_encodings(charset) if charset else default_encoding
    )
    return dataset


class Scanner:
    """Walks the little endian elements of `data`. Positions are byte offsets in `data`."""

    def __init__(self, data: bytes, implicit: bool, whole: bool) -> None:
        self.data, self.implicit, self.whole = data, implicit, whole
        self.depth = active_limits().depth

    def elements(
        self,
        position: int,
        *,
        group: int | None = None,
        pixels: bool = True,
        keep: Container[int] | None = None,
    ) -> tuple[RawElements, int]:
        """The elements from `position` on, of one `group` or up to the end, and where they end."""
        data, last = self.data, len(self.data)
        elements, earlier_tags = RawElements(), set[int]()
        after_pixels = False
        while position < last:
            if group and data[position : position + 2] != group.to_bytes(2, "little"):
                return elements, position
            tag, vr, start, length = self._head(position)
            if tag in PIXEL_TAGS and not pixels:
                return elements, position
            if (tag < _FIRST and not group) or (after_pixels and tag not in PIXEL_TAGS):
                # a command, a second meta header, or an element after the pixel data
                raise NonCanonicalEncoding
            after_pixels = after_pixels or tag in PIXEL_TAGS
            _check_unique(tag, earlier_tags)
            end, position = self._value(tag, vr, start, length, 0)
            if keep is None or tag in keep or tag == _CHARACTER_SET:
                name = "SQ" if length == _UNDEFINED and tag != _PIXEL_DATA else vr
                value = (
                    data[start:end]
                    if end > start
                    else cast("bytes | None", empty_value_for_VR(name, raw=True))
                )
                raw = RawDataElement(
                    _base_tag(tag), name, length, value, start, self.implicit, True
                )
                elements[raw.tag] = raw
        if not self.whole or not earlier_tags:
            raise NonCanonicalEncoding
        return elements, position

    def end_of_sequence(self, position: int) -> int:
        """Where a sequence of undefined length ends, delimiter included, whose first item is at
        `position`.
        """
        return self._items(position, _UNDEFINED, 0, fragments=False)[1]

    def _head(self, position: int) -> tuple[int, str | None, int, int]:
        """Tag, value representation (None for implicit VR), start and length of the value."""
        try:
            if self.implicit:
                group, number, length = _IMPLICIT(self.data, position)
                if group == 0xFFFE or _looks_explicit(self.data, position):
                    raise NonCanonicalEncoding
                return group << 16 | number, None, position + 8, length
            group, number, vr, length = _EXPLICIT(self.data, position)
            if vr in _SHORT:
                return group << 16 | number, _SHORT[vr], position + 8, length
            if vr not in _LONG:
                raise NonCanonicalEncoding
            (length,) = _LENGTH(self.data, position + 8)
            return group << 16 | number, _LONG[vr], position + 12, length
        except struct.error:
            raise NonCanonicalEncoding from None

    def _value(
        self, tag: int, vr: str | None, start: int, length: int, depth: int
    ) -> tuple[int, int]:
        """Where a value ends, and where the next element starts. Sequences are walked through."""
        if tag == _PIXEL_DATA and length == _UNDEFINED:
            if self.implicit or vr == "SQ" or depth:
                raise NonCanonicalEncoding
            return self._items(start, length, depth, fragments=True)
        sequence = tag in _SEQUENCES or length == _UNDEFINED if vr is None else vr == "SQ"
        if sequence:
            return self._items(start, length, depth, fragments=False)
        if start + length > len(self.data) or length == _UNDEFINED:
            raise NonCanonicalEncoding
        return start + length, start + length

    def _items(self, position: int, length: int, depth: int, *, fragments: bool) -> tuple[int, int]:
        """Walk through the items of a sequence, or the fragments of a compressed image."""
        last = len(self.data) if length == _UNDEFINED else position + length
        if last > len(self.data) or depth >= self.depth:
            raise NonCanonicalEncoding
        while position < last:
            tag, size = self._item_head(position)
            if tag == _SEQUENCE_END and length == _UNDEFINED:
                return position, position + 8
            if tag != _ITEM or (fragments and size == _UNDEFINED):
                raise NonCanonicalEncoding
            position += 8
            position = position + size if fragments else self._item(position, size, last, depth + 1)
        if position != last or length == _UNDEFINED:
            raise NonCanonicalEncoding
        return position, position

    def _item(self, position: int, length: int, last: int, depth: int) -> int:
        """Where an item ends. Raises Unreadable where one of its elements occurs twice."""
        end, earlier_tags = last if length == _UNDEFINED else position + length, set[int]()
        while position < end:
            if length == _UNDEFINED and self._item_head(position)[0] == _ITEM_END:
                return position + 8
            tag, vr, start, size = self._head(position)
            _check_unique(tag, earlier_tags)
            position = self._value(tag, vr, start, size, depth)[1]
        if position != end or length == _UNDEFINED:
            raise NonCanonicalEncoding
        return position

    def _item_head(self, position: int) -> tuple[int, int]:
        try:
            group, number, size = _IMPLICIT(self.data, position)
        except struct.error:
            raise NonCanonicalEncoding from None
        return group << 16 | number, size


_IMPLICIT = struct.Struct("<HHL").unpack_from
_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_LENGTH = struct.Struct("<L").unpack_from


def _check_unique(tag: int, earlier_tags: set[int]) -> None:
    if tag in earlier_tags:
        raise duplicate_element()
    earlier_tags.add(tag)


def duplicate_element() -> Unreadable:
    """The error for an element that occurs twice (PS3.5 section 7.1)."""
    return Unreadable(
        "An element occurs twice, and it is unknown which one is valid.", code="duplicate_element"
    )


def _looks_explicit(data: bytes, position: int) -> bool:
    """Whether the length of an element starts with two letters that are a value representation."""
    letters = data[position + 4 : position + 6]
    return letters in _SHORT or letters in _LONG

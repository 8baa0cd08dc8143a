"""A data set that is written as the standard says, cut into raw elements in one pass over its
bytes.

PS3.5 section 7.1 (elements), 7.5 (sequences), A.4 (fragments). Whatever is written in any other way
is left to pydicom's reader, which knows how files go wrong; it takes several times as long.
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
    """The bytes are not written in the plain way, or there are not enough of them: pydicom's reader
    must look.
    """


def scan_file(data: bytes, whole: bool, pixels: bool, keep: Container[int] | None) -> Dataset:
    """Data set of a file's bytes, with its meta header, as pydicom's `read_partial` gives it, but
    that every sequence is still raw.

    data: the `whole` file, or its beginning. pixels: False stops before the pixel data. keep: tags
        of the elements to keep (None: all). Raises Unusual; Unreadable (`duplicate_element`) where
        an element occurs twice in the data set or in an item of a sequence of it.
    """
    if data[128:132] != b"DICM":
        raise NonCanonicalEncoding
    meta, at = Scanner(data, implicit=False, whole=whole).elements(132, group=2)
    syntax = (meta[_base_tag(_SYNTAX)].value or b"").rstrip(b"\0 ") if _SYNTAX in meta else b""
    if not syntax or syntax in _LEFT_TO_PYDICOM:
        raise NonCanonicalEncoding
    implicit = syntax == ImplicitVRLittleEndian.encode()
    dataset = scan_dataset(data, at, implicit, pixels, keep, whole=whole)
    dataset.file_meta = FileMetaDataset(meta)
    dataset.file_meta.set_original_encoding(False, True, default_encoding)
    return dataset


def scan_dataset(
    data: bytes,
    at: int,
    implicit: bool,
    pixels: bool,
    keep: Container[int] | None,
    *,
    whole: bool = True,
) -> Dataset:
    """As `scan_file`, from the little endian bytes of a data set from `at` on."""
    found, _ = Scanner(data, implicit, whole).elements(at, pixels=pixels, keep=keep)
    dataset = Dataset(found)
    named = dataset[_CHARACTER_SET].value if _CHARACTER_SET in found else None
    dataset.set_original_encoding(
        implicit, True, convert_encodings(named) if named else default_encoding
    )
    return dataset


class Scanner:
    """Little endian elements of `data`."""

    def __init__(self, data: bytes, implicit: bool, whole: bool) -> None:
        self.data, self.implicit, self.whole, self.depth = (
            data,
            implicit,
            whole,
            active_limits().depth,
        )

    def elements(
        self,
        at: int,
        *,
        group: int | None = None,
        pixels: bool = True,
        keep: Container[int] | None = None,
    ) -> tuple[RawElements, int]:
        """The elements from `at` on, of `group` alone or up to the end, and where they end."""
        data, last, seen, found = self.data, len(self.data), set[int](), RawElements()
        behind = False
        while at < last:
            if group and data[at : at + 2] != group.to_bytes(2, "little"):
                return found, at
            tag, vr, start, length = self._head(at)
            if tag in PIXEL_TAGS and not pixels:
                return found, at
            if (tag < _FIRST and not group) or (behind and tag not in PIXEL_TAGS):
                # a command, a second meta header, or something behind the pixels
                raise NonCanonicalEncoding
            behind = behind or tag in PIXEL_TAGS
            _check_unique(tag, seen)
            end, at = self._value(tag, vr, start, length, 0)
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
                found[raw.tag] = raw
        if not self.whole or not seen:
            raise NonCanonicalEncoding
        return found, at

    def _head(self, at: int) -> tuple[int, str | None, int, int]:
        """Tag, value representation (None where it is implicit), start and length of the value."""
        try:
            if self.implicit:
                group, number, length = _IMPLICIT(self.data, at)
                if group == 0xFFFE or _looks_explicit(self.data, at):
                    raise NonCanonicalEncoding
                return group << 16 | number, None, at + 8, length
            group, number, vr, length = _EXPLICIT(self.data, at)
            if vr in _SHORT:
                return group << 16 | number, _SHORT[vr], at + 8, length
            if vr not in _LONG:
                raise NonCanonicalEncoding
            return group << 16 | number, _LONG[vr], at + 12, _LENGTH(self.data, at + 8)[0]
        except struct.error:
            raise NonCanonicalEncoding from None

    def _value(
        self, tag: int, vr: str | None, start: int, length: int, depth: int
    ) -> tuple[int, int]:
        """Where a value ends, and where the next element starts. Sequences are walked."""
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

    def _items(self, at: int, length: int, depth: int, *, fragments: bool) -> tuple[int, int]:
        """Walk the items of a sequence, or the fragments of a compressed image."""
        last = len(self.data) if length == _UNDEFINED else at + length
        if last > len(self.data) or depth >= self.depth:
            raise NonCanonicalEncoding
        while at < last:
            tag, size = self._item_head(at)
            if tag == _SEQUENCE_END and length == _UNDEFINED:
                return at, at + 8
            if tag != _ITEM or (fragments and size == _UNDEFINED):
                raise NonCanonicalEncoding
            at = at + 8 + size if fragments else self._item(at + 8, size, last, depth + 1)
        if at != last or length == _UNDEFINED:
            raise NonCanonicalEncoding
        return at, at

    def _item(self, at: int, length: int, last: int, depth: int) -> int:
        """Where an item ends. Raises Unreadable where one of its elements occurs twice."""
        end, seen = last if length == _UNDEFINED else at + length, set[int]()
        while at < end:
            if length == _UNDEFINED and self._item_head(at)[0] == _ITEM_END:
                return at + 8
            tag, vr, start, size = self._head(at)
            _check_unique(tag, seen)
            at = self._value(tag, vr, start, size, depth)[1]
        if at != end or length == _UNDEFINED:
            raise NonCanonicalEncoding
        return at

    def _item_head(self, at: int) -> tuple[int, int]:
        try:
            group, number, size = _IMPLICIT(self.data, at)
        except struct.error:
            raise NonCanonicalEncoding from None
        return group << 16 | number, size


_IMPLICIT = struct.Struct("<HHL").unpack_from
_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_LENGTH = struct.Struct("<L").unpack_from


def _check_unique(tag: int, seen: set[int]) -> None:
    if tag in seen:
        raise Unreadable(
            "An element occurs twice: which one holds is unknown.", code="duplicate_element"
        )
    seen.add(tag)


def _looks_explicit(data: bytes, at: int) -> bool:
    """Whether a length starts with two capital letters, as a value representation would."""
    return data[at + 4 : at + 6] in _SHORT or data[at + 4 : at + 6] in _LONG

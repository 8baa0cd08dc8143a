"""Typed values of single elements. A malformed optional element counts as absent, and its code is
added to `repairs`.

No value appears in a message. Code strings keep only what their value representation allows (PS3.5
section 6.2), so that they cannot contain free text. Raw ASCII values are read without pydicom's
conversion, which would take most of the time.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import MutableSequence
from functools import cache
from typing import Any, cast

from pydicom.charset import CODES_TO_ENCODINGS, decode_bytes, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import TEXT_VR_DELIMS

from data_pipelines.dicom.reader import PARSER_ERRORS

_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")
_AGE = re.compile(r"(\d{1,4})([DWMY]?)")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}
_TEXT_VRS = frozenset({"AS", "CS", "DA", "DS", "IS", "LO", "PN", "SH", "UI"})
_NAME_DELIMITERS = {*map(ord, "^=")}
_GB2312 = "\x1b$)A"  # pydicom leaves this escape in the text
_CHARSET_VRS = frozenset({"LO", "PN", "SH"})
_ESCAPE = b"\x1b"  # of ISO 2022: the bytes are ASCII, the text is not (PS3.5 6.1.2.5)
Position = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]

OLDEST_YEARS = 90.0
MAX_PLAUSIBLE_YEARS = 130


class Elements:
    """Reads the elements of a data set by keyword and collects the codes of malformed ones."""

    def __init__(self, dataset: Dataset, repairs: list[str] | None = None) -> None:
        """repairs: the list to which codes are added; None starts a new one."""
        self.dataset = dataset
        self._tags = dataset.keys()
        self.repairs: list[str] = [] if repairs is None else repairs

    def text(self, keyword: str) -> str:
        """The text, at most 64 printable characters; several values are joined by a backslash, and
        '' means absent.
        """
        joined = "\\".join(str(value) for value in self.values(keyword))
        printable = (
            joined if joined.isprintable() else "".join(c for c in joined if c.isprintable())
        )
        return printable.strip()[:64]

    def codes(self, keyword: str) -> tuple[str, ...]:
        """The values of a code string (VR CS) in upper case; an invalid one becomes ''."""
        codes = [str(value).strip().upper() for value in self.values(keyword)]
        return tuple(c if _CODE_STRING.fullmatch(c) else "" for c in codes) if any(codes) else ()

    def code(self, keyword: str) -> str:
        """The first value of a code string, or ''."""
        return next(iter(self.codes(keyword)), "")

    def integer(self, keyword: str) -> int | None:
        """The first value as an integer, or None."""
        number = self.number(keyword)
        return None if number is None else int(number)

    def number(self, keyword: str) -> float | None:
        """The first value as a finite number, or None."""
        numbers = self.numbers(keyword)
        return numbers[0] if numbers else None

    def numbers(
        self, keyword: str, count: int | None = None, *, positive: bool = False
    ) -> tuple[float, ...] | None:
        """All values as finite numbers. None where the element is absent, where it has not `count`
        values, or (`positive`) where one is not above 0.
        """
        values = self.values(keyword)
        if not values or values == [""]:
            return None
        try:
            numbers = tuple(float(value) for value in values)
        except (TypeError, ValueError):
            numbers = ()
        valid = bool(numbers) and all(math.isfinite(n) and (n > 0 or not positive) for n in numbers)
        if valid and count in (None, len(numbers)):
            return numbers
        self._malformed(keyword)
        return None

    def pair(self, keyword: str, *, positive: bool = False) -> tuple[float, float] | None:
        """Two numbers, as PixelSpacing has; see `numbers`."""
        return cast("tuple[float, float] | None", self.numbers(keyword, 2, positive=positive))

    def position(self) -> Position | None:
        """ImagePositionPatient: three numbers; see `numbers`."""
        return cast("Position | None", self.numbers("ImagePositionPatient", 3))

    def orientation(self) -> Orientation | None:
        """ImageOrientationPatient: six numbers; see `numbers`."""
        return cast("Orientation | None", self.numbers("ImageOrientationPatient", 6))

    def item(self, keyword: str) -> Dataset | None:
        """The first item of a sequence, or None."""
        items = self.items(keyword)
        return items[0] if items else None

    def items(self, keyword: str) -> list[Dataset]:
        """The items of a sequence; an empty list where it is absent."""
        return [item for item in self.values(keyword) if isinstance(item, Dataset)]

    def age_years(self) -> float | None:
        """PatientAge (VR AS) in years; an age over 89 becomes 90. None: absent or malformed."""
        text = self.text("PatientAge")
        age = _AGE.fullmatch(text)
        years = int(age[1]) * _YEARS[age[2]] if age else math.inf
        if years > MAX_PLAUSIBLE_YEARS:
            if text:
                self._malformed("PatientAge")
            return None
        if age and not age[2]:
            self.repairs.append("age_without_unit")
        return OLDEST_YEARS if years > 89 else years

    def values(self, keyword: str) -> list[Any]:
        """The values of an element; [] where it is absent, or malformed (see `repairs`)."""
        tag, vr = _tag_and_vr(keyword)
        if tag not in self._tags:
            return []
        try:
            raw = self.dataset.get_item(tag)
            if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes):
                if vr in _TEXT_VRS and raw.value.isascii() and _ESCAPE not in raw.value:
                    return raw.value.decode("ascii").rstrip(" \0").split("\\")
                if vr == "US":
                    return list(
                        struct.unpack(
                            f"{'<' if raw.is_little_endian else '>'}{len(raw.value) // 2}H",
                            raw.value,
                        )
                    )
                if vr in _CHARSET_VRS:
                    return self._decoded(raw.value, keyword)
            value = self.dataset[tag].value
        except PARSER_ERRORS:
            self._malformed(keyword)
            return []
        if value is None:
            return []
        return (
            list(value)
            if isinstance(value, MutableSequence) and not isinstance(value, bytearray)
            else [value]
        )

    def _decoded(self, value: bytes, keyword: str) -> list[str]:
        """The values of a text element in its character set; bytes that are no text in it are read
        one by one (code `undecodable_<Keyword>`), so that two texts never become equal.
        """
        charset = self.dataset.original_character_set or default_encoding
        declared = [charset] if isinstance(charset, str) else list(charset)
        encodings = [*declared, *CODES_TO_ENCODINGS.values()]  # an escape says its own encoding
        delimiters = _NAME_DELIMITERS if keyword == "PatientName" else TEXT_VR_DELIMS
        text = decode_bytes(value, encodings, delimiters).replace(_GB2312, "")
        if "\ufffd" in text:
            self._add(f"undecodable_{keyword}")
            text = value.decode("latin-1")
        return text.rstrip(" \0").split("\\")

    def _malformed(self, keyword: str) -> None:
        self._add(f"invalid_{keyword}")

    def _add(self, code: str) -> None:
        if code not in self.repairs:
            self.repairs.append(code)


@cache
def _tag_and_vr(keyword: str) -> tuple[BaseTag, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag), dictionary_VR(tag)

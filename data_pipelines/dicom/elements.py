"""Typed values of single elements: an optional one that is malformed counts as absent, and is named
in `repairs`.

No value is echoed anywhere. Code strings keep only what their value representation allows (PS3.5
section 6.2), so that none can carry free text. Raw ASCII values are read without pydicom's
conversion, which would take most of the time.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import MutableSequence
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from data_pipelines.dicom.reader import PARSER_ERRORS

_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")
_AGE = re.compile(r"(\d{1,4})([DWMY]?)")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}
_TEXT_VRS = frozenset({"AS", "CS", "DS", "IS", "LO", "SH", "UI"})
OLDEST_YEARS = 90.0


class Elements:
    """Reads a data set's elements by keyword and collects the code of each that was malformed."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._tags = dataset.keys()
        self.repairs: list[str] = []

    def text(self, keyword: str) -> str:
        """Text of at most 64 printable characters, several values joined by a backslash; '' when
        absent.
        """
        joined = "\\".join(str(value) for value in self.values(keyword))
        printable = (
            joined if joined.isprintable() else "".join(c for c in joined if c.isprintable())
        )
        return printable.strip()[:64]

    def codes(self, keyword: str) -> tuple[str, ...]:
        """Values of a code string (VR CS), in upper case; one that is no code string becomes ''."""
        found = [str(value).strip().upper() for value in self.values(keyword)]
        return tuple(v if _CODE_STRING.fullmatch(v) else "" for v in found) if any(found) else ()

    def code(self, keyword: str) -> str:
        """First value of a code string, or ''."""
        return next(iter(self.codes(keyword)), "")

    def integer(self, keyword: str) -> int | None:
        """First value as an integer, or None."""
        number = self.number(keyword)
        return None if number is None else int(number)

    def number(self, keyword: str) -> float | None:
        """First value as a finite number, or None."""
        numbers = self.numbers(keyword)
        return numbers[0] if numbers else None

    def numbers(
        self, keyword: str, count: int | None = None, *, positive: bool = False
    ) -> tuple[float, ...] | None:
        """All values, finite; None when absent, of another count, or (`positive`) not above
        zero.
        """
        values = self.values(keyword)
        if not values or values == [""]:
            return None
        try:
            found = tuple(float(value) for value in values)
        except (TypeError, ValueError):
            found = ()
        sound = bool(found) and all(math.isfinite(v) and (v > 0 or not positive) for v in found)
        if sound and count in (None, len(found)):
            return found
        self._malformed(keyword)
        return None

    def item(self, keyword: str) -> Dataset | None:
        """First item of a sequence, or None."""
        items = self.items(keyword)
        return items[0] if items else None

    def items(self, keyword: str) -> list[Dataset]:
        """Items of a sequence; an empty list when absent."""
        return [item for item in self.values(keyword) if isinstance(item, Dataset)]

    def age_years(self) -> float | None:
        """PatientAge (VR AS) in years; over 89 it is given as 90."""
        text = self.text("PatientAge")
        found = _AGE.fullmatch(text)
        years = int(found[1]) * _YEARS[found[2]] if found else math.inf
        if years > 130:
            if text:
                self._malformed("PatientAge")
            return None
        if found and not found[2]:
            self.repairs.append("age_without_unit")
        return OLDEST_YEARS if years > 89 else years

    def values(self, keyword: str) -> list[Any]:
        """Values of an element; [] when it is absent, or broken (then named)."""
        tag, vr = _tag_and_vr(keyword)
        if tag not in self._tags:
            return []
        try:
            raw = self.dataset.get_item(tag)
            if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes):
                if vr in _TEXT_VRS and raw.value.isascii():
                    return raw.value.decode("ascii").rstrip(" \0").split("\\")
                if vr == "US":
                    return list(
                        struct.unpack(
                            f"{'<' if raw.is_little_endian else '>'}{len(raw.value) // 2}H",
                            raw.value,
                        )
                    )
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

    def _malformed(self, keyword: str) -> None:
        code = f"invalid_{keyword}"
        if code not in self.repairs:
            self.repairs.append(code)


@cache
def _tag_and_vr(keyword: str) -> tuple[BaseTag, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag), dictionary_VR(tag)

"""Foreign text (names in model files, tables and DICOM) as it may be shown on a terminal: a control
character could move the cursor or color the screen, a bidirectional override could reorder what is
read.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

#: Control, surrogate, format, line and paragraph separator (https://unicode.org/reports/tr44).
_UNSAFE = frozenset({"Cc", "Cs", "Cf", "Zl", "Zp"})
#: Zero-width joiners are format characters that Persian and Indic words need.
_JOINERS = "\u200c\u200d"


def is_plain(text: str) -> bool:
    """Whether a text has no control, bidirectional or other invisible formatting character.

    >>> is_plain("Ödem"), is_plain("a\\x1b[2Jb"), is_plain("a\\u202eb")
    (True, False, False)
    """
    return text.isprintable() or all(map(_is_safe, text))


def escaped(text: str) -> str:
    r"""The text with a backslash escape in place of each character that `is_plain` excludes.

    >>> escaped("a\x1b[2Jb\n\u202ec")
    'a\\x1b[2Jb\\n\\u202ec'
    """
    return text if is_plain(text) else "".join(c if _is_safe(c) else ascii(c)[1:-1] for c in text)


def json_text(value: Any, **options: Any) -> str:
    r"""`json.dumps` without NaN, with JSON escapes in place of the characters that `is_plain`
    excludes; the values that a JSON parser reads are unchanged.

    >>> json_text("a\x7f\u202eb", ensure_ascii=False)
    '"a\\u007f\\u202eb"'
    """
    text = json.dumps(value, allow_nan=False, **options)
    return "\n".join(
        line if is_plain(line) else "".join(c if _is_safe(c) else _json_escape(c) for c in line)
        for line in text.split("\n")
    )


def _is_safe(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _UNSAFE


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def counted(count: int, noun: str) -> str:
    """The count and the noun in the right number.

    >>> counted(1, "image"), counted(3, "image"), counted(2, "study")
    ('1 image', '3 images', '2 studies')
    """
    plural = {"study": "studies", "series": "series"}.get(noun, f"{noun}s")
    return f"{count} {noun if count == 1 else plural}"

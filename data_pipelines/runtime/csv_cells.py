"""Cells of CSV files that a spreadsheet must not run as formulas."""

from __future__ import annotations

import re

_NUMBER = re.compile(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)? *", re.IGNORECASE)


def escape_formula(text: str) -> str:
    """Return `text` with an apostrophe before it if a spreadsheet would run it as a formula.

    Escaped is a cell whose first character, spaces apart, is = + - @, a tab or a carriage return.
    A number stays a number. See https://owasp.org/www-community/attacks/CSV_Injection.

    >>> escape_formula(" =1+1"), escape_formula("@x"), escape_formula("-0.5"), escape_formula("a=1")
    ("' =1+1", "'@x", '-0.5', 'a=1')
    """
    if _NUMBER.fullmatch(text):
        return text
    content = text.lstrip()
    white_space = text[: len(text) - len(content)]
    runs = content.startswith(("=", "+", "-", "@")) or "\t" in white_space or "\r" in white_space
    return f"'{text}" if runs else text

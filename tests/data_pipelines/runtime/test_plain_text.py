from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.runtime.plain_text import escaped, is_plain, json_text

HOSTILE = {
    "\x1b[2J": "\\x1b[2J",  # clears a terminal
    "\x1b]0;x\x07": "\\x1b]0;x\\x07",  # renames its window
    "a\rb\nc\td": "a\\rb\\nc\\td",
    "\x9b31m": "\\x9b31m",  # the same as ESC [ in eight bits
    "\x7f": "\\x7f",
    "\u202ea\u202c": "\\u202ea\\u202c",
    "\u2066a\u2069\u200f\u061c": "\\u2066a\\u2069\\u200f\\u061c",
    "\u2028\ufeff\u200b": "\\u2028\\ufeff\\u200b",
    "\udcff": "\\udcff",  # an undecodable byte of a file name
    "\U000e0041": "\\U000e0041",
}


def test_what_acts_on_a_terminal_is_escaped() -> None:
    for text, expected in HOSTILE.items():
        assert not is_plain(text)
        assert escaped(text) == expected
    for text in ("Ödem", "می\u200cخواهم", "肺炎", "a b.c/d", "\u00a0", ""):
        assert escaped(text) == text


@given(st.text(st.characters()))
def test_no_text_keeps_a_control_or_bidirectional_character(text: str) -> None:
    shown = escaped(text)
    assert is_plain(shown)
    assert escaped(shown) == shown
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(c) for c in shown} & {"RLO", "LRO", "RLE", "LRE", "RLI"}


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())), st.booleans())
def test_json_reads_back_the_same_values(value: dict, in_ascii: bool) -> None:
    text = json_text(value, ensure_ascii=in_ascii, indent=1)
    assert json.loads(text) == value
    assert all(map(is_plain, text.split("\n")))

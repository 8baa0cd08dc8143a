from __future__ import annotations

import pytest

from data_pipelines.runtime.csv_cells import escape_formula


@pytest.mark.parametrize(
    "text",
    ["=1+1", " =1+1", "\t=1", "\r=1", "\ttext", "\t1", "@x", " @x", "+x", "-x", "-1+1", "--1"],
)
def test_a_formula_is_escaped(text: str) -> None:
    assert escape_formula(text) == "'" + text


@pytest.mark.parametrize(
    "text", ["-1", "-0.5", "+1", " -1", "-.5", "-1.", "-1e-05", "+2.5E+3", "0"]
)
def test_a_number_stays_a_number(text: str) -> None:
    assert escape_formula(text) == text
    assert isinstance(float(text), float)


@pytest.mark.parametrize("text", ["", " ", "a=1", "x@y", "1-2", "'=1"])
def test_other_text_stays(text: str) -> None:
    assert escape_formula(text) == text

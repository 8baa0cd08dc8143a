from __future__ import annotations

from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import LabelError
from data_pipelines.labels.csv_reader import read_csv


def test_rows_are_counted_as_a_spreadsheet_does(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffa, b \r\n1," x"\r\n\r\n,"two\nlines"\r\n'.encode())
    table = read_csv(path)
    assert list(table.columns) == ["a", "b"]
    assert table.to_dict("index") == {2: {"a": "1", "b": "x"}, 4: {"a": "", "b": "two\nlines"}}


@pytest.mark.parametrize(
    ("content", "code", "mentioned"),
    [
        (b"", "no_header", ""),
        (b"\n1\n", "no_header", ""),
        (b"a,b\n", "no_rows", ""),
        (b"a,b\n,\n", "no_rows", ""),
        (b"a;b\n1;2\n", "semicolons", ""),
        (b"a,a\n1,2\n", "bad_header", ""),
        (b"a,\n1,2\n", "bad_header", ""),
        (b"a,b\n1,2\n\nCANARY\n", "ragged_row", "row 4"),
        (b'a,b\n1,"CANARY\n', "malformed_csv", ""),
        (b"a,b\n1,\xff\n", "not_utf8", ""),
    ],
)
def test_bad_tables_give_one_line_without_cells(
    tmp_path: Path, content: bytes, code: str, mentioned: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with raises_code(LabelError, code, mentioned) as caught:
        read_csv(path)
    assert "CANARY" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_table(tmp_path: Path) -> None:
    with raises_code(LabelError, "unreadable_table"):
        read_csv(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("content", "columns", "notes"),
    [
        (",a,b\n0,x,1\n1,y,0\n", ["a", "b"], ["column 1 of 3"]),
        (",a\n17,x\n3,y\n", ["a"], ["column 1 of 2"]),
        ("Unnamed: 0,a\n0,x\n1,y\n", ["a"], ["column 1 of 2"]),
        ("a,b,\nx,1,\ny,0,\n", ["a", "b"], ["column 3 of 3"]),
        ("a,b,,\nx,1\ny,0,\n", ["a", "b"], ["column 3 of 4", "column 4 of 4"]),
        ("a,b\nx,1,,\ny,0\n", ["a", "b"], []),
        ("a,,b\nx,1,0\ny,2,1\n", ["a", "b"], ["column 2 of 3"]),
    ],
)
def test_an_index_or_empty_column_without_a_name_is_left_out(
    tmp_path: Path, content: str, columns: list[str], notes: list[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    table = read_csv(path)
    assert list(table.columns) == columns
    assert table.iloc[0, 0] == "x"
    assert len(table.attrs["notes"]) == len(notes)
    assert all(note in text for note, text in zip(notes, table.attrs["notes"], strict=True))


def test_a_column_without_a_name_is_named_by_its_position(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("," * 28 + "a\n" + "0,CANARY" + "," * 27 + "\n")
    with raises_code(LabelError, "bad_header", "column 2 of 29"):
        read_csv(path)
    path.write_text("a,b,a\n1,2,3\n")
    with raises_code(LabelError, "bad_header", "columns 1, 3", "name a"):
        read_csv(path)
    path.write_text("a,b\n1,2,3\n")
    with raises_code(LabelError, "ragged_row", "row 2"):
        read_csv(path)

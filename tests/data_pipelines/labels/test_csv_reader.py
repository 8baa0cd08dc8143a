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

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from medres.errors import EvaluationError
from medres.evaluate.scores.table import load

SECRET = "Mustermann^Erika"


def csv(tmp_path: Path, text: str, name: str = "scores.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_binary_csv_keeps_ids_as_text_and_floats_exact(tmp_path: Path) -> None:
    table = load(
        csv(
            tmp_path,
            "image,patient,label,score,site\na,007,1,0.1,x\nb,7,0,0.30000000000000004,\nc,7,,1e-300,y\n",
        )
    )
    assert (table.task, table.names) == ("binary", ("positive",))
    assert table.columns["patient"].tolist() == ["007", "7", "7"]
    assert table.score["positive"].tolist() == [0.1, 0.30000000000000004, 1e-300]
    np.testing.assert_array_equal(table.label["positive"], [1, 0, np.nan])


def test_parquet_and_frame_agree_with_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": ["a", "b"], "label": [1, 0], "score": [0.2, 0.1]})
    frame.to_parquet(tmp_path / "s.parquet")
    frame.to_csv(tmp_path / "s.csv", index=False)
    tables = [load(frame), load(tmp_path / "s.parquet"), load(tmp_path / "s.csv")]
    assert (
        len({(t.task, tuple(t.score["positive"]), tuple(t.label["positive"])) for t in tables}) == 1
    )


def test_byte_order_mark_and_infinite_scores(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(b"\xef\xbb\xbflabel,score\n1,inf\n0,-inf\n")
    assert load(path).score["positive"].tolist() == [np.inf, -np.inf]


def test_multilabel_and_multiclass(tmp_path: Path) -> None:
    many = load(csv(tmp_path, "label:A,score:A,label:B,score:B\n1,.2,-1,.3\n,.1,0,.4\n"))
    assert (many.task, many.names) == ("multilabel", ("A", "B"))
    assert many.label["B"].tolist() == [-1, 0]
    classes = load(csv(tmp_path, "label,score:cat,score:dog\ncat,.9,.1\n,.5,.5\n"))
    assert (classes.task, classes.names) == ("multiclass", ("cat", "dog"))
    np.testing.assert_array_equal(classes.label["cat"], [1, np.nan])
    np.testing.assert_array_equal(classes.label["dog"], [0, np.nan])


def test_one_named_finding_is_binary_under_its_name(tmp_path: Path) -> None:
    table = load(csv(tmp_path, "label:Nodule,score:Nodule\n1,.2\n0,.1\n"))
    assert (table.task, table.names) == ("binary", ("Nodule",))


def test_refused_rows_keep_their_label_and_need_no_score(tmp_path: Path) -> None:
    table = load(csv(tmp_path, "label,score,status\n1,,refused\n0,0.4,scored\n1,0.7,failed\n"))
    np.testing.assert_array_equal(table.score["positive"], [np.nan, 0.4, np.nan])
    assert table.label["positive"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "code", "mentioned"),
    [
        ("label,score\n", "empty_table", "no rows"),
        ("", "empty_table", "header"),
        ("label;score\n1;0,5\n", "semicolons", "commas"),
        ("label,score,score\n1,.5,.5\n", "duplicate_column", "'score'"),
        ("label\n1\n", "missing_column", "it has 'label'"),
        ("label,score,score:a,score:b\n1,.1,.2,.3\n", "missing_column", "'score:a'"),
        ("label:a,label:b,score:a\n1,0,.1\n", "unpaired_column", "score:b"),
        (f"label,score\n1,.5\n{SECRET},.5\n", "bad_label", "row 3"),
        ("label,score\n2,.5\n", "bad_label", "0, 1, -1"),
        (f"label,score\n1,{SECRET}\n", "bad_score", "row 2"),
        ("label,score\n1,.5\n0,\n", "missing_score", "row 3"),
        ("label,score\n1,.5\n0,nan\n", "missing_score", "row 3"),
        ("label,score,status\n1,.5,unknown\n", "bad_status", "scored, refused or failed"),
        ("image,label,score\na,1,.5\na,0,.4\n", "duplicate_image", "row 3"),
        ("patient,label,score\n,1,.5\n", "missing_id", "'patient'"),
        ("label,score,weight\n1,.5,2\n", "unsupported_column", "'weight'"),
        ("label,score,stratum\n1,.5,2\n", "unsupported_column", "'stratum'"),
        (f"label,score:a,score:b\n{SECRET},.5,.5\n", "unknown_class", "score:<class>"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence_without_a_cell(
    tmp_path: Path, text: str, code: str, mentioned: str
) -> None:
    with raises_code(EvaluationError, code, mentioned) as raised:
        load(csv(tmp_path, text))
    assert "Mustermann" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rows_of_a_data_frame_are_counted_from_one() -> None:
    with raises_code(EvaluationError, "bad_label", "first: row 2)"):
        load(pd.DataFrame({"label": [1, 7], "score": [0.5, 0.5]}))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with raises_code(EvaluationError, "no_file", "absent.csv"):
        load(tmp_path / "absent.csv")
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    (tmp_path / "x.csv").write_bytes(b"label,score\n\xff\xfe\x00,1\n")
    for name in ("x.parquet", "x.csv"):
        with raises_code(EvaluationError, "unreadable_table", name):
            load(tmp_path / name)


def test_doubled_columns_of_a_frame_and_missing_patient_column() -> None:
    frame = pd.DataFrame([[1, 0.5, 0.6]], columns=["label", "score", "score"])
    with raises_code(EvaluationError, "duplicate_column"):
        load(frame)
    with raises_code(EvaluationError, "missing_column", "'subject'"):
        load(pd.DataFrame({"label": [1], "score": [0.5]}), patient="subject")


def test_named_patient_column_replaces_the_usual_one() -> None:
    frame = pd.DataFrame(
        {"label": [1, 0], "score": [0.5, 0.1], "subject": [1, 2], "patient": ["x", "x"]}
    )
    assert load(frame, patient="subject").columns["patient"].tolist() == ["1", "2"]


def test_repeated_images_are_allowed_with_a_seed_column() -> None:
    frame = pd.DataFrame(
        {"image": ["a", "a"], "seed": [1, 2], "label": [1, 1], "score": [0.5, 0.6]}
    )
    assert load(frame).n_rows == 2


def test_the_callers_frame_is_left_as_it_was() -> None:
    frame = pd.DataFrame({"label": [1, 0], "score": [0.5, 0.1], "patient": [1, 2]})
    before = frame.copy()
    load(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_labels_of_any_type_that_spell_the_same_thing() -> None:
    for labels in (
        [True, False],
        [1.0, 0.0],
        ["1", "0"],
        ["1.0", " 0 "],
        pd.Series([1, 0], dtype="Int64"),
    ):
        assert load(pd.DataFrame({"label": labels, "score": [0.5, 0.1]})).label[
            "positive"
        ].tolist() == [1, 0]
    numbered = pd.DataFrame(
        {"label": [0.0, 2.0, None], "score:0": [0.9, 0.1, 0.3], "score:2": [0.1, 0.9, 0.7]}
    )
    np.testing.assert_array_equal(load(numbered).label["2"], [0, 1, np.nan])

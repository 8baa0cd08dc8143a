from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from helpers import raises_code

from data_pipelines.errors import LabelError
from data_pipelines.labels.combination import read_label_tables, with_classes
from data_pipelines.labels.join import join_labels
from data_pipelines.labels.table import Labels

ROWS = pd.DataFrame(
    {
        "source": "/s",
        "path": ["a", "b", "c", "d"],
        "sop_uid": ["1.1", "1.2", "1.3", "1.4"],
        "series_uid": ["2.1", "2.1", "2.2", "2.2"],
        "study_uid": ["3.1", "3.1", "3.2", "3.3"],
        "patient_id": ["P1", "P1", "P2", "P3"],
        "accession_number": ["X1", "X1", "X2", "X2"],
        "issuer": "",
        "age": float("nan"),
        "sex": "",
        "view": "",
        "site": "",
    }
)


def tables(tmp_path: Path, *texts: str, **options: tuple[str, ...]) -> tuple[Labels, ...]:
    paths = [tmp_path / f"t{n}.csv" for n in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return read_label_tables(paths, **options)


def test_tables_with_different_keys_are_joined(tmp_path: Path) -> None:
    joined = join_labels(
        ROWS,
        tables(
            tmp_path,
            "path,f\na,1\nb,0\nzz,0\n",
            "patient_id,age,sex\nP1,50,F\nP9,60,M\n",
            "study_instance_uid,g\n3.2,1\n3.3,0\n",
        ),
    )
    rows, labels = joined.rows, joined.labels
    assert rows["label:f"].fillna(9).tolist() == [1, 0, 9, 9]
    assert rows["label:g"].fillna(9).tolist() == [9, 9, 1, 0]
    assert rows["age"].fillna(0).tolist() == [50, 50, 0, 0]
    assert rows["labeled"].tolist() == [True] * 4
    assert labels is not None
    assert (labels.findings, labels.task, labels.level) == (("f", "g"), "multilabel", "image")
    assert joined.unmatched_rows == ("t0.csv:4", "t1.csv:3")


def test_tables_of_the_same_columns_complete_each_other(tmp_path: Path) -> None:
    both = tables(
        tmp_path, "path,f,split\na,1,train\nb,0,train\n", "path,f,split\nc,1,test\nd,0,test\n"
    )
    rows = join_labels(ROWS, both).rows
    assert rows["label:f"].tolist() == [1, 0, 1, 0]
    assert rows["split"].tolist() == ["train", "train", "test", "test"]


def test_tables_that_contradict_each_other(tmp_path: Path) -> None:
    both = tables(tmp_path, "path,f\na,1\nb,0\n", "patient_id,f\nP1,1\nP2,0\n")
    with raises_code(LabelError, "tables_differ", "f:", "1 images"):
        join_labels(ROWS, both)


@pytest.mark.parametrize(
    ("texts", "findings", "code"),
    [
        (("path,f\na,1\nb,0\n", "path,age\na,50\n"), ("g",), "no_such_column"),
        (("path,age\na,5\n", "path,sex\na,F\n"), (), "no_finding"),
        (("path,f\na,1\nb,0\n", "path,class\na,x\nb,y\n"), (), "several_tasks"),
    ],
)
def test_tables_without_a_task(tmp_path: Path, texts, findings, code: str) -> None:
    with raises_code(LabelError, code):
        tables(tmp_path, *texts, findings=findings)


def test_an_accession_number_of_two_studies_labels_neither(tmp_path: Path) -> None:
    joined = join_labels(ROWS, tables(tmp_path, "accession_number,f\nX1,1\nX2,0\n"))
    assert joined.rows["label:f"].fillna(9).tolist() == [1, 1, 9, 9]
    assert joined.unmatched_rows == (3,)
    assert joined.labels is not None
    assert any("accession_number" in note and "2 images" in note for note in joined.labels.notes)


def test_a_series_uid_of_many_patients_labels_none(tmp_path: Path) -> None:
    rows = ROWS.assign(series_uid=["2.1", "2.1", "2.1", "2.1"], path=list("abcd"))
    (labels,) = tables(tmp_path, "series_instance_uid,f\n2.1,1\n")
    with raises_code(LabelError, "labels_unmatched"):
        join_labels(rows, labels)


def test_classes_are_dropped_and_merged(tmp_path: Path) -> None:
    (labels,) = tables(tmp_path, "path,class\na,x\nb,y\nc,z\nd,w\n")
    edited = with_classes(labels, ["w"], {"y": "other", "z": "other"})
    assert edited.classes == ("other", "x")
    assert edited.rows["class"].tolist() == ["x", "other", "other", ""]
    assert len(edited.notes) == 3
    for drop, merge in ((["q"], {}), ([], {"q": "x"})):
        with raises_code(LabelError, "no_such_class", "q"):
            with_classes(labels, drop, merge)
    (findings,) = tables(tmp_path, "path,f\na,1\nb,0\n")
    with raises_code(LabelError, "no_such_class"):
        with_classes(findings, ["f"], {})

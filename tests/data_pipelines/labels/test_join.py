from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from data_pipelines.errors import LabelError
from data_pipelines.labels.join import Joined, join_labels
from data_pipelines.labels.table import read_labels

ROWS = pd.DataFrame(
    {
        "source": ["/s", "/s", "/s", "/t"],
        "path": ["a.dcm", "b.dcm", "c/d.dcm", "e.dcm"],
        "sop_uid": ["1.1", "1.2", "1.3", "1.4"],
        "series_uid": ["2.1", "2.1", "2.2", "2.3"],
        "study_uid": ["3.1", "3.1", "3.1", "3.2"],
        "patient_id": ["P 1", "p1", "P1", "P2"],
        "issuer": ["", "", "", "X"],
        "age": [50.0, np.nan, 60.0, 70.0],
        "sex": ["M", "", "F", ""],
        "view": ["AP", "", "", ""],
        "site": ["", "", "", ""],
    }
)


def joined(tmp_path: Path, text: str, rows: pd.DataFrame = ROWS) -> Joined:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return join_labels(rows, read_labels(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,x\nb.dcm,1\n./c\\d.dcm,0\n", [None, 1, 0, None]),
        ("sop_instance_uid,x\n1.4,1\n1.1,-1\n", [-1, None, None, 1]),
        ("series_instance_uid,x\n2.1,1\n2.2,0\n", [1, 1, 0, None]),
        ("study_instance_uid,x\n3.1,1\n3.2,0\n", [1, 1, 1, 0]),
        ("patient_id,x\n p1,1\nP2,\n", [1, 1, 1, None]),
    ],
)
def test_every_key_finds_its_images(
    tmp_path: Path, text: str, expected: list[float | None]
) -> None:
    values = joined(tmp_path, text).rows["label:x"]
    assert values.dtype == np.float32
    assert [None if np.isnan(v) else v for v in values] == expected


def test_what_does_not_meet_is_counted(tmp_path: Path) -> None:
    result = joined(tmp_path, "path,x\nb.dcm,1\nnone.dcm,0\na.dcm,0\nother.dcm,0\n")
    assert result.unmatched_rows == (3, 5)
    assert result.rows["labeled"].tolist() == [True, True, False, False]


def test_the_table_overrides_the_header_where_it_says_something(tmp_path: Path) -> None:
    result = joined(
        tmp_path, "path,x,age,sex,view,site,meta:k\na.dcm,1,40,F,,n,v\nb.dcm,0,,,PA,,\n"
    ).rows
    assert result["age"].tolist()[:3:2] == [40, 60]
    assert np.isnan(result["age"].iloc[1])
    assert result["sex"].tolist() == ["F", "", "F", ""]
    assert result["view"].tolist() == ["AP", "PA", "", ""]
    assert result["site"].tolist() == ["n", "", "", ""]
    assert result["meta:k"].tolist() == ["v", "", "", ""]


def test_a_patient_of_the_table_replaces_id_and_issuer(tmp_path: Path) -> None:
    result = joined(tmp_path, "path,x,patient\na.dcm,1,\ne.dcm,0,New 9\n").rows
    assert result["person"].tolist() == ["p1", "p1", "p1", "new9"]
    assert result["issuer"].tolist() == ["", "", "", ""]


def test_without_labels(tmp_path: Path) -> None:
    result = join_labels(ROWS, None)
    assert result.rows["person"].tolist() == ["p1", "p1", "p1", "p2"]
    assert result.rows["issuer"].tolist() == ["", "", "", "x"]
    assert not result.rows["labeled"].any()


def test_classes_and_splits(tmp_path: Path) -> None:
    result = joined(tmp_path, "path,class,split\na.dcm,cat,train\nb.dcm,,test\n").rows
    assert result["class"].tolist() == ["cat", "", "", ""]
    assert result["split"].tolist() == ["train", "test", "", ""]


@pytest.mark.parametrize(
    ("text", "code", "mentioned"),
    [
        ("path,x\nCANARY,1\n", "labels_unmatched", ("path", "SOURCE")),
        ("sop_instance_uid,x\nCANARY,1\n", "labels_unmatched", ("sop_instance_uid",)),
        (
            "path,x\nb.dcm,0\na.dcm,1\n",
            "ambiguous_key",
            ("column path, row 3", "SOURCE", "rows of this kind: 1"),
        ),
        ("patient_id,x\nP2,0\nP1,1\n", "ambiguous_key", ("row 3", "IssuerOfPatientID")),
    ],
)
def test_keys_that_mean_nothing_or_two_things(
    tmp_path: Path, text: str, code: str, mentioned: tuple[str, ...]
) -> None:
    twin = ROWS.iloc[[0]].assign(source="/t", issuer="Y", sop_uid="9")
    with raises_code(LabelError, code, *mentioned) as caught:
        joined(tmp_path, text, pd.concat([ROWS, twin], ignore_index=True))
    assert "CANARY" not in str(caught.value)


def test_an_ambiguous_path_that_no_row_names_is_no_error(tmp_path: Path) -> None:
    twin = ROWS.iloc[[0]].assign(source="/t", sop_uid="9")
    result = joined(tmp_path, "path,x\nb.dcm,1\n", pd.concat([ROWS, twin], ignore_index=True))
    assert result.rows["labeled"].tolist() == [False, True, False, False, False]

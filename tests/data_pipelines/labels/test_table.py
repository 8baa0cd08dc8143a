from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import LabelError
from data_pipelines.labels.table import DICOM_KEYWORDS, Labels, read_labels


def read(tmp_path: Path, text: str, **options: tuple[str, ...]) -> Labels:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_labels(path, **options)


@pytest.mark.parametrize(
    ("key", "level"),
    [
        ("path", "image"),
        ("sop_instance_uid", "image"),
        ("series_instance_uid", "series"),
        ("study_instance_uid", "study"),
        ("patient_id", "patient"),
    ],
)
def test_key_gives_the_level(tmp_path: Path, key: str, level: str) -> None:
    labels = read(tmp_path, f"nodule,{key}\n1,a\n0,b\n")
    assert (labels.key, labels.level, labels.task, labels.findings) == (
        key,
        level,
        "binary",
        ("nodule",),
    )


def test_the_first_key_of_the_list_wins_and_the_others_are_ignored(tmp_path: Path) -> None:
    labels = read(tmp_path, "sop_instance_uid,x,path\np,1,a\nq,0,b\n")
    assert (labels.key, labels.ignored) == ("path", ("sop_instance_uid",))


def test_values_of_findings(tmp_path: Path) -> None:
    labels = read(tmp_path, "path,a,b\n1,1,0\n2,-1,\n3,0.0,1.0\n4,-1.0,0\n")
    assert labels.task == "multilabel"
    assert labels.rows["label:a"].tolist() == [1, -1, 0, -1]
    assert [None if math.isnan(v) else v for v in labels.rows["label:b"]] == [0, None, 1, 0]


def test_detection_leaves_other_columns(tmp_path: Path) -> None:
    labels = read(
        tmp_path,
        "path,age,sex,view,site,meta:x,a,count,note,empty\n1,1,M,PA,n,1,1,7,hello,\n2,0,F,AP,s,0,0,1,,\n",
    )
    assert labels.findings == ("a",)
    assert labels.ignored == ("count", "note", "empty")
    assert set(labels.columns) == {"label:a", "age", "sex", "view", "site", "meta:x"}


def test_named_findings(tmp_path: Path) -> None:
    labels = read(tmp_path, "path,a,b\n1,1,0\n2,0,1\n", findings=("b",))
    assert (labels.findings, labels.ignored) == (("b",), ("a",))
    with raises_code(LabelError, "no_such_column", "path, a, b"):
        read(tmp_path, "path,a,b\n1,1,0\n", findings=("c",))


def test_classes(tmp_path: Path) -> None:
    labels = read(tmp_path, "path,class\n1,zebra\n2,ant\n3,\n")
    assert (labels.task, labels.classes, labels.findings) == ("multiclass", ("ant", "zebra"), ())
    assert labels.rows["class"].tolist() == ["zebra", "ant", ""]


def test_subgroup_columns(tmp_path: Path) -> None:
    labels = read(tmp_path, "path,a,age,sex\n1,1,89,male\n2,0,89.5,F\n3,1,,unknown\n")
    assert labels.rows["age"].tolist()[:2] == [89, 90]
    assert math.isnan(labels.rows["age"].iloc[2])
    assert labels.rows["sex"].tolist() == ["M", "F", ""]


def test_a_coded_sex_is_no_finding(tmp_path: Path) -> None:
    labels = read(tmp_path, "path,nodule,Gender,Patient Age\nx,1,0,1\ny,0,1,0\n")
    assert labels.findings == ("nodule",)
    assert labels.ignored == ("Gender", "Patient Age")


def test_equal_rows_count_once(tmp_path: Path) -> None:
    labels = read(tmp_path, "path,a\nx,1\n./x,1\ny\\z,0\ny/z,0\n")
    assert labels.rows["key"].tolist() == ["x", "y/z"]
    assert labels.repeated_rows == 2


def test_an_empty_split_column_is_no_split(tmp_path: Path) -> None:
    assert "split" not in read(tmp_path, "path,a,split\nx,1,\ny,0,\n").columns


@pytest.mark.parametrize(
    ("text", "code", "mentioned"),
    [
        ("name,a\nx,1\n", "no_key_column", ("name, a",)),
        ("Path,a\nx,1\n", "no_key_column", ("'Path'", "to path")),
        ("Patient ID,a\nx,1\n", "no_key_column", ("'Patient ID'", "to patient_id")),
        ("a,Study Instance UID\n1,x\n", "no_key_column", ("to study_instance_uid",)),
        ("file name,Gender\nx,1\n", "no_key_column", ("'file name'", "to path")),
        ("path,Class\nx,b\n", "no_finding", ("'Class'", "to class")),
        ("path,a\n,1\n", "empty_key", ("column path, row 2",)),
        ("path,a\nx,1\ny,0\nz,CANARY\n", "bad_label", ("column a, row 4",)),
        ("path,note\nx,CANARY\n", "no_finding", ("--finding",)),
        ("path,class,a\nx,CANARY,1\n", "several_tasks", ("--finding",)),
        ("path,a\nx,1\nCANARY,1\nCANARY,0\n", "duplicate_key", ("row 4",)),
        ("patient_id,a\nCANARY 1,1\ncanary1,0\n", "duplicate_key", ("row 3",)),
        ("path,a,age\nx,1,CANARY\n", "bad_cell", ("column age, row 2",)),
        ("path,a,age\nx,1,131\ny,1,-1\n", "bad_cell", ("column age, row 2", "1 more row")),
        ("path,a,age\nx,1,nan\n", "bad_cell", ("column age, row 2",)),
        ("path,a,sex\nx,1,CANARY\n", "bad_cell", ("column sex, row 2",)),
        ("path,a,split\nx,1,train\ny,0,CANARY\n", "bad_cell", ("column split, row 3",)),
        ("path,a,split\nx,1,train\ny,0,\n", "bad_cell", ("column split, row 3",)),
        ("path,class\nx,Canary\ny,b\nz,CANARY\n", "class_spelling", ("column class, row 2",)),
        ("path,class\nx," + "CANARY" * 11 + "\n", "bad_cell", ("column class, row 2",)),
    ],
)
def test_bad_labels_name_column_and_row_and_no_cell(
    tmp_path: Path, text: str, code: str, mentioned: tuple[str, ...]
) -> None:
    with raises_code(LabelError, code, *mentioned) as caught:
        read(tmp_path, text)
    assert "canary" not in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_named_finding_with_text_names_the_cell(tmp_path: Path) -> None:
    with raises_code(LabelError, "bad_label", "column note, row 2"):
        read(tmp_path, "path,note\nx,CANARY\n", findings=("note",))


def test_other_spellings_are_read_and_counted(tmp_path: Path) -> None:
    cells = ["True", "false", "YES", "no", "NA", "nan", "1.0", "0.00", "-1", "1", ""]
    labels = read(tmp_path, "path,f\n" + "".join(f"{n},{c}\n" for n, c in enumerate(cells)))
    values = labels.rows["label:f"].fillna(9).tolist()
    assert values == [1, 0, 1, 0, 9, 9, 1, 0, -1, 1, 9]
    assert labels.spellings == {"f": {"true_false": 2, "yes_no": 2, "na": 2, "decimal": 2}}
    assert sum("f 2" in note for note in labels.notes) == 4


@pytest.mark.parametrize("name", ["male", "Fold", "train", "is_test", "sex_m", "portable"])
def test_a_covariate_is_a_finding_only_by_name(tmp_path: Path, name: str) -> None:
    text = f"path,pneumonia,{name}\na,0,1\nb,1,0\nc,1,1\n"
    labels = read(tmp_path, text)
    assert labels.findings == ("pneumonia",)
    assert name in labels.ignored
    assert any(name in note and "--finding" in note for note in labels.notes)
    assert read(tmp_path, text, findings=("pneumonia", name)).findings == ("pneumonia", name)
    with raises_code(LabelError, "no_finding", name):
        read(tmp_path, f"path,{name}\na,1\nb,0\n")


def test_a_constant_column_is_a_finding_only_by_name(tmp_path: Path) -> None:
    text = "path,x,y,z\na,0,1,\nb,1,1,0\nc,1,,0\n"
    labels = read(tmp_path, text)
    assert labels.findings == ("x",)
    assert any("constant: y, z" in note for note in labels.notes)
    assert read(tmp_path, text, findings=("x", "z")).findings == ("x", "z")
    assert read(tmp_path, "path,y\na,1\nb,1\n").findings == ("y",)


def test_an_accession_number_is_the_key_of_a_study(tmp_path: Path) -> None:
    labels = read(tmp_path, "accession_number,f\nA 1,1\nB2,0\n")
    assert (labels.key, labels.level) == ("accession_number", "study")
    assert labels.rows["key"].tolist() == ["a1", "b2"]
    both = "patient_id,accession_number,f\nP,A1,1\n{},B2,0\n"
    assert read(tmp_path, both.format("Q")).key == "patient_id"
    assert read(tmp_path, both.format("P")).key == "accession_number"


def test_a_class_that_is_not_given_is_no_class(tmp_path: Path) -> None:
    labels = read(tmp_path, "patient_id,class\n1,a\n2,NA\n3,none\n4,nan\n5,\n")
    assert labels.classes == ("a", "none")
    assert labels.rows["class"].tolist() == ["a", "", "none", "", ""]
    assert any(note.endswith("class 2") for note in labels.notes)


@pytest.mark.parametrize(("keyword", "name"), list(DICOM_KEYWORDS.items()))
def test_a_key_may_have_its_dicom_keyword(tmp_path: Path, keyword: str, name: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"{keyword},pneumonia\n1.2.3,1\n1.2.4,0\n")
    labels = read_labels(path)
    assert (labels.key, labels.rows["key"].tolist()) == (name, ["1.2.3", "1.2.4"])
    assert f"column {keyword} is read as {name}" in labels.notes

"""The labels table: what a person wrote about the images, checked cell by cell.

Values of a finding: 1 present, 0 absent, -1 uncertain, empty not assessed. An error names a column
and a row as a spreadsheet counts them; it never quotes a cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.cells import (
    SPELLINGS,
    is_covariate,
    is_no_class,
    is_number,
    label_value,
    spellings,
)
from data_pipelines.labels.csv_reader import read_csv
from data_pipelines.labels.raters import POLICIES, Readers, ReadersRecord, reconcile
from data_pipelines.labels.task import TaskName, label_task
from data_pipelines.pseudonyms import normalise_patient_id
from data_pipelines.splits.stratified import SPLITS

Level = Literal["image", "series", "study", "patient"]

KEYS: dict[str, Level] = {
    "path": "image",
    "sop_instance_uid": "image",
    "series_instance_uid": "series",
    "study_instance_uid": "study",
    "patient_id": "patient",
    "accession_number": "study",
}
#: DICOM keyword -> the key that it is
DICOM_KEYWORDS = {
    "SOPInstanceUID": "sop_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "StudyInstanceUID": "study_instance_uid",
    "PatientID": "patient_id",
    "AccessionNumber": "accession_number",
}
SUBGROUP_COLUMNS = ("age", "sex", "view", "site")
#: other names of the three splits -> ours
SPLIT_ALIASES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "tune"),
    **{"training": "train", "testing": "test"},
}
#: names of our columns and other names for them, in lower case without punctuation -> ours
COLUMN_ALIASES = {
    **{
        n.replace("_", ""): n
        for n in (*KEYS, *SUBGROUP_COLUMNS, "split", "patient", "class", "reader")
    },
    **dict.fromkeys(
        ("file", "filename", "filepath", "image", "imagefile", "imagename", "imagepath"), "path"
    ),
    **dict.fromkeys(("accession", "accessionno"), "accession_number"),
    **dict.fromkeys(("patientage", "ageyears"), "age"),
    **dict.fromkeys(("patientsex", "gender", "patientgender"), "sex"),
    **dict.fromkeys(("viewposition", "projection"), "view"),
    **dict.fromkeys(("subset", "partition"), "split"),
}
#: ages over 89 years identify people (HIPAA safe harbor, 45 CFR 164.514): they become this one
AGE_OVER_89 = 90.0
_SEXES = {
    "m": "M",
    "male": "M",
    "f": "F",
    "female": "F",
    "o": "O",
    "other": "O",
    "u": "",
    "unknown": "",
    "": "",
}


@dataclass(frozen=True, eq=False)
class Labels:
    """A checked labels table.

    rows: one row per key. The index holds the spreadsheet's row numbers; the columns are key,
        label:<finding> (float64) or class (str), and, where given, age (float64), sex, view, site,
        split, patient and meta:* (str). Equal rows are kept once.
    ignored: columns that are not used. notes: what else was left out or read otherwise than it is
        written, as sentences. spellings: finding -> kind of spelling -> cells. name: of the
        file, one of several tables. repeated_rows: how many equal rows were left out.
    readers: how several rows of one key were combined; None if they must not differ.
    """

    rows: pd.DataFrame
    key: str
    level: Level
    task: TaskName
    findings: tuple[str, ...]
    classes: tuple[str, ...] | None
    ignored: tuple[str, ...]
    repeated_rows: int
    readers: ReadersRecord | None = None
    notes: tuple[str, ...] = ()
    spellings: dict[str, dict[str, int]] = field(default_factory=dict)
    name: str = ""

    @property
    def has_labels(self) -> bool:
        """Whether the table has findings or classes; beside other tables it may have none."""
        return bool(self.findings) or self.classes is not None

    @property
    def row_names(self) -> list[str | int]:
        """The spreadsheet's row numbers; after the name of the file where the table has one."""
        return [f"{self.name}:{n}" if self.name else int(n) for n in self.rows.index]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column except the key."""
        return tuple(str(name) for name in self.rows if name != "key")


def read_labels(
    path: Path | str,
    *,
    findings: Sequence[str] = (),
    readers: Readers = "error",
    beside_others: bool = False,
) -> Labels:
    """Read a labels CSV.

    The key is the first present column of KEYS, also under its DICOM keyword (see DICOM_KEYWORDS);
    accession_number comes before a patient_id that several rows share. `findings` names the finding
    columns; without it they are the columns that contain only 0, 1, -1 and empty cells (see
    label_value for other spellings), or the text column `class`. Covariates (see is_covariate) and
    constant columns are findings only if named.
    `readers` says how several rows of one key are combined: see reconcile. beside_others: other
    tables may have the findings that this one lacks.

    Raises LabelError: no_key_column, no_finding, no_such_column, duplicate_key, bad_label, bad_cell
    and others name the reason in `.code`; the message names the column and the row, never a cell.
    """
    path = Path(path)
    table, keyword_notes = _with_keys_by_keyword(read_csv(path))
    key = _key_column(table, path)
    notes = [*table.attrs["notes"], *keyword_notes]
    names = tuple(dict.fromkeys(findings))
    if beside_others:
        names = tuple(name for name in names if name in table)
    if not findings:
        names, more_notes = _detect_findings(table, path, beside_others=beside_others)
        notes += more_notes
    absent = [name for name in names if name not in table]
    if absent:
        raise LabelError(
            f"{path} has no column {', '.join(absent)}. Its columns: {', '.join(table.columns)}.",
            code="no_such_column",
        )
    columns: dict[str, pd.Series] = {"key": table[key].map(lambda cell: normalise_key(key, cell))}
    classes = None
    written = {name: spellings(table[name]) for name in names if name != "class"}
    if names == ("class",):
        is_absent = table["class"].map(is_no_class)
        if is_absent.any():
            notes.append(f"cells {SPELLINGS['na']}: class {int(is_absent.sum())}")
        columns["class"] = table["class"].mask(is_absent, "")
        classes = _class_names(columns["class"], path)
    else:
        columns |= {f"label:{name}": _finding_values(table[name], path) for name in names}
    columns |= metadata_columns(table, path)
    if key == "patient_id":
        columns.pop("patient_id", None)
    used = {*names, key, "reader", *columns}
    rows = pd.DataFrame(columns)
    record: ReadersRecord | None = None
    if readers == "error":
        distinct = rows.drop_duplicates()
        _require(
            ~distinct["key"].duplicated(),
            path,
            key,
            "an earlier row has the same key and other values. If several readers labeled it, "
            f"choose --readers {', '.join(POLICIES)}",
            code="duplicate_key",
        )
    else:
        distinct, record = reconcile(rows, readers, path)
    return Labels(
        rows=distinct,
        key=key,
        level=KEYS[key],
        task=label_task(len(names), classes=classes is not None).name,
        findings=() if classes is not None else names,
        classes=classes,
        ignored=tuple(str(name) for name in table if name not in used),
        repeated_rows=len(rows) - len(distinct) if record is None else 0,
        readers=record,
        notes=(*notes, *_spelling_notes(written)),
        spellings={name: counts for name, counts in written.items() if counts},
    )


def normalise_key(key: str, cell: str) -> str:
    """Return the form in which a key of the table equals the key of an image.

    >>> normalise_key("path", "./train\\\\a.dcm"), normalise_key("patient_id", " P 1")
    ('train/a.dcm', 'p1')
    """
    if key in ("patient_id", "accession_number"):
        return normalise_patient_id(cell)
    return str(PurePosixPath(cell.replace("\\", "/"))) if key == "path" else cell


def canonical_column(name: Hashable) -> str | None:
    """Return which of our columns a differently written name stands for, if any.

    >>> canonical_column("Patient ID"), canonical_column("Gender"), canonical_column("comment")
    ('patient_id', 'sex', None)
    """
    return COLUMN_ALIASES.get(re.sub(r"[^a-z0-9]", "", str(name).lower()))


def metadata_columns(table: pd.DataFrame, path: Path) -> dict[str, pd.Series]:
    """Return the checked columns beside the labels: age, sex, view, site, split, patient, meta:*.

    Without a column patient, patient_id names the patients of files that have no identifier.
    Raises LabelError (code bad_cell).
    """
    columns: dict[str, pd.Series] = {}
    if "age" in table:
        valid = table["age"].map(lambda c: c == "" or (is_number(c) and 0 <= float(c) <= 130))
        _require(valid, path, "age", "not a number of years from 0 to 130")
        ages = table["age"].map(lambda c: float(c) if c else math.nan)
        columns["age"] = ages.map(lambda age: AGE_OVER_89 if age > 89 else age)
    if "sex" in table:
        sexes = table["sex"].str.lower()
        _require(sexes.isin(list(_SEXES)), path, "sex", "not M, F, O or empty")
        columns["sex"] = sexes.map(_SEXES)
    if "split" in table and (table["split"] != "").any():
        splits = table["split"].str.lower().map(SPLIT_ALIASES)
        _require(splits.notna(), path, "split", "not train, tune (or validation) or test")
        columns["split"] = splits
    patient = "patient" if "patient" in table else "patient_id"
    for name in table:
        if name in ("view", "site", patient) or str(name).startswith("meta:"):
            columns[str(name)] = table[name]
    return columns


def _with_keys_by_keyword(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with the columns that are named by a DICOM keyword under our names, and a note for
    each.
    """
    names = {
        keyword: name
        for keyword, name in DICOM_KEYWORDS.items()
        if keyword in table and name not in table
    }
    renamed = table.rename(columns=names)
    renamed.attrs = table.attrs
    return renamed, [f"column {keyword} is read as {name}" for keyword, name in names.items()]


def _key_column(table: pd.DataFrame, path: Path) -> str:
    key = next((name for name in KEYS if name in table), None)
    if key is None:
        similar = next((name for name in table if canonical_column(name) in KEYS), None)
        fix = (
            "rename or add one"
            if similar is None
            else f"rename its column {similar!r} to {canonical_column(similar)}"
        )
        raise LabelError(
            f"{path} has none of the key columns {', '.join(KEYS)}: {fix}. Its columns: "
            f"{', '.join(map(str, table))}.",
            code="no_key_column",
        )
    if key == "patient_id" and "accession_number" in table and table[key].duplicated().any():
        key = "accession_number"  # one row per study, not per patient
    _require(table[key] != "", path, key, "the key is empty", code="empty_key")
    return key


def _detect_findings(
    table: pd.DataFrame, path: Path, *, beside_others: bool
) -> tuple[tuple[str, ...], list[str]]:
    """The columns that contain only 0, 1, -1 and empty cells, or `class`; and a note for each kind
    of column that looks like a finding and is left out.
    """
    candidates = [str(name) for name in table if _is_finding(table[name], path)]
    covariates = [name for name in candidates if is_covariate(name)]
    findings = [name for name in candidates if name not in covariates]
    constant = [name for name in findings if _is_constant(table[name])]
    if set(constant) == set(findings):
        constant = []  # without any other finding, the error should say that there is one class
    findings = [name for name in findings if name not in constant]
    left_out = {"their names are those of covariates": covariates, "they are constant": constant}
    notes = [
        f"columns of 0 and 1 that are not taken as findings, since {why}: {', '.join(names)}. To "
        f"take one, name all findings with --finding"
        for why, names in left_out.items()
        if names
    ]
    if findings and "class" in table:
        raise LabelError(
            f"{path} has a column class and also columns of 0 and 1. Choose with --finding.",
            code="several_tasks",
        )
    if not findings and "class" not in table:
        if beside_others:
            return (), notes
        raise _no_finding(table, path, covariates)
    return tuple(findings) or ("class",), notes


def _no_finding(table: pd.DataFrame, path: Path, covariates: Sequence[str]) -> LabelError:
    similar = next((name for name in table if canonical_column(name) == "class"), None)
    hint = "" if similar is None else f"Rename its column {similar!r} to class. "
    if covariates:
        hint += f"By their names, {', '.join(covariates)} are covariates. "
    return LabelError(
        f"{path} has no finding: no column contains only 0, 1, -1 and empty cells, and no column "
        f"is named class. {hint}To see which cell is at fault, name the finding columns with "
        f"--finding.",
        code="no_finding",
    )


def _is_constant(cells: pd.Series) -> bool:
    return bool(_values(cells)[0].nunique() == 1)


def _is_finding(cells: pd.Series, path: Path) -> bool:
    name = str(cells.name)
    if canonical_column(name) or name.startswith("meta:"):
        return False
    values, valid = _values(cells)
    if not valid.all() and values.notna().sum() > (~valid).sum():
        # Mostly 0 and 1: a column of counts is left alone, a typing error is reported.
        _require(
            valid | cells.map(is_number),
            path,
            name,
            "text where 0, 1, -1 or an empty cell is expected",
            code="bad_label",
        )
    return bool(valid.all() and values.notna().any())


def _finding_values(cells: pd.Series, path: Path) -> pd.Series:
    values, valid = _values(cells)
    _require(
        valid,
        path,
        str(cells.name),
        "not 0, 1, -1 or an empty cell (nor True, False, yes, no or NA)",
        code="bad_label",
    )
    return values


def _values(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The values of label_value, NaN also where a cell is none; and whether each cell is one."""
    values = {cell: label_value(cell) for cell in cells.unique()}
    invalid = [cell for cell, value in values.items() if value is None]
    return cells.map(values).astype(float), ~cells.isin(invalid)


def _spelling_notes(written: dict[str, dict[str, int]]) -> list[str]:
    """One sentence per kind of spelling, with the number of cells in each finding."""
    return [
        f"cells {text}: {', '.join(cells)}"
        for kind, text in SPELLINGS.items()
        if (cells := [f"{name} {n[kind]}" for name, n in written.items() if kind in n])
    ]


def _class_names(cells: pd.Series, path: Path) -> tuple[str, ...]:
    _require(
        cells.map(lambda c: len(c) <= 64 and c.isprintable()),
        path,
        "class",
        "not a printable name of up to 64 characters",
    )
    names = sorted(set(cells) - {""})
    spelling = {"": "", **{name.casefold(): name for name in reversed(names)}}
    _require(
        cells == cells.str.casefold().map(spelling),
        path,
        "class",
        "differs from the class of another row in upper and lower case only",
        code="class_spelling",
    )
    return tuple(names)


def _require(
    valid: pd.Series, path: Path, column: str, problem: str, *, code: str = "bad_cell"
) -> None:
    if not valid.all():
        invalid = valid.index[~valid.astype(bool)]
        more = f" (and {len(invalid) - 1} more rows)" if len(invalid) > 1 else ""
        raise LabelError(f"{path}, column {column}, row {invalid[0]}: {problem}{more}.", code=code)

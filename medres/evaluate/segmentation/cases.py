"""Which prediction belongs to which reference: files matched by name, patients, subgroups and
classes. Messages count cases and never show a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medres.errors import EvaluationError
from medres.evaluate.scores.ids import id_texts
from medres.evaluate.scores.io import read_table
from medres.evaluate.segmentation.label_maps import READERS, LabelMap, suffix_of

PATIENTS = "patients.csv"
Classes = Mapping[int, str] | str | Path | None


@dataclass(frozen=True)
class Case:
    """A reference and the predictions of one or more models. levels: of the subgroup columns."""

    name: str
    patient: str
    reference: Path
    predictions: tuple[Path, ...]
    levels: tuple[str, ...] = ()


def find_cases(
    reference: Path,
    predictions: Sequence[Path],
    patients: Path | None = None,
    subgroups: Sequence[str] = (),
) -> list[Case]:
    """The cases in alphabetical order. Each of `reference` and `predictions` is a folder of label
    maps (folders within it count too) or one file. patients: a table with `case` and `patient` and
    the subgroup columns; default patients.csv in the folder of the references. Without it each case
    is a patient of its own.

    Raises EvaluationError: no_file, no_masks, duplicate_case, missing_prediction,
    missing_reference, missing_column, missing_id, unknown_case.
    """
    truth = _masks(reference, "reference")
    answers = [_masks(folder, "prediction") for folder in predictions]
    if all(len(files) == 1 for files in (truth, *answers)) and reference.is_file():
        name = next(iter(truth))
        answers = [dict.fromkeys([name], next(iter(files.values()))) for files in answers]
    for files in answers:
        _check_complete(truth, files)
    table = _patients(reference, patients, list(truth), subgroups)
    return [
        Case(name, table[name][0], truth[name], tuple(f[name] for f in answers), table[name][1])
        for name in sorted(truth)
    ]


def read_classes(classes: Classes) -> dict[int, str] | None:
    """Names by value: from a mapping, from texts such as "1=liver,2=tumor", or from a file (a CSV
    table with `value` and `name`, or JSON such as {"1": "liver"}). None where nothing is given.

    Raises EvaluationError (classes, no_file, missing_column).

    >>> read_classes("1=liver,2=tumor")
    {1: 'liver', 2: 'tumor'}
    """
    if classes is None:
        return None
    pairs: list[tuple[object, object]]
    if isinstance(classes, Mapping):
        pairs = [*classes.items()]
    elif isinstance(classes, str) and "=" in classes:
        pairs = [(value, name) for value, _, name in _parts(classes)]
    else:
        pairs = _class_file(Path(classes))
    try:
        names = {int(str(value)): str(name).strip() for value, name in pairs}
    except (TypeError, ValueError):
        names = {}
    names.pop(0, None)
    repeated = len(set(names.values())) < len(names)
    if not names or repeated or not all(names.values()) or min(names) < 0:
        raise EvaluationError(
            "the classes cannot be read: give a name of its own for each whole number above 0, "
            "such as 1=liver,2=tumor; 0 is the background",
            code="classes",
        )
    return dict(sorted(names.items()))


def check_labels(labels: set[int], classes: Mapping[int, str], what: str) -> None:
    """Raises EvaluationError (unknown_label) for a value that no class has."""
    unknown = sorted(labels - classes.keys())
    if unknown:
        raise EvaluationError(
            f"the {what} has the label {unknown[0]}, which no class has; the classes are "
            + ", ".join(f"{value} ({name})" for value, name in classes.items())
            + ": name every value with --classes, or correct the mask",
            code="unknown_label",
        )


def classes_in(reference: LabelMap) -> dict[int, str]:
    """The values that a reference has, each named by its number."""
    return {value: str(value) for value in sorted(reference.labels())}


def _masks(source: Path, what: str) -> dict[str, Path]:
    """Label maps by their path without the suffix."""
    if not source.exists():
        raise EvaluationError(f"the {what} folder {source.name!r} does not exist", code="no_file")
    if source.is_file():
        return {_stem(Path(source.name)): source}
    files: dict[str, Path] = {}
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if suffix_of(path) not in READERS or any(part.startswith(".") for part in inside.parts):
            continue
        name = _stem(inside)
        if name in files:
            raise EvaluationError(
                f"the {what} folder {source.name!r} has two files for one case, such as a PNG and "
                "a NIfTI of the same name: keep one of them",
                code="duplicate_case",
            )
        files[name] = path
    if not files:
        raise EvaluationError(
            f"the {what} folder {source.name!r} has no label map ({', '.join(sorted(READERS))})",
            code="no_masks",
        )
    return files


def _stem(path: Path) -> str:
    return path.as_posix()[: -len(suffix_of(path))]


def _check_complete(truth: Mapping[str, Path], answers: Mapping[str, Path]) -> None:
    for missing, of, code in (
        (truth.keys() - answers.keys(), "references have no prediction", "missing_prediction"),
        (answers.keys() - truth.keys(), "predictions have no reference", "missing_reference"),
    ):
        if missing:
            total = len(truth) if code == "missing_prediction" else len(answers)
            raise EvaluationError(
                f"{len(missing)} of {total} {of} of the same file name: cases that are left out "
                "would change the result unseen; add the files, or give folders of the same cases",
                code=code,
            )


def _patients(
    reference: Path, patients: Path | None, names: list[str], subgroups: Sequence[str]
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """(patient, levels) by case."""
    beside = reference / PATIENTS
    path = patients or (beside if beside.is_file() else None)
    if path is None:
        if subgroups:
            raise EvaluationError(
                f"there is no table of the patients, so the column {subgroups[0]!r} is unknown: "
                "give --patients TABLE with case, patient and the column",
                code="missing_column",
            )
        return {name: (name, ()) for name in names}
    table = read_table(path, "patients")
    for column in ("case", "patient", *subgroups):
        if column not in table.columns:
            raise EvaluationError(
                f"the patients table has no column {column!r}; it needs case and patient",
                code="missing_column",
            )
    ids = id_texts(table["case"]), id_texts(table["patient"])
    if ids[0].duplicated().any():
        raise EvaluationError(
            f"{int(ids[0].duplicated().sum())} rows of the patients table repeat a case",
            code="duplicate_case",
        )
    levels = table[list(subgroups)].fillna("").astype(str).to_numpy().tolist()
    rows = {case: (patient, tuple(row)) for case, patient, row in zip(*ids, levels, strict=True)}
    unknown = [name for name in names if not rows.get(name, ("",))[0]]
    if unknown:
        raise EvaluationError(
            f"{len(unknown)} of {len(names)} cases have no patient in the patients table: its "
            "column case holds the names of the files without the suffix",
            code="unknown_case",
        )
    return rows


def _parts(text: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in text.split(",")]


def _class_file(path: Path) -> list[tuple[object, object]]:
    if path.suffix.lower() == ".json" and path.is_file():
        try:
            return list(json.loads(path.read_text(encoding="utf-8")).items())
        except (ValueError, AttributeError):
            return []
    table = read_table(path, "classes")
    if not {"value", "name"} <= set(table.columns):
        raise EvaluationError(
            "the classes table needs the columns value and name", code="missing_column"
        )
    return list(zip(table["value"], table["name"], strict=True))

"""Patients, or other groups that one split must hold, that the paths of the files name."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.table import Labels, normalise_key
from data_pipelines.labels.task import label_task


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression. Raises LabelError (patient_pattern) where it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise LabelError(
            f"--patient-pattern {pattern}: this is no regular expression ({error}).",
            code="patient_pattern",
        ) from None


def patients_of_paths(
    paths: Iterable[str], pattern: re.Pattern[str], *, require_all: bool = True
) -> Labels:
    """The patient of each path, as a labels table: the first group of the pattern, else the whole
    match, wherever it first matches the path relative to its SOURCE.

    Raises LabelError (patient_pattern) where it finds nothing in some path; without require_all,
    such a path names no patient.

    >>> table = patients_of_paths(["a/Town01_7.jpg", "a/Town02_7.jpg"], re.compile("Town[0-9]+"))
    >>> table.rows["patient"].tolist()
    ['Town01', 'Town02']
    """
    patients = {normalise_key("path", path): _patient(path, pattern) for path in paths}
    absent = sum(not patient for patient in patients.values())
    if absent and require_all:
        raise LabelError(
            f"--patient-pattern {pattern.pattern} finds no patient in the paths of {absent} of "
            f"{len(patients)} images. It is searched in the path relative to SOURCE and must "
            f"find some text in each of them; without SOURCE's own folders.",
            code="patient_pattern",
        )
    return Labels(
        rows=pd.DataFrame({"key": list(patients), "patient": list(patients.values())}),
        key="path",
        level="image",
        task=label_task(0, classes=False).name,
        findings=(),
        classes=None,
        ignored=(),
        repeated_rows=0,
        notes=(f"{len(set(patients.values()) - {''})} patients by {pattern.pattern}",),
        name="--patient-pattern",
    )


def _patient(path: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path)
    if match is None:
        return ""
    return (match.group(1) if pattern.groups else match.group()) or ""

"""Labels that come with the images, inside .npz files or as class folders, in the form of a labels
table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.folder_levels import Parents, folder_levels
from data_pipelines.labels.table import SPLIT_ALIASES, Labels
from data_pipelines.labels.task import label_task


def array_labels(rows: pd.DataFrame, findings: Sequence[str] = ()) -> Labels | None:
    """The labels and splits inside .npz files, by path; None if there are none.

    One column of 0, 1 and -1 is a finding named `label`; one column of other whole numbers from 0
    is a class; several columns are the findings label0, label1 and so on. `findings` gives them
    other names, in order. Raises LabelError (codes bad_array_labels, finding_names).
    """
    labeled = rows[
        rows["own_labels"].map(lambda labels: isinstance(labels, tuple) and len(labels) > 0)
    ]
    if labeled.empty:
        return None
    values = pd.DataFrame(labeled["own_labels"].tolist(), index=labeled.index)
    columns: dict[str, pd.Series] = {
        "key": labeled["path"].astype(object),
        "split": labeled["own_split"].astype(object),
    }
    if len(values.columns) == 1 and not values[0].isin([-1, 0, 1]).all():
        return _class_table(columns, _class_names(values[0]), findings)
    if not values.isin([-1, 0, 1]).all(axis=None):
        raise LabelError(
            "The .npz has several columns of labels, and some values are not 0, 1 or -1: they "
            "cannot be read as findings.",
            code="bad_array_labels",
        )
    names = tuple(findings) or _default_names(len(values.columns))
    if len(names) != len(values.columns) or len(set(names)) != len(names):
        raise LabelError(
            f"The .npz has {len(values.columns)} columns of labels, and --finding gives "
            f"{len(set(names))} different names. Give one name per column.",
            code="finding_names",
        )
    columns |= {f"label:{name}": values[n].astype(float) for n, name in enumerate(names)}
    return _table(columns, names, None)


def folder_labels(rows: pd.DataFrame, findings: Sequence[str] = ()) -> Labels:
    """The folders of one level as classes, those of another one as the splits train, tune (val,
    valid ...) and test, and of a third one as patients; see folder_levels.

    findings: empty, or the one class that counts as present (1); all others are then absent (0).
    Raises LabelError when a file does not lie in a class folder (no_class_folder), or when there is
    no class of that name (finding_names).
    """
    parents = [PurePosixPath(path).parts[:-1] for path in rows["path"]]
    levels = folder_levels(parents)
    names = _names_at(rows, parents, levels.classes)
    outside = (names == "") | names.str.lower().isin(list(SPLIT_ALIASES))
    if outside.any():
        raise LabelError(
            f"--class-folders: {int(outside.sum())} images do not lie in a folder named after a "
            f"class, as in train/CLASS/x.png.",
            code="no_class_folder",
        )
    columns: dict[str, pd.Series] = {"key": rows["path"].astype(object)}
    if levels.split is not None:
        splits = _names_at(rows, parents, levels.split).str.lower()
        columns["split"] = splits.map(lambda name: SPLIT_ALIASES.get(name, ""))
    notes = [
        f"--class-folders: level {levels.classes + 1} of the folders has the classes "
        f"({names.nunique()} names)"
    ]
    if levels.patient is not None:
        columns["patient_id"] = _names_at(rows, parents, levels.patient)
        notes.append(
            f"--class-folders: level {levels.patient + 1} of the folders names the patient of "
            f"files without a PatientID ({columns['patient_id'].nunique()} names; one name under "
            f"two classes is one patient)"
        )
    return replace(_folder_table(columns, names, findings), notes=tuple(notes))


def _names_at(rows: pd.DataFrame, parents: Parents, level: int) -> pd.Series:
    """The folder of each file at one level, '' where its path is shorter."""
    names = [parts[level] if len(parts) > level else "" for parts in parents]
    return pd.Series(names, index=rows.index, dtype=object)


def _folder_table(
    columns: dict[str, pd.Series], names: pd.Series, findings: Sequence[str]
) -> Labels:
    if not findings:
        return _class_table(columns, names, ())
    if len(findings) > 1 or findings[0] not in set(names):
        raise LabelError(
            "--class-folders: --finding must name one class, the one that counts as present. "
            f"The classes are {', '.join(sorted(set(names)))}.",
            code="finding_names",
        )
    columns[f"label:{findings[0]}"] = (names == findings[0]).astype(float)
    return _table(columns, (findings[0],), None)


def _default_names(count: int) -> tuple[str, ...]:
    return ("label",) if count == 1 else tuple(f"label{n}" for n in range(count))


def _class_names(values: pd.Series) -> pd.Series:
    """Class numbers as text of equal length, so that they sort like the numbers."""
    if (values < 0).any():
        raise LabelError(
            "The .npz has negative class numbers. Number the classes from 0.",
            code="bad_array_labels",
        )
    digits = len(str(int(values.max())))
    return values.map(lambda value: f"{int(value):0{digits}d}")


def _class_table(
    columns: dict[str, pd.Series], names: pd.Series, findings: Sequence[str]
) -> Labels:
    if findings:
        raise LabelError(
            "The labels are classes, not findings: leave --finding out.", code="finding_names"
        )
    return _table({**columns, "class": names}, (), tuple(sorted(set(names))))


def _table(
    columns: dict[str, pd.Series], findings: tuple[str, ...], classes: tuple[str, ...] | None
) -> Labels:
    return Labels(
        rows=pd.DataFrame(columns),
        key="path",
        level="image",
        task=label_task(len(findings), classes=classes is not None).name,
        findings=findings,
        classes=classes,
        ignored=(),
        repeated_rows=0,
    )

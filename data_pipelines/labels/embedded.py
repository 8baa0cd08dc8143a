"""Labels that come with the pictures: those inside an .npz, and class folders, as a labels table
would give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.table import SPLIT_ALIASES, Labels


def array_labels(rows: pd.DataFrame, findings: Sequence[str] = ()) -> Labels | None:
    """The labels and splits inside .npz files, by path; None where none is there.

    One column of 0, 1 and -1 is a finding named `label`, one of other whole numbers from 0 a class,
    several columns are the findings label0, label1 ...; `findings` gives them other names, in
    order. Raises LabelError where the numbers or the names do not fit.
    """
    own = rows[rows["own_labels"].map(lambda labels: isinstance(labels, tuple) and len(labels) > 0)]
    if own.empty:
        return None
    values = pd.DataFrame(own["own_labels"].tolist(), index=own.index)
    columns: dict[str, pd.Series] = {
        "key": own["path"].astype(object),
        "split": own["own_split"].astype(object),
    }
    if len(values.columns) == 1 and not values[0].isin([-1, 0, 1]).all():
        return _classes(columns, _class_names(values[0]), findings)
    if not values.isin([-1, 0, 1]).all(axis=None):
        raise LabelError(
            "The .npz has several columns of labels that hold more than 0, 1 and -1: they cannot "
            "be read."
        )
    names = tuple(findings) or _default_names(len(values.columns))
    if len(names) != len(values.columns) or len(set(names)) != len(names):
        raise LabelError(
            f"The .npz has {len(values.columns)} columns of labels, and --finding gives "
            f"{len(names)} names."
        )
    columns |= {f"label:{name}": values[n].astype(float) for n, name in enumerate(names)}
    return _table(columns, "binary" if len(names) == 1 else "multilabel", names, None)


def folder_labels(rows: pd.DataFrame, findings: Sequence[str] = ()) -> Labels:
    """The folder of each file as its class, and a folder train, tune (val, valid ...) or test above
    it as its split.

    `findings`: none, or the one class that counts as present (1); all others are then absent (0).
        Raises LabelError where a file lies in no class folder, or that class is not there.
    """
    parents = [PurePosixPath(path).parts[:-1] for path in rows["path"]]
    names = pd.Series(
        [parts[-1] if parts else "" for parts in parents], index=rows.index, dtype=object
    )
    astray = (names == "") | names.str.lower().isin(list(SPLIT_ALIASES))
    if astray.any():
        raise LabelError(
            f"--class-folders: {int(astray.sum())} images do not lie in a folder named after a "
            f"class, as in train/CLASS/x.png."
        )
    columns: dict[str, pd.Series] = {"key": rows["path"].astype(object)}
    splits = [
        SPLIT_ALIASES.get(parts[-2].lower(), "") if len(parts) > 1 else "" for parts in parents
    ]
    if any(splits):
        columns["split"] = pd.Series(splits, index=rows.index, dtype=object)
    if not findings:
        return _classes(columns, names, ())
    if len(findings) > 1 or findings[0] not in set(names):
        raise LabelError(
            "--class-folders: --finding names the one class that counts as present. "
            f"The classes are {', '.join(sorted(set(names)))}."
        )
    columns[f"label:{findings[0]}"] = (names == findings[0]).astype(float)
    return _table(columns, "binary", (findings[0],), None)


def _default_names(count: int) -> tuple[str, ...]:
    return ("label",) if count == 1 else tuple(f"label{n}" for n in range(count))


def _class_names(values: pd.Series) -> pd.Series:
    """Class numbers as text of one length, so that their order is that of the numbers."""
    if (values < 0).any():
        raise LabelError("The .npz has negative class numbers: they cannot be read.")
    digits = len(str(int(values.max())))
    return values.map(lambda value: f"{int(value):0{digits}d}")


def _classes(columns: dict[str, pd.Series], names: pd.Series, findings: Sequence[str]) -> Labels:
    if findings:
        raise LabelError("The labels are classes: --finding has nothing to name.")
    return _table({**columns, "class": names}, "multiclass", (), tuple(sorted(set(names))))


def _table(
    columns: dict[str, pd.Series], task: str, findings: tuple[str, ...], classes: tuple | None
) -> Labels:
    return Labels(
        rows=pd.DataFrame(columns),
        key="path",
        level="image",
        task=task,  # type: ignore[arg-type]
        findings=findings,
        classes=classes,
        ignored=(),
        repeated_rows=0,
    )

"""Several labels tables as one, and classes that are dropped or merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.labels.raters import Readers
from data_pipelines.labels.table import KEYS, Labels, read_labels
from data_pipelines.labels.task import label_task

_FINEST_FIRST = tuple(dict.fromkeys(KEYS.values()))


def read_label_tables(
    paths: Sequence[Path | str],
    *,
    findings: Sequence[str] = (),
    readers: Readers = "error",
    require_finding: bool = True,
) -> tuple[Labels, ...]:
    """Read one labels CSV or several, each with a key of its own; see read_labels.

    Every finding must be in one of the tables. require_finding: without it, the tables may also
    give only patients, splits or subgroups, beside masks or boxes.

    Raises LabelError: no_such_column, no_finding, several_tasks where one table has classes and
    another findings.
    """
    if len(paths) <= 1:
        beside = not require_finding and not findings
        return tuple(
            read_labels(path, findings=findings, readers=readers, beside_others=beside)
            for path in paths
        )
    tables = tuple(
        read_labels(path, findings=findings, readers=readers, beside_others=True) for path in paths
    )
    names = {name for table in tables for name in table.findings}
    has_classes = any(table.classes is not None for table in tables)
    absent = [name for name in findings if name not in names | {"class"}]
    if absent:
        raise LabelError(
            f"None of the {len(paths)} labels tables has a column {', '.join(absent)}.",
            code="no_such_column",
        )
    if names and has_classes:
        raise LabelError(
            "One labels table has a column class, and another has columns of 0 and 1. Choose with "
            "--finding.",
            code="several_tasks",
        )
    if require_finding and not names and not has_classes:
        raise LabelError(
            f"None of the {len(paths)} labels tables has a finding: name the finding columns with "
            f"--finding.",
            code="no_finding",
        )
    return tuple(
        replace(table, name=Path(path).name) for table, path in zip(tables, paths, strict=True)
    )


def combined(tables: Sequence[Labels]) -> Labels:
    """Return what all tables together say about the labels; `rows` has the rows of all of them,
    which join_labels joins table by table.
    """
    if len(tables) == 1:
        return tables[0]
    findings = tuple(dict.fromkeys(name for table in tables for name in table.findings))
    classes = {name for table in tables for name in table.classes or ()}
    has_classes = any(table.classes is not None for table in tables)
    labeling = [table for table in tables if table.has_labels]
    rows = [table.rows.set_axis(table.row_names) for table in tables]
    return Labels(
        rows=pd.concat(rows),
        key=" or ".join(dict.fromkeys(table.key for table in tables)),
        level=min((table.level for table in labeling or tables), key=_FINEST_FIRST.index),
        task=label_task(len(findings), classes=has_classes).name,
        findings=findings,
        classes=tuple(sorted(classes)) if has_classes else None,
        ignored=tuple(dict.fromkeys(name for table in tables for name in table.ignored)),
        repeated_rows=sum(table.repeated_rows for table in tables),
        readers=next((table.readers for table in labeling if table.readers), None),
        notes=tuple(f"{table.name}: {note}" for table in tables for note in table.notes),
        spellings={name: n for table in tables for name, n in table.spellings.items()},
    )


def with_classes(labels: Labels, drop: Sequence[str], merge: Mapping[str, str]) -> Labels:
    """Return the table with other classes: those of `drop` become not assessed, and those that
    `merge` names (old name -> new name) get the new name.

    Raises LabelError (code no_such_class) for a class that does not occur, and where the labels are
    findings.
    """
    if not drop and not merge:
        return labels
    classes = set(labels.classes or ())
    absent = sorted({*drop, *merge} - classes)
    if labels.classes is None or absent:
        raise LabelError(
            f"--drop-class and --merge-classes: the labels have no class "
            f"{', '.join(absent or [*drop, *merge])}. The classes: "
            f"{', '.join(sorted(classes)) or 'none, the labels are findings'}.",
            code="no_such_class",
        )
    names = {name: "" if name in drop else merge.get(name, name) for name in classes} | {"": ""}
    cells = labels.rows["class"].map(names)
    changed = {name: int((labels.rows["class"] == name).sum()) for name in sorted({*drop, *merge})}
    notes = [
        f"class {name}: {count} rows "
        + ("not assessed (dropped)" if name in drop else f"merged into {merge[name]}")
        for name, count in changed.items()
    ]
    return replace(
        labels,
        rows=labels.rows.assign(**{"class": cells}),
        classes=tuple(sorted(set(names.values()) - {""})),
        notes=(*labels.notes, *notes),
    )


def first_given(name: str, columns: Sequence[pd.Series]) -> pd.Series:
    """Return for each image the value that one of several tables gives. Raises LabelError (code
    tables_differ) where two tables give different values.
    """
    result = columns[0]
    for other in columns[1:]:
        missing, absent = _is_missing(result), _is_missing(other)
        differs = ~missing & ~absent & (result.astype(object) != other.astype(object))
        if differs.any():
            raise LabelError(
                f"Column {name.removeprefix('label:')}: two labels tables give different values "
                f"for {int(differs.sum())} images. Correct one of them.",
                code="tables_differ",
            )
        result = result.where(~missing, other)
    return result


def _is_missing(values: pd.Series) -> pd.Series:
    return values.isna() | (values.astype(object) == "")

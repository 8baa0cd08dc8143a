"""Names that people read for the names of class folders, as LOC_synset_mapping.txt of ImageNet."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from data_pipelines.errors import LabelError
from data_pipelines.labels.table import Labels


def read_class_names(path: Path | str) -> dict[str, str]:
    """Folder or class -> name, from a text file with one line per class: the folder, a space or a
    tab, and its name up to the first comma ("n01440764 tench, Tinca tinca").

    Where several folders have one name (ImageNet has two cranes), the folder is added to it: "crane
    (n02012849)". Raises LabelError (code class_names) for a line without a name, and where a folder
    has two lines.
    """
    names: dict[str, str] = {}
    for number, line in enumerate(_lines(Path(path)), start=1):
        if not line.strip():
            continue
        folder, _, rest = line.strip().replace("\t", " ").partition(" ")
        name = rest.split(",")[0].strip()
        if not name or folder in names:
            raise LabelError(
                f"{path}, line {number}: "
                + ("the class has a line already." if name else "write the folder, then its name."),
                code="class_names",
            )
        names[folder] = name
    count = Counter(names.values())
    return {
        folder: name if count[name] == 1 else f"{name} ({folder})" for folder, name in names.items()
    }


def with_class_names(labels: Labels, names: dict[str, str]) -> Labels:
    """The table with these names of its classes; a class without one keeps its own.

    Raises LabelError (code class_names) where the labels are findings, where no class has a name,
    and where two classes would have the same.
    """
    if not names:
        return labels
    classes = labels.classes or ()
    renamed = {name: names.get(name, name) for name in classes}
    if not {*classes} & {*names} or len({*renamed.values()}) < len(classes):
        raise LabelError(
            "The class names do not fit the labels: "
            + (
                "two classes would have one name."
                if {*classes} & {*names}
                else "no class is named."
            )
            + f" The classes: {', '.join(classes[:5]) or 'none, the labels are findings'}"
            + (" ..." if len(classes) > 5 else "."),
            code="class_names",
        )
    cells = labels.rows["class"].map(renamed | {"": ""})
    return replace(
        labels,
        rows=labels.rows.assign(**{"class": cells}),
        classes=tuple(sorted(renamed.values())),
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(
            f"{path} cannot be read as text ({type(error).__name__}).", code="class_names"
        ) from None

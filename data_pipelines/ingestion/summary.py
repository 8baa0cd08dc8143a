"""What an ingest amounts to, in numbers: the content of ingest.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.ingestion.index import RejectedFile
from data_pipelines.ingestion.manifest import SPLITS
from data_pipelines.labels.table import Labels, canonical_column

_VALUES = {"0": 0.0, "1": 1.0, "-1": -1.0}


def summarise(
    table: pd.DataFrame,
    rejected: Sequence[RejectedFile],
    labels: Labels | None,
    *,
    unmatched_rows: Sequence[int],
    unlabelled: int,
    lost_frames: int,
    unnamed: int,
    more_warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the summary of a finished table. Counts of files: given = ok + repaired + quarantined
    + skipped.
    """
    files = table.drop_duplicates(["source", "path"])["status"].value_counts()
    counts = {
        "ok": int(files.get("ok", 0)),
        "repaired": int(files.get("repaired", 0)),
        "quarantined": sum(not r.skipped for r in rejected),
        "skipped": sum(r.skipped for r in rejected),
    }
    repairs = Counter(
        code
        for codes in table.drop_duplicates(["source", "path"])["repairs"]
        for code in codes.split(";")
    )
    return {
        "given": sum(counts.values()),
        **counts,
        "reasons": dict(sorted(Counter(r.reason for r in rejected).items())),
        "repairs": {code: count for code, count in sorted(repairs.items()) if code},
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "kinds": {str(kind): int(count) for kind, count in table["kind"].value_counts().items()},
        "verdicts": {
            str(v): int(n) for v, n in table.groupby("verdict")["series"].nunique().items()
        },
        "splits": {
            name: _split_counts(table[table["split"] == name], labels, _classes(table))
            for name in SPLITS
        },
        "task": labels.task if labels else "none",
        "findings": list(labels.findings) if labels else [],
        "classes": _classes(table),
        "label_level": labels.level if labels else "image",
        "label_rows": 0 if labels is None else len(labels.rows),
        "label_rows_unmatched": len(unmatched_rows),
        "label_rows_repeated": 0 if labels is None else labels.repeated_rows,
        "readers": labels.readers if labels else None,
        "images_unlabelled": unlabelled,
        "sources": sorted(set(table["source"])),
        "warnings": [
            *_counted_warnings(lost_frames, unnamed),
            *_warnings(table, labels, unmatched_rows, unlabelled),
            *more_warnings,
        ],
    }


def require_two_classes(rows: pd.DataFrame, labels: Labels) -> None:
    """Raise LabelError where no finding has both values, or fewer than two classes are left among
    the images.
    """
    if labels.task == "multiclass":
        found = set(rows["class"]) - {""}
        if len(found) < 2:
            raise LabelError(
                f"The images have {len(found)} class: two or more are needed to learn or to "
                f"measure."
            )
    elif not any(_has_both(rows, name) for name in labels.findings):
        counts = {
            name: {text: int((rows[f"label:{name}"] == v).sum()) for text, v in _VALUES.items()}
            for name in labels.findings
        }
        raise LabelError(
            f"No finding is both present and absent among the {len(rows)} accepted images: there "
            f"is one class only, and "
            f"nothing to learn or to measure. Images by value: {counts}."
        )


def _has_both(rows: pd.DataFrame, name: str) -> bool:
    return bool((rows[f"label:{name}"] == 0).any() and (rows[f"label:{name}"] == 1).any())


def _classes(table: pd.DataFrame) -> list[str] | None:
    """The classes that the images have, sorted; None unless the task is multi-class."""
    return sorted(set(table["class"]) - {""}) if "class" in table else None


def _split_counts(
    part: pd.DataFrame, labels: Labels | None, names: list[str] | None
) -> dict[str, Any]:
    classes: dict[str, Any] = {}
    if "class" in part:
        classes = {name: int((part["class"] == name).sum()) for name in names or ()}
    elif labels:
        for name in labels.findings:
            column = part[f"label:{name}"]
            classes[name] = {text: int((column == value).sum()) for text, value in _VALUES.items()}
            classes[name]["not_assessed"] = int(column.isna().sum())
    return {
        "patients": int(part["patient"].nunique()),
        "studies": int(part["study"].nunique()),
        "images": len(part),
        "classes": classes,
    }


def _warnings(
    table: pd.DataFrame, labels: Labels | None, unmatched: Sequence[int], unlabelled: int
) -> list[str]:
    found = [f"split {name} holds no image" for name in SPLITS if name not in set(table["split"])]
    if labels is None:
        return found
    if labels.ignored:
        found.append(f"columns of the labels table that are not used: {', '.join(labels.ignored)}")
        found += [
            f"column {name!r} is not used. If it is the {ours}, rename it to {ours} and ingest "
            f"again"
            for name in labels.ignored
            if (ours := canonical_column(name)) is not None
            and ours not in (name, labels.key, *labels.columns)
        ]
    if unmatched:
        first, more = ", ".join(map(str, unmatched[:5])), " ..." * (len(unmatched) > 5)
        found.append(
            f"{len(unmatched)} rows of the labels table meet no readable image: rows {first}{more}"
        )
    if unlabelled:
        found.append(
            f"{unlabelled} images have no row in the labels table and count as not assessed"
        )
    for split in SPLITS:
        for kind, part in table[table["split"] == split].groupby("kind"):
            found += [
                f"split {split} of {kind} images lacks {gap}"
                for gap in _gaps(part, labels, _classes(table))
            ]
    return found


def _counted_warnings(lost_frames: int, unnamed: int) -> list[str]:
    said = {
        f"{lost_frames} frames of multi-frame files are left out as copies of others": lost_frames,
        f"{unnamed} images name no patient: each counts as a patient of its own, so several "
        f"images of one person may fall "
        "into different splits": unnamed,
    }
    return [text for text, count in said.items() if count]


def _gaps(part: pd.DataFrame, labels: Labels, names: list[str] | None) -> list[str]:
    if names is not None:
        return [f"class {name}" for name in names if name not in set(part["class"])]
    values = {"a positive": 1.0, "a negative": 0.0}
    return [
        f"{text} image of {name}"
        for name in labels.findings
        for text, value in values.items()
        if not (part[f"label:{name}"] == value).any()
    ]

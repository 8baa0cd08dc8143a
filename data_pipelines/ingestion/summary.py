"""An ingest in numbers and warnings: the content of ingest.json; what was skipped, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from data_pipelines.errors import LabelError
from data_pipelines.ingestion.index.entries import RejectedFile
from data_pipelines.kinds import has_patients
from data_pipelines.labels.exclusion_bias import (
    NO_LOSS,
    exclusion_tests,
    exclusion_warnings,
    exclusions_by_label,
)
from data_pipelines.labels.table import Labels, canonical_column, normalise_key
from data_pipelines.labels.task import LABEL_TASKS, TRAINING_SPLITS, untrainable_classes
from data_pipelines.runtime.plain_text import counted
from data_pipelines.sources.image_source import RASTER_SUFFIXES
from data_pipelines.splits.stratified import SPLITS

_VALUES = {"0": 0.0, "1": 1.0, "-1": -1.0}

_BY_REASON = {
    "symbolic_link": "symbolic link",
    "same_file": "hard link",
    "broken_link": "broken link",
    "special_file": "special file",
    "unreadable_folder": "unreadable folder",
    "file_name": "name that is not UTF-8",
}
_BY_SUFFIX = {
    **dict.fromkeys(RASTER_SUFFIXES, "PNG, JPEG or .npz file"),
    **dict.fromkeys((".zip", ".7z", ".rar", ".gz", ".tar", ".tgz", ".bz2", ".xz"), "archive"),
    **dict.fromkeys((".nii", ".nrrd", ".mha", ".mhd", ".hdr"), "NIfTI or other volume file"),
    **dict.fromkeys((".txt", ".csv", ".json", ".xml", ".md", ".pdf", ".html"), "text or document"),
}
_FIXES = {
    "symbolic link": "links that lead out of SOURCE are read with --follow-links",
    "PNG, JPEG or .npz file": "declare with --units what the values of the image files "
    "are, or with --kind rgb that they are color pictures",
    "archive": "unpack archives of other kinds than .zip and .tar",
    "NIfTI or other volume file": "declare with --nifti-units what the values of .nii and .nii.gz "
    "files are; other volume files are not read",
}


def summarise(
    table: pd.DataFrame,
    rejected: Sequence[RejectedFile],
    labels: Labels | None,
    *,
    unmatched_rows: Sequence[int | str],
    unlabeled_images: int,
    excluded_frames: int,
    images_without_patient: int,
    no_split: bool = False,
    audit_warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the summary of a finished manifest table.

    Counts of files: given = ok + repaired + quarantined + skipped. unmatched_rows: row numbers of
    the labels table that match no indexed image. excluded_frames: those of files that keep another
    frame. no_split: no splits were asked for, so that none is missed.
    """
    files = table.drop_duplicates(["source", "path"])
    status = files["status"].value_counts()
    counts = {
        "ok": int(status.get("ok", 0)),
        "repaired": int(status.get("repaired", 0)),
        "quarantined": sum(not file.skipped for file in rejected),
        "skipped": sum(file.skipped for file in rejected),
    }
    repairs = Counter(code for codes in files["repairs"] for code in codes.split(";"))
    verdicts = table.groupby("verdict")["series"].nunique()
    classes = _classes(table)
    return {
        "given": sum(counts.values()),
        **counts,
        "reasons": dict(sorted(Counter(file.reason for file in rejected).items())),
        "repairs": {code: count for code, count in sorted(repairs.items()) if code},
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "kinds": {str(kind): int(count) for kind, count in table["kind"].value_counts().items()},
        "verdicts": {str(verdict): int(count) for verdict, count in verdicts.items()},
        "splits": {
            name: _split_counts(table[table["split"] == name], labels, classes) for name in SPLITS
        },
        "task": labels.task if labels and labels.has_labels else "none",
        "findings": list(labels.findings) if labels else [],
        "classes": classes,
        "label_level": labels.level if labels else "image",
        "label_rows": len(labels.rows) if labels else 0,
        "label_rows_unmatched": len(unmatched_rows),
        "label_spellings": labels.spellings if labels else {},
        "label_rows_repeated": labels.repeated_rows if labels else 0,
        "readers": labels.readers if labels else None,
        "images_unlabelled": unlabeled_images,
        "sources": sorted(set(table["source"])),
        "warnings": [
            *_image_warnings(table, excluded_frames, images_without_patient, no_split=no_split),
            *_label_warnings(labels, rejected, unmatched_rows, unlabeled_images),
            *_split_warnings(table, labels, classes),
            *audit_warnings,
        ],
    }


def exclusion_summary(everything: pd.DataFrame) -> tuple[dict[str, Any], list[str]]:
    """Return exclusions_by_label and exclusion_tests of ingest.json (see labels.exclusion_bias),
    and warnings.

    everything: a row per image, kept or not, with its labels, split and reason. Only rows of the
    labels table count. An image without a patient is a patient of its own.
    """
    rows = everything[everything["labeled"] & ~everything["reason"].isin(NO_LOSS)]
    file = rows["source"] + "\n" + rows["path"]
    rows = rows.assign(patient=rows["patient"].where(rows["patient"] != "", file))
    tests = exclusion_tests(rows)
    content = {"exclusions_by_label": exclusions_by_label(rows), "exclusion_tests": tests}
    return content, exclusion_warnings(tests)


def require_two_classes(rows: pd.DataFrame, labels: Labels) -> None:
    """Raise LabelError (code one_class) when fewer than two classes are left among the images, or
    no finding has both 0 and 1.
    """
    if LABEL_TASKS[labels.task].exclusive:
        n_classes = len(set(rows["class"]) - {""})
        if n_classes < 2:
            number = "one class only" if n_classes else "no class"
            raise LabelError(
                f"The {len(rows)} accepted images have {number}: two or more classes are needed to "
                f"train or to evaluate.",
                code="one_class",
            )
    elif not any(_has_both(rows, name) for name in labels.findings):
        counts = {
            name: {text: int((rows[f"label:{name}"] == v).sum()) for text, v in _VALUES.items()}
            for name in labels.findings
        }
        raise LabelError(
            f"No finding is both present and absent among the {len(rows)} accepted images: with "
            f"one class only, nothing can be trained or evaluated. Images by value: {counts}.",
            code="one_class",
        )


def _has_both(rows: pd.DataFrame, name: str) -> bool:
    return bool((rows[f"label:{name}"] == 0).any() and (rows[f"label:{name}"] == 1).any())


def _classes(table: pd.DataFrame) -> list[str] | None:
    """The classes of the images, sorted; None unless the task is multi-class."""
    return sorted(set(table["class"]) - {""}) if "class" in table else None


def _split_counts(
    part: pd.DataFrame, labels: Labels | None, classes: list[str] | None
) -> dict[str, Any]:
    by_class: dict[str, Any] = {}
    if classes is not None:
        by_class = {name: int((part["class"] == name).sum()) for name in classes}
    elif labels:
        for name in labels.findings:
            column = part[f"label:{name}"]
            by_class[name] = {text: int((column == v).sum()) for text, v in _VALUES.items()}
            by_class[name]["not_assessed"] = int(column.isna().sum())
    return {
        "patients": int(part["patient"].nunique()),
        "studies": int(part["study"].nunique()),
        "images": len(part),
        "classes": by_class,
    }


def _image_warnings(
    table: pd.DataFrame, excluded_frames: int, images_without_patient: int, *, no_split: bool
) -> list[str]:
    warnings = []
    if excluded_frames:
        warnings.append(
            f"{counted(excluded_frames, 'frame')} of multi-frame files excluded as copies of others"
        )
    if images_without_patient and not any(has_patients(name) for name in set(table["kind"])):
        warnings.append(
            f"{counted(images_without_patient, 'color picture')} without a patient: each is a unit "
            f"of its own, so pictures of one scene or object may lie in two splits. A "
            f"column patient of the labels table names what belongs together"
        )
    elif images_without_patient:
        warnings.append(
            f"{counted(images_without_patient, 'image')} with no patient ID: each image "
            f"(of NIfTI: each file) is treated as its own patient; leakage is possible"
        )
    splits = set() if no_split else set(table["split"]) - {""}
    absent = [name for name in SPLITS if splits and name not in splits]
    return warnings + [f"split {name} has no image" for name in absent]


def _label_warnings(
    labels: Labels | None,
    rejected: Sequence[RejectedFile],
    unmatched_rows: Sequence[int | str],
    unlabeled_images: int,
) -> list[str]:
    if labels is None:
        return []
    warnings = list(labels.notes)
    if labels.ignored:
        names = ", ".join(labels.ignored)
        warnings.append(f"columns of the labels table that are not used: {names}")
    for name in labels.ignored:
        ours = canonical_column(name)
        if ours is not None and ours not in (name, labels.key, *labels.columns):
            warnings.append(
                f"column {name!r} is not used. If it is the {ours}, rename it to {ours} and ingest "
                f"again"
            )
    if unmatched_rows:
        warnings.append(_unmatched_warning(labels, rejected, unmatched_rows))
    if unlabeled_images and labels.has_labels:
        warnings.append(
            f"{counted(unlabeled_images, 'image')} without a row in the labels table: not assessed"
        )
    return warnings


def _unmatched_warning(
    labels: Labels, rejected: Sequence[RejectedFile], unmatched_rows: Sequence[int | str]
) -> str:
    """Only a path tells which files are quarantined: their UIDs were not read."""
    why = f"no accepted file has this {labels.key}"
    if labels.key == "path":
        paths = {normalise_key("path", file.path) for file in rejected if not file.skipped}
        quarantined = int(labels.rows.loc[list(unmatched_rows), "key"].isin(paths).sum())
        why = f"{quarantined} quarantined, {len(unmatched_rows) - quarantined} not found"
    first = ", ".join(map(str, unmatched_rows[:5])) + " ..." * (len(unmatched_rows) > 5)
    return f"{counted(len(unmatched_rows), 'label row')} unmatched ({why}): rows {first}"


def _split_warnings(
    table: pd.DataFrame, labels: Labels | None, classes: list[str] | None
) -> list[str]:
    if labels is None:
        return []
    return (_class_warnings(table, classes) if classes else []) + [
        f"split {split} of {kind} images lacks {missing}"
        for split in SPLITS
        for kind, part in table[table["split"] == split].groupby("kind")
        for missing in _missing_labels(part, labels, classes)
    ]


def _class_warnings(table: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """What plan and train would refuse, for each kind of image."""
    warnings = []
    for kind, part in table[table["split"] != ""].groupby("kind"):
        present = {str(split): set(rows["class"]) for split, rows in part.groupby("split")}
        text = untrainable_classes(classes, present) if set(TRAINING_SPLITS) & {*present} else None
        warnings += [f"{kind} images: {text}"] if text else []
    return warnings


def _missing_labels(part: pd.DataFrame, labels: Labels, classes: list[str] | None) -> list[str]:
    if classes is not None:
        return [f"class {name}" for name in classes if name not in set(part["class"])]
    values = {"a positive": 1.0, "a negative": 0.0}
    return [
        f"{text} image of {name}"
        for name in labels.findings
        for text, value in values.items()
        if not (part[f"label:{name}"] == value).any()
    ]


def summary_of_rejected(rejected: Sequence[RejectedFile]) -> dict[str, Any]:
    """What ingest.json says of the files where none of them has an image."""
    skipped = sum(file.skipped for file in rejected)
    return {
        "given": len(rejected),
        "ok": 0,
        "repaired": 0,
        "quarantined": len(rejected) - skipped,
        "skipped": skipped,
        "reasons": dict(sorted(Counter(file.reason for file in rejected).items())),
        "skipped_by_kind": kinds_of_skipped(rejected),
    }


def kinds_of_skipped(rejected: Sequence[RejectedFile]) -> dict[str, int]:
    """Return how many skipped files there are of each kind, most frequent first."""
    return dict(Counter(_kind_of_skipped(file) for file in rejected if file.skipped).most_common())


def describe_skipped(rejected: Sequence[RejectedFile]) -> str:
    """Return the counts by kind as one sentence, and another one with what to do."""
    kinds = kinds_of_skipped(rejected)
    counts = ", ".join(counted(count, kind) for kind, count in kinds.items())
    fixes = [fix for kind, fix in _FIXES.items() if kind in kinds]
    advice = "; ".join(fixes) or "check SOURCE"
    return f"{counts or 'no file'}. {advice[0].upper()}{advice[1:]}."


def _kind_of_skipped(file: RejectedFile) -> str:
    if file.reason in _BY_REASON:
        return _BY_REASON[file.reason]
    path = PurePosixPath(file.path.lower().removesuffix(".gz") or file.path)
    suffix = path.suffix or PurePosixPath(file.path.lower()).suffix
    return _BY_SUFFIX.get(suffix, "other file")

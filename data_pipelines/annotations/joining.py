"""From a folder of masks to the annotations of a cohort: find the masks, match them with the
images, make the label maps in workers, and say what became of each mask.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.annotations.label_map import MAX_CLASSES, ClassNames
from data_pipelines.annotations.masks_table import TABLE_NAME, MaskRow, read_masks_table
from data_pipelines.annotations.matching import Match, Matcher, targets_of
from data_pipelines.annotations.placement import Job, Made, MaskSource, Outcome, make_label_map
from data_pipelines.annotations.raw_mask import Identity, Target
from data_pipelines.annotations.references import WITH_REFERENCES, MaskFile, inspect_mask
from data_pipelines.annotations.store import FOLDER, write_index
from data_pipelines.errors import AnnotationError, DicomError, InputError
from data_pipelines.runtime.atomic_files import csv_bytes, write_atomic
from data_pipelines.runtime.csv_cells import escape_formula
from data_pipelines.runtime.engines.engine import LOCAL, Engine, map_files
from data_pipelines.runtime.engines.saved_answers import SavedAnswers
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.walk import walk_files
from data_pipelines.runtime.worker_pool import ProgressCallback

#: columns of annotations.csv, one row per file below MASKS and per row of masks.csv
REPORT_COLUMNS = (
    *("mask", "state", "reason", "message", "images", "classes", "flags", "changed_share"),
    "volume_before_after_ml",
)
#: prefix of the columns of the manifest with the voxels of a class
VOXELS = "voxels:"
_BYTES_PER_TIME_LIMIT = 1 << 19


@dataclass(frozen=True)
class MaskOptions:
    """Where masks are, and how they are read.

    folder: MASKS, a folder or a masks.csv. resample: masks on another grid are resampled.
    label_order: "a<b<c", which class wins where classes overlap. names: label -> class.
    """

    folder: Path
    resample: bool = False
    label_order: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundMasks:
    """The files below MASKS. files: relative path -> what it is, or why it cannot be read.
    rows: of masks.csv. skipped: files that are no masks. inside: MASKS holds SOURCE, so that only
    DICOM objects and what masks.csv names are masks.
    """

    root: Path
    files: dict[str, MaskFile | DicomError]
    rows: list[MaskRow]
    skipped: int

    def paths(self) -> list[Path]:
        """All mask files, which are no images even if they lie below SOURCE."""
        return [self.root / name for name in self.files] + [self.root / TABLE_NAME]


@dataclass(frozen=True, eq=False)
class Annotations:
    """columns: for each image of the manifest mask_state, mask_classes and voxels:<class>. summary:
    the block of ingest.json. warnings: for people.
    """

    columns: pd.DataFrame
    summary: dict[str, Any]
    warnings: list[str]


def find_masks(
    options: MaskOptions,
    sources: Sequence[Path],
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    *,
    engine: Engine = LOCAL,
    parts: Path | None = None,
) -> FoundMasks:
    """Look at every file below MASKS. parts: a folder for what is known of the files, so that the
    same call after a crash does not read them again. Raises InputError (no_source, no_masks,
    masks_table) and LabelError for a masks.csv that is no table.
    """
    walk = walk_files(options.folder)
    is_table = options.folder.is_file() and options.folder.suffix.lower() == ".csv"
    table = options.folder if is_table else walk.root / TABLE_NAME
    rows = read_masks_table(table) if table.is_file() else []
    listed = {row.mask for row in rows if row.mask}
    names = [name for name in walk.files if name not in listed and walk.root / name != table]
    names = [] if is_table else names
    names += sorted(name for name in listed if (walk.root / name).is_file())
    types = (MaskFile, Identity)
    answers = map_files(
        engine,
        inspect_mask,
        [str(walk.root / name) for name in names],
        paths=_itself,
        workers=workers,
        timeout_s=_seconds,
        progress=progress,
        saved=None if parts is None else SavedAnswers(parts, ("inspect_mask",), types),
    )
    holds_source = any(Path(s).resolve().is_relative_to(walk.root) for s in sources)
    files: dict[str, MaskFile | DicomError] = {}
    for name, (_, answer) in zip(names, answers, strict=True):
        is_mask = isinstance(answer, MaskFile) and answer.file_format != "none"
        if holds_source and isinstance(answer, MaskFile):
            is_mask = answer.file_format in WITH_REFERENCES
        is_broken = isinstance(answer, DicomError) and not holds_source
        if is_mask or is_broken or name in listed:
            files[name] = answer
    if not files and not rows:
        raise InputError(
            f"There is no mask among the {len(walk.files)} files below {options.folder}. PNG, "
            f"NIfTI, DICOM SEG and RTSTRUCT are read; if MASKS holds SOURCE, only DICOM objects "
            f"and what {TABLE_NAME} names.",
            code="no_masks",
        )
    return FoundMasks(walk.root, files, rows, len(names) - len(files))


def annotate(
    images: pd.DataFrame,
    found: FoundMasks,
    options: MaskOptions,
    folder: Path,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    *,
    engine: Engine = LOCAL,
    parts: Path | None = None,
) -> Annotations:
    """Match the masks with the accepted rows of the index and write `annotations/` and
    annotations.csv into `folder`. parts: as for `find_masks`.

    An image is `annotated` where all its masks were used, also where they are empty; `rejected`
    where one of them was not, so that nobody trains on half of an annotation; and else
    `not_annotated`. Raises InputError: masks_unmatched (no mask belongs to an image),
    too_many_classes, label_order.
    """
    targets, of_row = targets_of(images)
    sources, unmatched = _matched(found, Matcher.of(images, targets, of_row))
    if not sources:
        raise InputError(
            f"None of the {len(found.files)} masks belongs to one of the {len(images)} images. "
            f"PNG and NIfTI masks have the path of their image relative to SOURCE, without its "
            f"extension, or a row in {TABLE_NAME}; DICOM objects refer to their images.",
            code="masks_unmatched",
        )
    names = ClassNames(dict(options.names))
    jobs = [
        Job(targets[n], tuple(sources[n]), names, options.resample, options.label_order)
        for n in sorted(sources)
    ]
    maps = folder / FOLDER
    maps.mkdir()
    made: dict[int, Made] = {}
    digests: dict[int, str] = {}
    types = (Made, Outcome)
    answers = map_files(
        engine,
        make_label_map,
        jobs,
        paths=_files_of,
        workers=workers,
        timeout_s=_job_seconds,
        progress=progress,
        saved=None
        if parts is None
        else SavedAnswers(parts, ("make_label_map",), types, lasting=_is_made),
    )
    for n, (job, answer) in zip(sorted(sources), answers, strict=True):
        if isinstance(answer, DicomError):
            lost = [Outcome(s.name, answer.code, str(answer)) for s in job.sources]
            answer = Made(lost)
        made[n] = answer
        if answer.data is not None:
            write_atomic(maps / f"{job.target.key}.npz", answer.data)
            digests[n] = hashlib.sha256(answer.data).hexdigest()
            answer.data = None
    classes = _classes(made, options)
    columns = _columns(images, of_row, made, digests, classes)
    index = _index(images, of_row, targets, columns["mask_state"], digests)
    write_index(maps, index, classes)
    report = _report(made, targets, unmatched)
    _write_report(folder, report)
    summary = _summary(found, report, made, targets, columns, classes)
    return Annotations(columns, summary, _warnings(summary))


def _seconds(path: str) -> float:
    size = Path(path).stat().st_size
    return active_limits().seconds * max(1.0, size / _BYTES_PER_TIME_LIMIT)


def _itself(path: str) -> list[str]:
    return [path]


def _files_of(job: Job) -> list[str]:
    """The files of a job; one that masks.csv names in vain is no reason to blame a machine."""
    return [source.path for source in job.sources if source.path and source.file_format != "none"]


def _is_made(made: Made) -> bool:
    """Whether every mask could be read: a file that could not may be there again."""
    return made.data is not None


def _job_seconds(job: Job) -> float:
    voxels = np.prod(job.target.shape, dtype=np.int64)
    masks = sum(_seconds(source.path) for source in job.sources if source.path)
    return active_limits().seconds * max(1.0, float(voxels) / (1 << 21)) + masks


def _matched(
    found: FoundMasks, matcher: Matcher
) -> tuple[dict[int, list[MaskSource]], list[Outcome]]:
    """The masks of each target, and those that belong to no image."""
    sources: dict[int, list[MaskSource]] = defaultdict(list)
    unmatched: list[Outcome] = []
    listed = {row.mask for row in found.rows}
    for row in found.rows:
        name = row.mask or f"{TABLE_NAME} row {row.number}"
        try:
            matches = matcher.by_row(row)
        except AnnotationError as error:
            unmatched.append(Outcome(name, error.code, str(error)))
            continue
        if not matches:
            text = f"Row {row.number} of {TABLE_NAME} names no accepted image."
            unmatched.append(Outcome(name, "mask_unmatched", text))
        for match in matches:
            sources[match.target].append(_listed_source(found, row, name, match))
    for name, file in found.files.items():
        if name in listed:
            continue
        try:
            matches, class_name = _matches_of(name, file, matcher)
        except DicomError as error:
            unmatched.append(Outcome(name, error.code, str(error)))
            continue
        for match in matches:
            source = MaskSource(
                str(found.root / name),
                name,
                file.file_format if isinstance(file, MaskFile) else "none",
                match.slice_number,
                class_name,
            )
            sources[match.target].append(source)
    return dict(sources), unmatched


def _matches_of(
    name: str, file: MaskFile | DicomError, matcher: Matcher
) -> tuple[list[Match], str]:
    """The targets of a file that no table names, and the class that its path names. Raises
    AnnotationError (ambiguous_mask, mask_unmatched), or what is wrong with the file.
    """
    if isinstance(file, MaskFile) and file.file_format in WITH_REFERENCES:
        matches, class_name = matcher.by_references(file.identity), ""
    else:
        matches, class_name = matcher.by_name(name)
    if not matches and isinstance(file, DicomError):
        raise file
    if not matches:
        raise AnnotationError("No accepted image belongs to this mask.", code="mask_unmatched")
    return matches, class_name


def _listed_source(found: FoundMasks, row: MaskRow, name: str, match: Match) -> MaskSource:
    file = found.files.get(row.mask)
    return MaskSource(
        str(found.root / row.mask) if row.mask else "",
        name,
        file.file_format if isinstance(file, MaskFile) else "none",
        match.slice_number,
        row.class_name,
        row.offset,
        declared=True,
    )


def _classes(made: Mapping[int, Made], options: MaskOptions) -> list[str]:
    """The classes of the cohort: in the order of mask_classes, else numbers first, ascending."""
    present = {name for each in made.values() for name in each.classes}
    declared = [name for name in dict.fromkeys(options.names.values()) if name]
    rest = sorted(
        present - set(declared), key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n)
    )
    classes = [*declared, *rest]
    if len(classes) > MAX_CLASSES:
        raise InputError(
            f"The masks have {len(classes)} classes; at most {MAX_CLASSES} are possible. If each "
            f"label is one object, give all of them one class: --mask-classes '*=NAME'.",
            code="too_many_classes",
        )
    if options.label_order is not None:
        named = {name.strip() for name in options.label_order.split("<")}
        if named != set(classes):
            raise InputError(
                f"The label order {options.label_order!r} must name each class once; the classes "
                f"are {', '.join(classes)}.",
                code="label_order",
            )
    return classes


def _columns(
    images: pd.DataFrame,
    of_row: Mapping[object, Match],
    made: Mapping[int, Made],
    digests: Mapping[int, str],
    classes: Sequence[str],
) -> pd.DataFrame:
    states, present = [], []
    voxels = np.full((len(images), len(classes)), np.nan)
    for n, name in enumerate(images.index):
        target, number = of_row[name]
        each = made.get(target)
        states.append(
            "not_annotated" if each is None else "annotated" if target in digests else "rejected"
        )
        if each is None or each.voxels is None:
            present.append("")
            continue
        counts = dict(zip(each.classes, each.voxels[number or 0].tolist(), strict=True))
        voxels[n] = [counts.get(c, 0) for c in classes]
        present.append(";".join(c for c in classes if counts.get(c)))
    columns = pd.DataFrame({"mask_state": states, "mask_classes": present}, index=images.index)
    for number, name in enumerate(classes):
        columns[VOXELS + name] = voxels[:, number]
    return columns


def _index(
    images: pd.DataFrame,
    of_row: Mapping[object, Match],
    targets: Sequence[Target],
    states: pd.Series,
    digests: Mapping[int, str],
) -> pd.DataFrame:
    matches = [of_row[name] for name in images.index]
    return pd.DataFrame(
        {
            "image": images["image"].to_numpy(),
            "series": images["series"].to_numpy(),
            "file": [f"{targets[t].key}.npz" if t in digests else "" for t, _ in matches],
            "slice": np.array([number or 0 for _, number in matches], np.int32),
            "state": states.to_numpy(),
            "rows": images["rows"].to_numpy(np.int32),
            "cols": images["cols"].to_numpy(np.int32),
            "sha256": [digests.get(t, "") for t, _ in matches],
            "order": images["order"].to_numpy(np.int32),
        }
    ).sort_values(["series", "order"], kind="stable")


def _report(
    made: Mapping[int, Made], targets: Sequence[Target], unmatched: Sequence[Outcome]
) -> pd.DataFrame:
    """One row per mask and target. A mask that could be used stays unused where another one of its
    image could not: reason other_mask_rejected.
    """
    rows = []
    for n, each in made.items():
        is_lost = any(outcome.code for outcome in each.outcomes)
        for outcome in each.outcomes:
            code, message = outcome.code, outcome.message
            if is_lost and not code:
                code, message = "other_mask_rejected", "Another mask of the image was rejected."
            state = "rejected" if code else "used"
            outcome.flags = (*outcome.flags, *each.flags)
            rows.append(_report_row(outcome, state, code, message, len(targets[n].images)))
    rows += [_report_row(o, "unmatched", o.code, o.message, 0) for o in unmatched]
    return pd.DataFrame(rows, columns=list(REPORT_COLUMNS)).sort_values("mask", kind="stable")


def _report_row(outcome: Outcome, state: str, code: str, message: str, images: int) -> tuple:
    volumes = "; ".join(
        f"{name} {ml:.4g}>{outcome.after_ml[name]:.4g}" for name, ml in outcome.before_ml.items()
    )
    return (
        *(outcome.name, state, code, message, images, ";".join(outcome.classes)),
        *(";".join(outcome.flags), round(outcome.changed, 6), volumes),
    )


def _write_report(folder: Path, report: pd.DataFrame) -> None:
    rows = [
        {str(k): escape_formula(str(v)) for k, v in row.items()}
        for row in report.to_dict("records")
    ]
    write_atomic(folder / "annotations.csv", csv_bytes(rows, REPORT_COLUMNS))


def _summary(
    found: FoundMasks,
    report: pd.DataFrame,
    made: Mapping[int, Made],
    targets: Sequence[Target],
    columns: pd.DataFrame,
    classes: Sequence[str],
) -> dict[str, Any]:
    """The block `annotations` of ingest.json: given = used + rejected + unmatched + skipped."""
    # a mask of several images counts once, by the best that became of it
    rank = {"used": 0, "rejected": 1, "unmatched": 2}
    once = report.assign(rank=report["state"].map(rank)).sort_values("rank", kind="stable")
    states = Counter(once.drop_duplicates("mask")["state"])
    reasons = Counter(report["reason"][report["reason"] != ""])
    flags = Counter(flag for text in report["flags"] for flag in text.split(";") if flag)
    ml: dict[str, float | None] = dict.fromkeys(classes, 0.0)
    for each in made.values():
        if each.voxels is None:
            continue
        for name, count in zip(each.classes, each.voxels.sum(axis=0).tolist(), strict=True):
            so_far = ml[name]
            known = so_far is not None and each.voxel_ml is not None
            ml[name] = so_far + count * each.voxel_ml if known else None
    counts = columns["mask_state"].value_counts()
    resampled = report[report["flags"].str.split(";").map(lambda codes: "resampled" in codes)]
    changed = resampled["changed_share"].dropna()
    return {
        "given": sum(states.values()) + found.skipped,
        "used": states["used"],
        "rejected": states["rejected"],
        "unmatched": states["unmatched"],
        "skipped": found.skipped,
        "reasons": dict(sorted(reasons.items())),
        "flags": dict(sorted(flags.items())),
        "classes": list(classes),
        "images": {
            state: int(counts.get(state, 0)) for state in ("annotated", "not_annotated", "rejected")
        },
        "samples": {
            "annotated": sum(each.voxels is not None for each in made.values()),
            "not_annotated": len(targets) - len(made),
            "rejected": sum(each.voxels is None for each in made.values()),
        },
        "voxels": {name: int(np.nansum(columns[VOXELS + name])) for name in classes},
        "volume_ml": {
            name: None if value is None else round(value, 4) for name, value in ml.items()
        },
        "overlap_voxels": sum(each.overlap_voxels for each in made.values()),
        "resampled": len(resampled),
        "changed_share": {
            "mean": round(float(changed.mean()), 6) if len(changed) else 0.0,
            "max": round(float(changed.max()), 6) if len(changed) else 0.0,
        },
    }


def _warnings(summary: Mapping[str, Any]) -> list[str]:
    images, warnings = summary["images"], []
    if images["not_annotated"]:
        warnings.append(
            f"{images['not_annotated']} of {sum(images.values())} images have no mask: they are "
            f"not annotated, which is not the same as nothing there, and are not used to train "
            f"segmentation"
        )
    if images["rejected"]:
        reasons = ", ".join(f"{code} {count}" for code, count in summary["reasons"].items())
        warnings.append(
            f"{images['rejected']} images have a mask that cannot be used ({reasons}): they are "
            f"not used to train segmentation; see annotations.csv"
        )
    if summary["unmatched"]:
        warnings.append(f"{summary['unmatched']} masks belong to no accepted image")
    if summary["flags"].get("overlap") and not summary["flags"].get("overlap_resolved"):
        warnings.append(
            f"{summary['overlap_voxels']} voxels belong to more than one class: both are kept, "
            f"and one label map needs --label-order"
        )
    return warnings

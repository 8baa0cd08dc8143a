"""The index of the files: every file is inspected once in an isolated worker, and gets one row per
image or a reason why it is rejected.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from data_pipelines.errors import DicomError, InputError, NotDicom
from data_pipelines.ingestion.file_inspection import (
    Inspection,
    RejectedColumns,
    Rejection,
    inspect_path,
)
from data_pipelines.kinds import ColorRule, KindName, UnitName
from data_pipelines.runtime.archives import MARK, is_archive, members_of
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.walk import walk_files
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated
from data_pipelines.sources.image_source import is_array_file
from data_pipelines.sources.nifti import has_nifti_name

#: Raw identifiers, which the rows hold beside the manifest's columns. They never leave the process.
IDENTIFIERS = (
    *("sop_uid", "series_uid", "study_uid", "patient_id", "issuer"),
    *("patient_name", "birth_date", "accession_number"),
)

_BYTES_PER_TIME_LIMIT = 1 << 20  # an .npz may take the time of one file for each MiB

_VOLUME_BYTES_PER_TIME_LIMIT = 16 << 20


@dataclass(frozen=True)
class RejectedFile:
    """A file without a row. `skipped`: it is not DICOM at all; otherwise it is quarantined.

    columns: what its header says, None where it cannot be read. It never leaves the process.
    """

    source: str
    path: str
    reason: str
    message: str
    skipped: bool
    columns: RejectedColumns | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class FileIndex:
    """rows: one per frame of each accepted file, sorted by source (in the given order) and path.
    rejected: all other files.
    """

    rows: pd.DataFrame
    rejected: tuple[RejectedFile, ...]


def index_sources(
    sources: Sequence[Path | str],
    *,
    exclude: Sequence[Path] = (),
    for_processing: bool = False,
    units: UnitName | None = None,
    nifti_units: UnitName | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    follow_links: bool = False,
    color: ColorRule = "refuse",
    declared: KindName | None = None,
) -> FileIndex:
    """Inspect every file below `sources`, except those in `exclude`.

    for_processing: accept raw radiographs. units: also accept PNG, JPEG and .npz, with values in
    these units. nifti_units: those of NIfTI files. progress: called with (done, total) files.
    follow_links: see walk_files. color, declared: see accepted_images.

    The columns of the rows are source, path and those of IndexRow. Each image of an .npz counts as
    a file, with the path FILE.npz#SPLIT/NUMBER, and so does each member of an archive, with the
    path FILE.zip!/NAME. Raises InputError when a source is missing, or lies inside another one
    (code sources).
    """
    walks = [walk_files(source, follow_links=follow_links) for source in sources]
    roots = [
        walk.root / walk.files[0] if walk.files == (Path(source).name,) else walk.root
        for source, walk in zip(sources, walks, strict=True)
    ]
    _require_disjoint(roots)
    excluded = {str(Path(path).resolve()) for path in exclude}
    files = [(str(walk.root), path) for walk in walks for path in walk.files]
    files = [(root, path) for root, path in files if os.path.join(root, path) not in excluded]  # noqa: PTH118
    rejected = [
        RejectedFile(
            str(walk.root), path, reason, "Not a regular file: it is not opened.", skipped=True
        )
        for walk in walks
        for path, reason in walk.others
    ]
    files, unreadable = _with_members(files)
    rejected += unreadable
    rows: list[dict[str, object]] = []
    inspect = functools.partial(
        inspect_path,
        for_processing=for_processing,
        units=units,
        nifti_units=nifti_units,
        color=color,
        declared=declared,
    )
    paths = [os.path.join(root, path) for root, path in files]  # noqa: PTH118
    inspections = _inspect_all(inspect, paths, workers, progress)
    for (root, path), inspection in zip(files, inspections, strict=True):
        if isinstance(inspection, DicomError):
            inspection = [("", Rejection(inspection, None))]
        for suffix, image in inspection:
            if isinstance(image, Rejection):
                rejected.append(_rejected(root, path + suffix, image))
            else:
                rows.append({"source": root, "path": path + suffix, **image})
    return FileIndex(pd.DataFrame(rows), tuple(rejected))


def _rejected(root: str, path: str, rejection: Rejection) -> RejectedFile:
    error, columns = rejection
    skipped = isinstance(error, NotDicom)
    return RejectedFile(root, path, error.code, str(error), skipped, columns)


def _with_members(
    files: Sequence[tuple[str, str]],
) -> tuple[list[tuple[str, str]], list[RejectedFile]]:
    """The files, with the members of each archive in its place; and what cannot be read."""
    readable: list[tuple[str, str]] = []
    rejected = []
    for root, path in files:
        if not is_archive(path):
            readable.append((root, path))
            continue
        try:
            members = members_of(os.path.join(root, path))  # noqa: PTH118
        except DicomError as error:
            rejected.append(RejectedFile(root, path, error.code, str(error), skipped=False))
            continue
        if not members:
            text = "The archive has no file."
            rejected.append(RejectedFile(root, path, "archive_empty", text, skipped=True))
        for name, refusal in members.items():
            member = f"{path}{MARK}{name}"
            if refusal is None:
                readable.append((root, member))
            else:
                code, text = refusal.code, str(refusal)
                rejected.append(RejectedFile(root, member, code, text, skipped=False))
    return readable, rejected


def _inspect_all(
    inspect: Callable[[str], Inspection],
    paths: list[str],
    workers: int | None,
    progress: ProgressCallback | None,
) -> list[Inspection | DicomError]:
    """What each file contains, or why it is rejected, in the order of `paths`."""
    arrays = {n for n, path in enumerate(paths) if is_array_file(path) and MARK not in path}
    others = [path for n, path in enumerate(paths) if n not in arrays]
    timeout_s = _seconds_of if any(map(has_nifti_name, others)) else None
    answers = map_isolated(inspect, others, workers=workers, timeout_s=timeout_s, progress=progress)
    results = iter([result for _, result in answers])
    inspections: list[Inspection | DicomError] = []
    for n, path in enumerate(paths):
        inspections.append(_inspect_npz(inspect, path) if n in arrays else next(results))
        if progress is not None and n in arrays:
            progress(n + 1, len(paths))
    return inspections


def _seconds_of(path: str) -> float:
    """The time limit of one file. That of a NIfTI file, which is a whole volume, grows with its
    size.
    """
    seconds = active_limits().seconds
    if not has_nifti_name(path) or MARK in path:
        return seconds
    return seconds * max(1.0, Path(path).stat().st_size / _VOLUME_BYTES_PER_TIME_LIMIT)


def _inspect_npz(inspect: Callable[[str], Inspection], path: str) -> Inspection | DicomError:
    """An .npz holds many images: its time limit grows with its size."""
    factor = max(1.0, Path(path).stat().st_size / _BYTES_PER_TIME_LIMIT)
    seconds = active_limits().seconds * factor
    ((_, result),) = map_isolated(inspect, [path], workers=1, timeout_s=lambda _: seconds)
    return result


def _require_disjoint(roots: Sequence[Path]) -> None:
    for a, b in itertools.permutations(roots, 2):
        if a.is_relative_to(b):
            raise InputError(
                f"SOURCE {a} is given twice or lies inside SOURCE {b}. Give each file once.",
                code="sources",
            )

"""From folders to the index: every file below the sources, and every member of an archive."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import pandas as pd

from data_pipelines.errors import DicomError, InputError
from data_pipelines.ingestion.file_inspection import inspect_path
from data_pipelines.ingestion.index.entries import FileIndex, RejectedFile
from data_pipelines.ingestion.index.parts import (
    PartIndex,
    check_part,
    compute_parts,
    cut_into_parts,
    remove_other_parts,
)
from data_pipelines.kinds import ColorRule, KindName, UnitName
from data_pipelines.runtime.archives import MARK, is_archive, members_of
from data_pipelines.runtime.engines.engine import LOCAL, Engine
from data_pipelines.runtime.engines.shared import shared_unless
from data_pipelines.runtime.object_stores import is_url, joined, list_url, local_path
from data_pipelines.runtime.walk import walk_files
from data_pipelines.runtime.worker_pool import ProgressCallback


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
    parts: Path | None = None,
    engine: Engine = LOCAL,
) -> FileIndex:
    """Inspect every file below `sources`, except those in `exclude`.

    for_processing: accept raw radiographs. units: also accept PNG, JPEG and .npz, with values in
    these units. nifti_units: those of NIfTI files. progress: called with (done, total) files.
    follow_links: see walk_files. color, declared: see accepted_images. parts: a folder for the
    answers of finished parts (see parts.py), so that the same call after a crash reads the files of
    the others only; the caller removes it. It is never a source. engine: where parts are computed.

    The columns of the rows are source, path and those of IndexRow. Each image of an .npz counts as
    a file, with the path FILE.npz#SPLIT/NUMBER, and so does each member of an archive, with the
    path FILE.zip!/NAME. Raises InputError when a source is missing, or lies inside another one
    (code sources).
    """
    walks = [_walk(source, follow_links) for source in sources]
    _require_disjoint([walk.top for walk in walks])
    rejected = [
        RejectedFile(walk.root, path, reason, "Not a regular file: it is not opened.", skipped=True)
        for walk in walks
        for path, reason in walk.others
    ]
    files, unreadable = _with_members(_listed_files(walks, exclude, parts))
    options: dict[str, Any] = {
        "for_processing": for_processing,
        "units": units,
        "nifti_units": nifti_units,
        "color": color,
        "declared": declared,
    }
    cuts = cut_into_parts(files, options, named=parts is not None or not engine.is_local)
    if parts is not None:
        remove_other_parts(cuts, parts)
    compute = functools.partial(
        compute_parts, inspect=functools.partial(inspect_path, **options), folder=parts
    )
    with shared_unless(engine.is_local, parts) as marker:
        results = engine.run(
            compute,
            cuts,
            sizes=[len(part.files) for part in cuts],
            check=functools.partial(check_part, marker=marker),
            workers=workers,
            progress=progress,
        )
        index = _together(sorted(results), [*rejected, *unreadable])
    if parts is not None and index.rows.empty:  # there will be no manifest: nothing to resume
        shutil.rmtree(parts, ignore_errors=True)
    return index


class _Walk(NamedTuple):
    """As `Walk`, with a URL or the path of a folder as root. top: what was given as the source."""

    root: str
    top: str
    files: tuple[str, ...]
    others: tuple[tuple[str, str], ...]


def _walk(source: Path | str, follow_links: bool) -> _Walk:
    source = local_path(source)
    if is_url(source):
        root, paths = list_url(str(source))
        return _Walk(root, str(source).rstrip("/"), paths, ())
    walk = walk_files(source, follow_links=follow_links)
    is_file = walk.files == (Path(source).name,)
    top = walk.root / walk.files[0] if is_file else walk.root
    return _Walk(str(walk.root), str(top), walk.files, walk.others)


def _listed_files(
    walks: Sequence[_Walk], exclude: Sequence[Path], parts: Path | None
) -> list[tuple[str, str]]:
    """(root, path) of the files to inspect."""
    excluded = {str(Path(path).resolve()) for path in exclude}
    inside = None if parts is None else f"{Path(parts).resolve()}{os.sep}"
    files = []
    for walk in walks:
        for path in walk.files:
            full = joined(walk.root, path)
            if full not in excluded and not (inside and full.startswith(inside)):
                files.append((walk.root, path))
    return files


def _together(indexes: Sequence[PartIndex], rejected: Sequence[RejectedFile]) -> FileIndex:
    """One index of all parts, in their order; the other rejected files come first."""
    tables = [part.content.rows for part in indexes if not part.content.rows.empty]
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    of_parts = (file for part in indexes for file in part.content.rejected)
    return FileIndex(rows, (*rejected, *of_parts))


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
        if is_url(root):
            text = "An archive in an object store is not opened. Unpack it there, or copy it."
            rejected.append(RejectedFile(root, path, "archive_in_store", text, skipped=False))
            continue
        try:
            members = members_of(joined(root, path))
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


def _require_disjoint(roots: Sequence[str]) -> None:
    for a, b in itertools.permutations(roots, 2):
        if PurePath(a).is_relative_to(PurePath(b)):
            raise InputError(
                f"SOURCE {a} is given twice or lies inside SOURCE {b}. Give each file once.",
                code="sources",
            )

"""Looking at every file once: walk, have each file inspected in an isolated worker, give a reason
or a row.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.errors import DicomError, InputError, NotDicom
from data_pipelines.ingestion.file_inspection import inspect_path
from data_pipelines.kinds import UnitName
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.walk import walk_files
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated

#: Raw identifiers that the rows hold besides the manifest's columns; they never leave the process.
IDENTIFIERS = ("sop_uid", "series_uid", "study_uid", "patient_id", "issuer")


_ARRAY_BYTES = 1 << 20  # of an .npz, which may take the time of one file


@dataclass(frozen=True)
class RejectedFile:
    """A file without a row. `skipped`: it is not DICOM at all."""

    source: str
    path: str
    reason: str
    message: str
    skipped: bool


@dataclass(frozen=True, eq=False)
class FileIndex:
    """`rows`: one a frame of each sound file, sorted by source (as given) and path; `rejected`: all
    other files.
    """

    rows: pd.DataFrame
    rejected: tuple[RejectedFile, ...]


def index_sources(
    sources: Sequence[Path | str],
    *,
    exclude: Sequence[Path] = (),
    for_processing: bool = False,
    units: UnitName | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> FileIndex:
    """Look at every file below `sources` but those in `exclude`. Raises InputError where a source
    is missing or inside another one. `for_processing` accepts raw radiographs; `units` lets PNG,
    JPEG and .npz in and says what their values are; `progress` is called with (done, total) files.

    Row columns: the technical ones of the manifest, IDENTIFIERS, look and plane; of an .npz also
    own_split and own_labels. Its images count as files, by the path FILE.npz#SPLIT/NUMBER.
    """
    walks = [walk_files(source) for source in sources]
    _require_apart(
        [
            w.root / w.files[0] if Path(s).is_file() else w.root
            for s, w in zip(sources, walks, strict=True)
        ]
    )
    left_out = {str(Path(path).resolve()) for path in exclude}
    places = [(str(w.root), path) for w in walks for path in w.files]
    places = [(root, path) for root, path in places if os.path.join(root, path) not in left_out]  # noqa: PTH118
    rejected = [
        RejectedFile(
            str(w.root), path, reason, "Not a regular file: it is not opened.", skipped=True
        )
        for w in walks
        for path, reason in w.others
    ]
    items = [os.path.join(root, path) for root, path in places]  # noqa: PTH118
    rows: list[dict[str, Any]] = []
    look = functools.partial(inspect_path, for_processing=for_processing, units=units)
    answers = _answers(look, items, workers, progress)
    for (root, path), answer in zip(places, answers, strict=True):
        for name, found in [("", answer)] if isinstance(answer, DicomError) else answer:
            if isinstance(found, DicomError):
                skipped = isinstance(found, NotDicom)
                rejected.append(RejectedFile(root, path + name, found.code, str(found), skipped))
            else:
                rows.append({"source": root, "path": path + name, **found})
    return FileIndex(pd.DataFrame(rows), tuple(rejected))


def _answers(
    look: Callable[[str], Any],
    items: list[str],
    workers: int | None,
    progress: ProgressCallback | None,
) -> list[Any]:
    """What each file gives, or the reason, in order. An .npz holds many images: its limit of time
    grows with its size.
    """
    arrays = {n for n, path in enumerate(items) if path.lower().endswith(".npz")}
    others = [path for n, path in enumerate(items) if n not in arrays]
    found = iter(
        [answer for _, answer in map_isolated(look, others, workers=workers, progress=progress)]
    )
    return [
        _answer_of_array(look, path) if n in arrays else next(found) for n, path in enumerate(items)
    ]


def _answer_of_array(look: Callable[[str], Any], path: str) -> Any:
    seconds = active_limits().seconds * max(1.0, Path(path).stat().st_size / _ARRAY_BYTES)
    ((_, answer),) = map_isolated(look, [path], workers=1, timeout_s=seconds)
    return answer


def _require_apart(places: Sequence[Path]) -> None:
    for a, b in itertools.permutations(places, 2):
        if a.is_relative_to(b):
            raise InputError(
                f"SOURCE {a} is given twice or lies inside SOURCE {b}. Give each file once.",
                code="sources",
            )

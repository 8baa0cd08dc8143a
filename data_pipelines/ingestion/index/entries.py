"""What the index says of a file: rows of images, or why it is rejected; and both as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, cast

import pandas as pd

from data_pipelines.errors import DicomError, NotDicom
from data_pipelines.ingestion.file_inspection import Inspection, RejectedColumns, Rejection
from data_pipelines.pixels.standardization import Moments
from data_pipelines.volumes.plane import Plane

#: Raw identifiers, which the rows hold beside the manifest's columns.
IDENTIFIERS = (
    *("sop_uid", "series_uid", "study_uid", "patient_id", "issuer"),
    *("patient_name", "birth_date", "accession_number"),
)


@dataclass(frozen=True)
class RejectedFile:
    """A file without a row. `skipped`: it is not DICOM at all; otherwise it is quarantined.

    columns: what its header says, None where it cannot be read. The manifest has none of it.
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


class FileAnswer(NamedTuple):
    """What the index says of one file. lasting: False where the file could not be read, or a worker
    was lost: another run may have another answer.
    """

    entries: list[dict[str, Any] | RejectedFile]
    lasting: bool


def answer_of(root: str, path: str, inspection: Inspection | DicomError) -> FileAnswer:
    """The entries of one file; those of an array file have the paths FILE#NAME."""
    if isinstance(inspection, DicomError):
        return FileAnswer([_rejected(root, path, Rejection(inspection, None))], lasting=False)
    return FileAnswer(
        [
            _rejected(root, path + suffix, image)
            if isinstance(image, Rejection)
            else {"source": root, "path": path + suffix, **image}
            for suffix, image in inspection
        ],
        lasting=True,
    )


def _rejected(root: str, path: str, rejection: Rejection) -> RejectedFile:
    error, columns = rejection
    skipped = isinstance(error, NotDicom)
    return RejectedFile(root, path, error.code, str(error), skipped, columns)


def index_of(answers: Iterable[FileAnswer]) -> FileIndex:
    """The rows as a table of compact columns, and the rejected files."""
    entries = [entry for answer in answers for entry in answer.entries]
    rows = [entry for entry in entries if not isinstance(entry, RejectedFile)]
    shared: dict[str, Any] = {}
    for row in rows:
        row["plane"] = _shared_plane(row["plane"], shared)
    rejected = tuple(entry for entry in entries if isinstance(entry, RejectedFile))
    return FileIndex(pd.DataFrame(rows), rejected)


def _shared_plane(plane: Plane, shared: dict[str, Any]) -> Plane:
    """An equal plane whose values are shared with other planes: slices of a series differ in few.
    The texts of values are compared, because 0.0 equals -0.0.
    """
    values = [shared.setdefault(repr(value), value) for value in _values(plane)]
    return cast(Plane, shared.setdefault(repr(values), Plane(*values)))


def _values(plane: Plane) -> tuple[Any, ...]:
    return tuple(getattr(plane, name) for name in Plane.__dataclass_fields__)


def dump_answers(answers: Iterable[FileAnswer | None]) -> str:
    """JSON of the answers of some files; null for one that does not last."""
    return json.dumps(
        [
            None
            if answer is None or not answer.lasting
            else [
                {"rejected": asdict(entry)}
                if isinstance(entry, RejectedFile)
                else {"row": {**entry, "plane": _values(entry["plane"])}}
                for entry in answer.entries
            ]
            for answer in answers
        ],
        default=lambda number: number.item(),
        separators=(",", ":"),
    )


def load_answers(text: str) -> list[FileAnswer | None]:
    """The answers that `dump_answers` wrote."""
    return [
        None if entries is None else FileAnswer([_entry(**entry) for entry in entries], True)
        for entries in json.loads(text)
    ]


def _entry(
    row: dict[str, Any] | None = None, rejected: dict[str, Any] | None = None
) -> dict[str, Any] | RejectedFile:
    if row is None:
        fields = dict(rejected or {})
        columns = fields.pop("columns")
        return RejectedFile(**fields, columns=columns and _with_tuples(columns))
    row["plane"] = Plane(*_with_tuples(dict(enumerate(row["plane"]))).values())
    row = _with_tuples(row)
    return row if "moments" not in row else {**row, "moments": Moments(*row["moments"])}


def _with_tuples(values: dict[Any, Any]) -> Any:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

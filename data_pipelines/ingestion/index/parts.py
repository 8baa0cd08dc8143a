"""The parts of the index: sets of files whose answers are written to disk as soon as all are known.

A part is a file named by a hash of all that its answers depend on: names, sizes, modification times
and inodes of its files, the options, the limits, and the code. An existing part is read instead of
its files, so that computing a part twice changes nothing. It is written under a temporary name,
flushed and renamed. Parts hold raw identifiers of patients: only their owner may read them, and
they are removed when the manifest is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.errors import EngineError
from data_pipelines.ingestion.file_inspection import Inspection
from data_pipelines.ingestion.index.entries import (
    FileAnswer,
    FileIndex,
    answer_of,
    dump_answers,
    index_of,
    load_answers,
)
from data_pipelines.runtime.archives import MARK
from data_pipelines.runtime.atomic_files import write_atomic
from data_pipelines.runtime.engines.shared import (
    code_version,
    not_shared,
    require_files,
    require_marker,
    this_machine,
)
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.object_stores import FileState, is_url, joined, state_of
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated
from data_pipelines.sources.image_source import is_array_file
from data_pipelines.sources.nifti import has_nifti_name

MAX_FILES = 256  # of a part
MIN_PARTS = 40  # where there are so many files: what is lost by a kill is less than a part

_BYTES_PER_TIME_LIMIT = 1 << 20  # an .npz may take the time of one file for each MiB
_VOLUME_BYTES_PER_TIME_LIMIT = 16 << 20


class Part(NamedTuple):
    """Files (root, path), the name of the file of their answers, and a hash of their states."""

    number: int
    files: tuple[tuple[str, str], ...]
    name: str
    states: str = ""


class PartIndex(NamedTuple):
    """The index of the files of one part."""

    number: int
    content: FileIndex


def cut_into_parts(
    files: Sequence[tuple[str, str]], options: Mapping[str, Any], *, named: bool
) -> list[Part]:
    """The parts of all files, in their order. options: of the inspection. named: False where no
    part is written, so that no name is needed.
    """
    size = max(1, min(MAX_FILES, len(files) // MIN_PARTS))
    cuts = [tuple(files[start : start + size]) for start in range(0, len(files), size)]
    if not named:
        return [Part(number, cut, "") for number, cut in enumerate(cuts)]
    context = [code_version(), dict(options), asdict(active_limits())]
    parts = []
    for number, cut in enumerate(cuts):
        states = [_state(root, path) for root, path in cut]
        parts.append(Part(number, cut, _name(cut, states, context), _hash_of(states)))
    return parts


def check_part(part: Part, marker: str | None) -> None:
    """Raise EngineError unless this machine sees the files of a part as the machine that cut it
    (source_not_shared, source_differs), and the folder of the parts (work_not_shared).

    marker: see `shared_marker`; None where no folder is shared.
    """
    if marker is not None:
        require_marker(marker)
    if is_url(part.files[0][0]):  # a store is the same everywhere; one object shows that it is seen
        require_files([joined(*part.files[0])])
        return
    states = [_state(root, path) for root, path in part.files]
    for (root, path), state in zip(part.files, states, strict=True):
        if state is None and part.states:
            raise not_shared(joined(root, path))
    if part.states not in ("", _hash_of(states)):
        raise EngineError(
            f"Files below {part.files[0][0]} have other sizes or times on {this_machine()}: it has "
            f"another folder at that path, or the files are being changed. Mount the same storage "
            f"on every machine, and run again when nothing writes to it.",
            code="source_differs",
        )


def compute_parts(
    parts: Sequence[Part],
    /,
    *,
    inspect: Callable[[str], Inspection],
    folder: Path | None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[PartIndex]:
    """Yield the index of each part, in any order: parts that are in `folder` are read from there;
    the files of others are inspected in isolated workers, and their answers are written there.

    folder: None keeps the answers in memory. progress: called with (done, total) files. Files whose
    answer does not last (see FileAnswer) are inspected again.
    """
    unfinished: list[tuple[Part, list[FileAnswer | None]]] = []
    for part in parts:
        answers = read_part(part, folder)
        if None in answers:
            unfinished.append((part, answers))
        else:
            yield _part_index(part, answers)
    paths = [
        joined(*file)
        for part, answers in unfinished
        for file, answer in zip(part.files, answers, strict=True)
        if answer is None
    ]
    total = sum(len(part.files) for part in parts)

    def update(done: int, count: int) -> None:
        if progress is not None:
            progress(total - count + done, total)

    results = map_isolated(inspect, paths, workers=workers, timeout_s=_seconds, progress=update)
    for part, answers in unfinished:
        for n, (root, path) in enumerate(part.files):
            if answers[n] is None:
                answers[n] = answer_of(root, path, next(results)[1])
        if folder is not None:
            write_part(part, answers, folder)
        yield _part_index(part, answers)
        answers.clear()  # rows as dictionaries take four times the memory of the table
    next(results, None)  # the last call of `progress`
    if not paths:
        update(0, 0)


def read_part(part: Part, folder: Path | None) -> list[FileAnswer | None]:
    """The answers of an earlier run by file; None for each that is not known."""
    unknown: list[FileAnswer | None] = [None] * len(part.files)
    if folder is None:
        return unknown
    try:
        digest, _, text = (folder / part.name).read_text().partition("\n")
    except (OSError, UnicodeDecodeError):
        return unknown
    return load_answers(text) if digest == _sha256(text) else unknown


def write_part(part: Part, answers: Sequence[FileAnswer | None], folder: Path) -> None:
    """Write the answers of a part, as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = dump_answers(answers)
    write_atomic(folder / part.name, f"{_sha256(text)}\n{text}".encode(), mode=0o600)


def remove_other_parts(parts: Sequence[Part], folder: Path) -> None:
    """Remove parts of other files, options or code: nothing will read them."""
    names = {part.name for part in parts}
    for path in folder.glob("*.part"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def _part_index(part: Part, answers: Sequence[FileAnswer | None]) -> PartIndex:
    return PartIndex(part.number, index_of(answer for answer in answers if answer is not None))


def _name(
    files: Sequence[tuple[str, str]], states: Sequence[FileState | None], context: Sequence[Any]
) -> str:
    known = [(*file, state) for file, state in zip(files, states, strict=True)]
    return f"{_sha256(json.dumps([*context, known]))[:32]}.part"


def _hash_of(states: Sequence[FileState | None]) -> str:
    """A hash of sizes and times; the number of an inode may differ between machines."""
    return _sha256(json.dumps([state and state[:2] for state in states]))


def _state(root: str, path: str) -> FileState | None:
    """The state of a file or of the archive that holds it; None where it is not there."""
    return state_of(joined(root, path).split(MARK)[0])


def _seconds(path: str) -> float:
    """The time limit of one file. That of a file with many images grows with its size."""
    seconds = active_limits().seconds
    if MARK in path or not (is_array_file(path) or has_nifti_name(path)):
        return seconds
    unit = _VOLUME_BYTES_PER_TIME_LIMIT if has_nifti_name(path) else _BYTES_PER_TIME_LIMIT
    state = state_of(path)
    return seconds * max(1.0, (0 if state is None else state[0]) / unit)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

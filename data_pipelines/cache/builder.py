"""Making a cache: samples prepared in decode workers and written shard by shard, resumable.

A cache grows in WORK/cache/.building-<name>. Each shard is written under a temporary name, flushed,
renamed, and described in its own file. After a crash the next build checks those files and resumes
from there. Only one process at a time builds below a WORK.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data_pipelines.cache.annotations import AnnotationSource
from data_pipelines.cache.plan import (
    CachePlan,
    Shard,
    file_refs,
    format_left_out,
    plan_samples,
    with_annotations,
)
from data_pipelines.cache.worker import FileRef, WorkItem, prepare_files
from data_pipelines.errors import CacheError, DicomError
from data_pipelines.preprocessing.samples import SampleSlices
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.archives import archive_or_file
from data_pipelines.runtime.atomic_files import file_sha256, sync_folder, write_atomic
from data_pipelines.runtime.backend import require_tensorflow
from data_pipelines.runtime.engines.engine import LOCAL, Engine
from data_pipelines.runtime.engines.shared import require_files, require_marker, shared_unless
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.object_stores import joined
from data_pipelines.runtime.worker_pool import ProgressCallback, map_isolated

SAMPLES_PER_TASK = 32  # samples whose slices one worker reads together
_SECONDS_PER_SLICE = 0.5  # allowed beyond the limit of one file

LogCallback = Callable[[str], None]


class ShardEntry(Shard):
    """A finished shard, as cache.json names it."""

    bytes: int
    sha256: str


def build(
    table: pd.DataFrame,
    spec: PreprocessSpec,
    folder: Path,
    index: dict[str, Any],
    *,
    annotations: AnnotationSource | None = None,
    workers: int | None = None,
    engine: Engine = LOCAL,
    progress: ProgressCallback | None = None,
    log: LogCallback | None = None,
) -> None:
    """Make the cache `folder`, or wait for the process that is making it. A build that was killed
    is resumed.

    progress: called with (done, total): of the headers, where positions of slices are needed, then
    of the samples. engine: where the shards are written. annotations: label maps or boxes of the
    rows of `table`, to be stored too. index: what cache.json holds besides the shards. log:
    receives one line of text at a time.
    Raises CacheError if a source file changed since ingest (code source_changed), and, before the
    first byte is written, if the disk is too full (code no_space).
    """
    log = log or (lambda line: None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _build_lock(folder, log) as building:
        if folder.exists():
            return
        plan = plan_samples(table, spec, workers, progress, engine)
        plan = plan if annotations is None else with_annotations(plan, annotations)
        building.mkdir(exist_ok=True)
        shards = plan.shards()
        finished = [_finished_shard(building, shard) for shard in shards]
        _require_space(plan, building, sum(entry["bytes"] for entry in finished if entry), log)
        try:
            entries = _write_missing(plan, building, shards, finished, workers, progress, engine)
        except CacheError:  # a source that cannot be used: there is nothing to resume
            shutil.rmtree(building)
            raise
        _finish(plan, building, index, entries)
        building.rename(folder)
        sync_folder(folder.parent)


def dump_checksummed(index: dict[str, Any]) -> bytes:
    """JSON without white space that ends with the SHA-256 of everything before: no byte of it can
    change unnoticed.
    """
    text = json.dumps(index, separators=(",", ":"), sort_keys=True)
    return f'{text[:-1]},"zz_sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}'.encode()


def load_checksummed(data: bytes) -> dict[str, Any]:
    """The index that `dump_checksummed` wrote. Raises ValueError if a byte changed.

    >>> load_checksummed(dump_checksummed({"key": 1}))["key"]
    1
    """
    index = json.loads(data)
    if (
        not isinstance(index, dict)
        or dump_checksummed({k: v for k, v in index.items() if k != "zz_sha256"}) != data
    ):
        raise ValueError("the index was changed")
    return index


@contextlib.contextmanager
def _build_lock(folder: Path, log: LogCallback) -> Iterator[Path]:
    """Yield the building folder with the lock on WORK/cache held; the system frees it when the
    process dies.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock: build in a folder that nobody else resumes
        building = folder.with_name(f".building-{folder.name}-{uuid.uuid4().hex[:8]}")
        try:
            yield building
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return
    handle = os.open(folder.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another process is building a cache here: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder.with_name(f".building-{folder.name}")
    finally:
        os.close(handle)


def _require_space(plan: CachePlan, building: Path, finished: int, log: LogCallback) -> None:
    """finished: bytes of the shards that are there already."""
    needed, free = plan.size - finished, shutil.disk_usage(building).free
    resumed = f", {_mib(finished)} of them already there" if finished else ""
    left_out = f"; left out: {format_left_out(plan.left_out)}" if plan.left_out else ""
    log(f"{len(plan.samples)} samples of {plan.spec.name}, {_mib(plan.size)}{resumed}{left_out}")
    shares = [sample.interpolated for sample in plan.samples if sample.interpolated]
    if shares:
        log(
            f"warning: {len(shares)} volumes have interpolated slices, up to {max(shares):.0%} of "
            f"a volume; images.parquet has the share of each"
        )
    if needed > free:
        raise CacheError(
            f"the cache needs {_mib(needed)} and the disk has {_mib(free)} left: make room or "
            f"choose a smaller preset",
            code="no_space",
        )


def _finished_shard(building: Path, shard: Shard) -> ShardEntry | None:
    """The entry of a shard that an earlier process finished, if it is still whole."""
    path = building / shard["file"]
    try:
        entry = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return None
    same = isinstance(entry, dict) and all(
        entry.get(name) == value for name, value in shard.items()
    )
    return entry if same and path.is_file() and file_sha256(path) == entry.get("sha256") else None


class ShardWork(NamedTuple):
    """A shard, and the work that gives its samples in their order."""

    shard: Shard
    items: list[WorkItem]


def _write_missing(
    plan: CachePlan,
    building: Path,
    shards: list[Shard],
    finished: list[ShardEntry | None],
    workers: int | None,
    progress: ProgressCallback | None,
    engine: Engine,
) -> list[ShardEntry]:
    """Write the shards that are not finished; returns the entries of all."""
    files = file_refs(plan.table)
    parts = [
        ShardWork(shard, _work_items(plan, files, _numbers(shard)))
        for shard, entry in zip(shards, finished, strict=True)
        if entry is None
    ]
    sizes = [part.shard["records"] for part in parts]
    total = len(plan.samples)

    def update(done: int, count: int) -> None:
        if progress is not None:
            progress(total - count + done, total)

    with shared_unless(engine.is_local, building) as marker:
        written = engine.run(
            functools.partial(write_shards, building=building),
            parts,
            sizes=sizes,
            check=functools.partial(check_shard, marker=marker),
            workers=workers,
            progress=update,
        )
        return [entry or next(written) for entry in finished]


def write_shards(
    parts: Sequence[ShardWork],
    /,
    *,
    building: Path,
    workers: int | None,
    progress: ProgressCallback | None,
) -> Iterator[ShardEntry]:
    """Write shards into the building folder, except those that are there; yields all entries.
    progress: called with (done, total) samples.
    """
    finished = [_finished_shard(building, part.shard) for part in parts]
    missing = [part for part, entry in zip(parts, finished, strict=True) if entry is None]
    total = sum(part.shard["records"] for part in missing)
    items = [item for part in missing for item in part.items]
    samples = _with_progress(_prepared(items, workers), total, progress)
    for part, entry in zip(parts, finished, strict=True):
        yield entry or _write_shard(building, part.shard, samples)


def check_shard(part: ShardWork, marker: str | None) -> None:
    """Raise EngineError unless this machine sees the building folder (work_not_shared) and the
    source files (source_not_shared).
    """
    if marker is not None:
        require_marker(marker)
    files = {(file.source, file.path.partition("#")[0]) for i in part.items for file in i.files}
    require_files(name for file in sorted(files) for name in archive_or_file(joined(*file)))


def _numbers(shard: Shard) -> range:
    return range(shard["first"], shard["first"] + shard["records"])


def _with_progress(
    samples: Iterator[tuple[np.ndarray, ...]], total: int, progress: ProgressCallback | None
) -> Iterator[tuple[np.ndarray, ...]]:
    for done, sample in enumerate(samples, start=1):
        if progress is not None:
            progress(done, total)
        yield sample


def _write_shard(
    building: Path, shard: Shard, samples: Iterator[tuple[np.ndarray, ...]]
) -> ShardEntry:
    tf = require_tensorflow()
    path = building / shard["file"]
    partial = path.with_suffix(f".{uuid.uuid4().hex[:8]}.partial")  # a lost task may still write
    with tf.io.TFRecordWriter(str(partial)) as writer:
        for row in range(shard["first"], shard["first"] + shard["records"]):
            arrays = (np.int32(row), *next(samples))
            writer.write(b"".join(array.tobytes() for array in arrays))
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    entry: ShardEntry = {**shard, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    write_atomic(path.with_suffix(".json"), json.dumps(entry).encode())
    return entry


def _finish(
    plan: CachePlan, building: Path, index: dict[str, Any], entries: list[ShardEntry]
) -> None:
    """Leave the shards, the tables and the index that names them all, and nothing else."""
    tables = {"images.parquet": plan.images}
    if plan.spec.layout != "image":
        tables["slices.parquet"] = plan.slices
    for name, table in tables.items():
        write_atomic(building / name, table.to_parquet(index=False))
    digests = {name: file_sha256(building / name) for name in tables}
    whole = {**index, "shards": entries, "tables": digests, "left_out": plan.left_out}
    write_atomic(building / "cache.json", dump_checksummed(whole))
    described = [building / Path(entry["file"]).with_suffix(".json") for entry in entries]
    for path in [*building.glob("*.partial"), *described]:
        path.unlink(missing_ok=True)


def _prepared(items: Sequence[WorkItem], workers: int | None) -> Iterator[tuple[np.ndarray, ...]]:
    """Prepared integers, and annotations, of the samples of the items, in their order."""
    seconds = active_limits().seconds

    def limit(item: WorkItem) -> float:
        return seconds + _SECONDS_PER_SLICE * len(item.files)

    for item, answer in map_isolated(prepare_files, items, workers=workers, timeout_s=limit):
        if isinstance(answer, DicomError):
            others = len(item.files) - 1
            where = f" and the {others} images that go with it" if others else ""
            raise CacheError(f"{item.files[0].path}{where}: {answer}", code=answer.code) from answer
        yield from answer


def _work_items(
    plan: CachePlan, files: Sequence[FileRef], numbers: Sequence[int]
) -> list[WorkItem]:
    """Work for the decode workers: samples that need the same files go together, at most
    SAMPLES_PER_TASK of them; each volume is an item of its own. files: of the plan's table.
    """

    def paths(sample: SampleSlices) -> set[tuple[str, str]]:
        return {(files[n].source, files[n].path) for n in sample.slice_indices}

    runs: list[list[SampleSlices]] = []
    for sample in (plan.samples[n] for n in numbers):
        joins = (
            runs
            and plan.spec.layout != "volume"
            and len(runs[-1]) < SAMPLES_PER_TASK
            and paths(runs[-1][-1]) & paths(sample)
        )
        if joins:
            runs[-1].append(sample)
        else:
            runs.append([sample])
    return [_work_item(run, files, plan) for run in runs]


def _work_item(run: list[SampleSlices], files: Sequence[FileRef], plan: CachePlan) -> WorkItem:
    rows = sorted({n for sample in run for n in sample.slice_indices})
    index = {row: n for n, row in enumerate(rows)}
    samples = [replace(s, slice_indices=tuple(index[n] for n in s.slice_indices)) for s in run]
    source = None if plan.annotations is None else plan.annotations.at(rows)
    return WorkItem(tuple(files[row] for row in rows), tuple(samples), plan.spec, source)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

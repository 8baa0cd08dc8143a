"""Making a cache: records prepared in decode workers and written shard by shard, resumable.

A cache grows in WORK/cache/.building-<name>; each shard is written under a temporary name, flushed,
renamed, and noted in a file of its own. Whoever comes after a crash checks what is noted and goes
on from there. One process at a time builds below a WORK.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.cache.plan import CachePlan, format_left_out, plan_records
from data_pipelines.cache.worker import File, Item, prepare_files
from data_pipelines.errors import CacheError, DicomError
from data_pipelines.preprocessing.samples import SampleSlices
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.atomic_files import file_sha256, sync_folder, write_atomic
from data_pipelines.runtime.backend import require_tensorflow
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.worker_pool import map_isolated

SAMPLES_PER_TASK = 32  # records whose slices are read by one worker together
_SECONDS_A_SLICE = 0.5  # allowed beyond the limit for one file

ProgressCallback = Callable[[int, int], None]
Tell = Callable[[str], None]


def build(
    table: pd.DataFrame,
    spec: PreprocessSpec,
    folder: Path,
    index: dict[str, Any],
    *,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    tell: Tell | None = None,
) -> None:
    """Make the cache `folder`, or wait for the process that is making it; go on where a killed one
    stopped.

    `index`: what cache.json says besides the shards. Raises CacheError where a source file changed
        since ingest, and before the first byte where the disk has not the room.
    """
    say = tell or (lambda line: None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _build_lock(folder, say) as building:
        if folder.exists():
            return
        plan = plan_records(table, spec, workers)
        building.mkdir(exist_ok=True)
        shards = plan.shards()
        kept = [_finished_shard(building, shard) for shard in shards]
        _require_room(plan, building, sum(entry["bytes"] for entry in kept if entry), say)
        try:
            entries = _write_missing(plan, building, shards, kept, workers, progress)
        except CacheError:  # a source that cannot be used: there is nothing to go on with
            shutil.rmtree(building)
            raise
        _finish(plan, building, index, entries)
        building.rename(folder)
        sync_folder(folder.parent)


@contextlib.contextmanager
def _build_lock(folder: Path, say: Tell) -> Iterator[Path]:
    """Yield the building folder with the lock on WORK/cache held; the system frees it when the
    process dies.
    """
    try:
        import fcntl
    except ImportError:  # no such lock on Windows: a folder of its own, which nobody goes on with
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
            say("another process is building a cache here: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder.with_name(f".building-{folder.name}")
    finally:
        os.close(handle)


def _require_room(plan: CachePlan, building: Path, kept: int, say: Tell) -> None:
    needed, free = plan.size - kept, shutil.disk_usage(building).free
    left = f"; left out: {format_left_out(plan.left_out)}" if plan.left_out else ""
    there = f", {_mib(kept)} of them there already" if kept else ""
    say(f"{len(plan.units)} records of {plan.spec.name}, {_mib(plan.size)}{there}{left}")
    if needed > free:
        raise CacheError(
            f"the cache needs {_mib(needed)} and the disk has {_mib(free)}: make room or choose a "
            f"smaller preset"
        )


def _finished_shard(building: Path, shard: dict[str, Any]) -> dict[str, Any] | None:
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


def _write_missing(
    plan: CachePlan,
    building: Path,
    shards: list[dict[str, Any]],
    kept: list[dict[str, Any] | None],
    workers: int | None,
    progress: ProgressCallback | None,
) -> list[dict[str, Any]]:
    """Write the shards that nobody finished; returns the entries of all."""
    missing = [shard for shard, entry in zip(shards, kept, strict=True) if entry is None]
    numbers = [
        n for shard in missing for n in range(shard["first"], shard["first"] + shard["records"])
    ]
    total = len(plan.units)

    def ticking() -> Iterator[np.ndarray]:
        for done, pixels in enumerate(
            _prepared(plan, numbers, workers), start=total - len(numbers) + 1
        ):
            if progress is not None:
                progress(done, total)
            yield pixels

    records = ticking()
    return [
        entry or _write_shard(building, shard, records)
        for shard, entry in zip(shards, kept, strict=True)
    ]


def _write_shard(
    building: Path, shard: dict[str, Any], records: Iterator[np.ndarray]
) -> dict[str, Any]:
    tf = require_tensorflow()
    path = building / shard["file"]
    partial = path.with_suffix(".partial")
    with tf.io.TFRecordWriter(str(partial)) as writer:
        for row in range(shard["first"], shard["first"] + shard["records"]):
            writer.write(np.int32(row).tobytes() + next(records).tobytes())
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    entry = {**shard, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    write_atomic(path.with_suffix(".json"), json.dumps(entry).encode())
    return entry


def _finish(
    plan: CachePlan, building: Path, index: dict[str, Any], entries: list[dict[str, Any]]
) -> None:
    """Leave the shards, the tables and the index that names them all, and nothing else."""
    tables = {"images.parquet": plan.images} | (
        {} if plan.spec.form == "image" else {"slices.parquet": plan.slices}
    )
    for name, table in tables.items():
        write_atomic(building / name, table.to_parquet(index=False))
    digests = {name: file_sha256(building / name) for name in tables}
    whole = {**index, "shards": entries, "tables": digests, "left_out": plan.left_out}
    write_atomic(building / "cache.json", dump_checksummed(whole))
    for path in [
        *building.glob("*.partial"),
        *(building / Path(e["file"]).with_suffix(".json") for e in entries),
    ]:
        path.unlink(missing_ok=True)


def dump_checksummed(index: dict[str, Any]) -> bytes:
    """JSON without white space that ends with the SHA-256 of all before: no byte of it can change
    unnoticed.
    """
    text = json.dumps(index, separators=(",", ":"), sort_keys=True)
    return f'{text[:-1]},"zz_sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}'.encode()


def load_checksummed(data: bytes) -> dict[str, Any]:
    """The index of `sealed`. Raises ValueError where a byte changed."""
    index = json.loads(data)
    if (
        not isinstance(index, dict)
        or dump_checksummed({k: v for k, v in index.items() if k != "zz_sha256"}) != data
    ):
        raise ValueError("the index was changed")
    return index


def _prepared(plan: CachePlan, numbers: Sequence[int], workers: int | None) -> Iterator[np.ndarray]:
    """Prepared integers of the given records, in their order."""
    items = _items(plan, numbers)
    longest = max((len(files) for files, _, _ in items), default=0)
    limit = active_limits().seconds + _SECONDS_A_SLICE * longest
    for item, answer in map_isolated(prepare_files, items, workers=workers, timeout_s=limit):
        if isinstance(answer, DicomError):
            where = (
                "" if len(item[0]) == 1 else f" and the {len(item[0]) - 1} images that go with it"
            )
            raise CacheError(f"{item[0][0][1]}{where}: {answer}") from answer
        yield from answer


def _items(plan: CachePlan, numbers: Sequence[int]) -> list[Item]:
    """Work for the decode workers: records that need the same files go together, at most RUN of
    them.
    """
    columns = ("source", "path", "frame", "form", "kind", "file_sha256")
    files: list[File] = list(zip(*(plan.table[column].tolist() for column in columns), strict=True))
    runs: list[list[SampleSlices]] = []
    for unit in (plan.units[n] for n in numbers):
        known = (
            {files[m][:2] for m in runs[-1][-1].members}
            if runs and plan.spec.form != "volume"
            else set()
        )
        if known & {files[m][:2] for m in unit.members} and len(runs[-1]) < SAMPLES_PER_TASK:
            runs[-1].append(unit)
        else:
            runs.append([unit])
    return [_item(run, files, plan.spec.model_dump()) for run in runs]


def _item(run: list[SampleSlices], files: list[File], spec: dict) -> Item:
    members = sorted({m for unit in run for m in unit.members})
    place = {m: at for at, m in enumerate(members)}
    return (
        tuple(files[m] for m in members),
        tuple(tuple(place[m] for m in unit.members) for unit in run),
        spec,
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

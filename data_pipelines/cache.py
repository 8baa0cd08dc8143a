"""Decode once: TFRecord shards of prepared integers, bound to the manifest they were made from.

    WORK/cache/<preset>-<key>/
        cache.json               spec, dtype, shape, key; for each shard: file, split, records, bytes, sha256
        images.parquet           image, split: the row number is the number that each record carries
        train-00000.tfrecord ... one record an image: int32 row number, then the integers, little endian

The key is the SHA-256 of spec, code version and, for every image, its pseudonym, source hash, frame and split: whatever changes
one of them makes another folder, so old pixels are never met. Labels are not in the shards; they are joined by row number.
A cache is built under a temporary name and renamed when it is whole. Opening one checks every shard's SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_pipelines.backend import require_tensorflow
from data_pipelines.doors import read_row
from data_pipelines.errors import CacheError, DicomError
from data_pipelines.files import file_sha256, sync_folder, write_atomic
from data_pipelines.manifest import SPLITS, Manifest
from data_pipelines.preprocess import PreprocessSpec, prepare, spec_from
from data_pipelines.workers import map_files

CODE_VERSION = 1
SCHEMA = "medres.cache/1"
SHARD_BYTES = 64 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Cache:
    """An opened, verified cache. `images` has the columns image and split; record i is row i."""

    folder: Path
    spec: PreprocessSpec
    images: pd.DataFrame
    shards: dict[str, list[str]]

    @property
    def record_bytes(self) -> int:
        return 4 + self.spec.rows * self.spec.cols * self.spec.dtype.itemsize

    def files(self, split: str) -> list[str]:
        """Paths of the shards of one split, in order."""
        return [str(self.folder / name) for name in self.shards[split]]


def ensure_cache(
    work: Path | str,
    preset: str | dict | PreprocessSpec,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Cache:
    """Open the cache of `preset` for WORK's manifest; build it first where there is none.

    Raises CacheError where an existing one is damaged, where a source file changed since ingest, or where the manifest holds no
    image of the preset's kind.
    """
    manifest, spec = Manifest.load(work), spec_from(preset)
    table = eligible_rows(manifest.table, spec)
    folder = Path(work) / "cache" / f"{spec.name}-{_key(table, spec)[:12]}"
    if not folder.exists():
        _build(table, spec, folder, workers, progress)
    return open_cache(folder)


def eligible_rows(table: pd.DataFrame, spec: PreprocessSpec) -> pd.DataFrame:
    """The manifest's rows of the spec's kind, train first, then tune and test, each series whole and by position.

    The order follows paths and positions, never pseudonyms: the same files give the same training with any key.
    """
    rows = table[table["kind"] == spec.kind]
    if rows.empty:
        kinds = ", ".join(f"{count} {kind}" for kind, count in table["kind"].value_counts().items())
        raise CacheError(
            f"preset {spec.name} wants {spec.kind} images, the manifest holds {kinds or 'none'}: choose another preset"
        )
    place = rows["split"].map({name: i for i, name in enumerate(SPLITS)})
    keys = pd.DataFrame({"split": place, "series": rows.groupby("series", sort=False).ngroup(), "order": rows["order"]})
    return rows.loc[keys.sort_values(["split", "series", "order"], kind="stable").index]


def open_cache(folder: Path) -> Cache:
    """Read and verify a cache folder. Raises CacheError naming the shard that is missing, cut or altered."""
    try:
        index = json.loads((folder / "cache.json").read_text())
        images = pd.read_parquet(folder / "images.parquet")
        spec = spec_from(index["spec"])
        shards: list[dict] = index["shards"]
    except (OSError, ValueError, KeyError) as error:
        raise CacheError(
            f"the cache index of {folder.name} cannot be read ({type(error).__name__}): {_mend(folder)}"
        ) from None
    for shard in shards:
        path = folder / shard["file"]
        if not path.is_file():
            raise CacheError(f"shard {shard['file']} of cache {folder.name} is missing: {_mend(folder)}")
        if path.stat().st_size != shard["bytes"] or file_sha256(path) != shard["sha256"]:
            raise CacheError(f"shard {shard['file']} of cache {folder.name} is damaged: {_mend(folder)}")
    if sum(shard["records"] for shard in shards) != len(images):
        raise CacheError(f"cache {folder.name} holds another number of records than of images: {_mend(folder)}")
    by_split = {name: [s["file"] for s in shards if s["split"] == name] for name in SPLITS}
    return Cache(folder, spec, images, by_split)


def prepare_file(item: tuple[str, str, int, str, str, str, dict]) -> np.ndarray:
    """Read and prepare one (source, path, frame, form, kind, file_sha256, spec); run in a decode worker.

    Raises CacheError where the file is not the one that was ingested.
    """
    source, path, frame, form, kind, sha256, spec = item
    return prepare(read_row(source, path, frame, form=form, kind=kind, sha256=sha256), spec_from(spec))


def _build(
    table: pd.DataFrame, spec: PreprocessSpec, folder: Path, workers: int | None, progress: Progress | None
) -> None:
    building = folder.with_name(f".building-{folder.name}-{uuid.uuid4().hex[:8]}")
    building.mkdir(parents=True)
    try:
        needed = len(table) * (20 + spec.rows * spec.cols * spec.dtype.itemsize)
        free = shutil.disk_usage(building).free
        if needed > free:
            raise CacheError(
                f"the cache needs {needed / 2**20:.0f} MiB and the disk has {free / 2**20:.0f} MiB: make room or choose a smaller preset"
            )
        shards = list(_write_shards(table, spec, building, _prepared(table, spec, workers, progress)))
        images = table[["image", "split"]].reset_index(drop=True)
        write_atomic(building / "images.parquet", images.to_parquet())
        index = {"schema": SCHEMA, "spec": spec.model_dump(), "key": _key(table, spec), "shards": shards}
        write_atomic(building / "cache.json", json.dumps(index, indent=1).encode())
        try:
            building.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            # Another process finished the same cache first; ours is equal and no longer needed.
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _prepared(
    table: pd.DataFrame, spec: PreprocessSpec, workers: int | None, progress: Progress | None
) -> Iterator[np.ndarray]:
    items = [
        (source, path, int(frame), form, kind, sha256, spec.model_dump())
        for source, path, frame, form, kind, sha256 in zip(
            *(table[c] for c in ("source", "path", "frame", "form", "kind", "file_sha256")), strict=True
        )
    ]
    for row, (_, result) in enumerate(map_files(prepare_file, items, workers=workers, progress=progress)):
        if isinstance(result, DicomError):
            raise CacheError(f"{table['path'].iloc[row]}: {result}") from result
        yield result


def _write_shards(
    table: pd.DataFrame, spec: PreprocessSpec, folder: Path, prepared: Iterable[np.ndarray]
) -> Iterator[dict]:
    tf = require_tensorflow()
    records = enumerate(prepared)
    per_shard = max(1, SHARD_BYTES // (spec.rows * spec.cols * spec.dtype.itemsize))
    for split in SPLITS:
        count = int((table["split"] == split).sum())
        for number, first in enumerate(range(0, count, per_shard)):
            path = folder / f"{split}-{number:05d}.tfrecord"
            n = min(per_shard, count - first)
            with tf.io.TFRecordWriter(str(path)) as writer:
                for _ in range(n):
                    row, pixels = next(records)
                    writer.write(np.int32(row).tobytes() + pixels.tobytes())
            with path.open("rb") as file:
                os.fsync(file.fileno())
            yield {
                "file": path.name,
                "split": split,
                "records": n,
                "bytes": path.stat().st_size,
                "sha256": file_sha256(path),
            }


def _key(table: pd.DataFrame, spec: PreprocessSpec) -> str:
    rows = table[["image", "file_sha256", "frame", "split"]].to_csv(index=False)
    return hashlib.sha256(f"{CODE_VERSION}\n{spec.sha256}\n{rows}".encode()).hexdigest()


def _mend(folder: Path) -> str:
    return f"delete the folder {folder} and run the command again; it is rebuilt from the source files"

"""Decode once: TFRecord shards of prepared integers, bound to the manifest they were made from.

    WORK/cache/<preset>-<key>/
        cache.json               spec, key, digests of the tables; for each shard: file, split,
                                 records, bytes, sha256
        images.parquet           image, split: the row number is the number that each record carries
        slices.parquet           record, slice, image: where each slice of a stack or a volume comes
                                 from
        train-00000.tfrecord ... one record: int32 row number, then the integers, little endian

The key is the SHA-256 of spec, code version and, for every image, its pseudonym, source hash, frame
and split: whatever changes one of them makes another folder, so old pixels are never met. Labels
    are not in the shards; they are joined by row number. A cache is built under another name and
    renamed when it is whole. Opening one checks every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.cache.builder import ProgressCallback, Tell, build, load_checksummed
from data_pipelines.cache.plan import record_bytes
from data_pipelines.errors import CacheError, SpecError
from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
from data_pipelines.runtime.atomic_files import file_sha256

CODE_VERSION = 2
SCHEMA = "medres.cache/2"


@dataclass(frozen=True)
class Cache:
    """An opened, verified cache. `images` has the columns image and split; record i is row i.

    Of a stack `image` is the middle slice, of a volume too: it stands for the record. `slices`
    (record, slice, image) names
    them all. `left_out`: verdict -> number of series that made no volume.
    """

    folder: Path
    spec: PreprocessSpec
    images: pd.DataFrame
    slices: pd.DataFrame
    shards: dict[str, list[str]]
    left_out: dict[str, int]

    @property
    def record_bytes(self) -> int:
        return record_bytes(self.spec)

    def files(self, split: str) -> list[str]:
        """Paths of the shards of one split, in order."""
        return [str(self.folder / name) for name in self.shards[split]]


def ensure_cache(
    work: Path | str,
    preset: str | dict | PreprocessSpec,
    *,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    tell: Tell | None = None,
) -> Cache:
    """Open the cache of `preset` for WORK's manifest; build it first where there is none.

    progress(done, total) counts records; tell(line) says how large the cache will be before its
    first byte is written, and how many series make no volume. A build that was killed goes on from
    its last whole shard; a second process waits for the first.
    Raises CacheError where an existing one is damaged, where a source file changed since ingest,
    where the disk has not the room, or where the manifest holds no image of the preset's kind.
    """
    manifest, spec = Manifest.load(work), spec_from(preset)
    table = eligible_rows(manifest.table, spec)
    key = _key(table, spec)
    folder = Path(work) / "cache" / f"{spec.name}-{key[:12]}"
    if not folder.exists():
        index = {"schema": SCHEMA, "spec": spec.model_dump(), "key": key}
        build(table, spec, folder, index, workers=workers, progress=progress, tell=tell)
    return open_cache(folder)


def eligible_rows(table: pd.DataFrame, spec: PreprocessSpec) -> pd.DataFrame:
    """The manifest's rows of the spec's kind (of stacks and volumes: DICOM alone), train first,
    then tune and test, each series whole and by position.

    The order follows paths and positions, never pseudonyms: the same files give the same training
    with any key.
    """
    rows = table[table["kind"] == spec.kind]
    if spec.form != "image":
        rows = rows[rows["form"] == "dicom"]  # whose slices have a place
    if rows.empty:
        kinds = ", ".join(f"{count} {kind}" for kind, count in table["kind"].value_counts().items())
        raise CacheError(
            f"preset {spec.name} wants {spec.kind} images, the manifest holds {kinds or 'none'}: "
            f"choose another preset"
        )
    place = rows["split"].map({name: i for i, name in enumerate(SPLITS)})
    keys = pd.DataFrame(
        {
            "split": place,
            "series": rows.groupby("series", sort=False).ngroup(),
            "order": rows["order"],
        }
    )
    return rows.loc[keys.sort_values(["split", "series", "order"], kind="stable").index]


def open_cache(folder: Path) -> Cache:
    """Read and verify a cache folder. Raises CacheError naming the first file that is missing, cut
    or altered.
    """
    index, spec = _index(folder)
    shards, tables = index["shards"], index["tables"]
    for problem in _damage(folder, shards, tables):
        raise CacheError(f"{problem}: {_mend(folder)}")
    images = pd.read_parquet(folder / "images.parquet")
    each = pd.DataFrame({"record": np.arange(len(images)), "slice": 0, "image": images["image"]})
    slices = pd.read_parquet(folder / "slices.parquet") if "slices.parquet" in tables else each
    by_split = {name: [s["file"] for s in shards if s["split"] == name] for name in SPLITS}
    return Cache(folder, spec, images, slices, by_split, index["left_out"])


def verify_caches(work: Path | str) -> dict[str, list[str]]:
    """Every problem of every cache of a work folder, by folder name; an empty list where a cache is
    sound.

    Looked for: a byte that changed, a file that is cut, missing or not named by the index (a stale
    shard), and a cache that the manifest no longer leads to, or that was never finished.
    """
    manifest, found = Manifest.load(work), {}
    for folder in sorted(path for path in (Path(work) / "cache").glob("*") if path.is_dir()):
        if folder.name.startswith(".building-"):
            found[folder.name] = [
                "it was never finished: repeat the command that builds it, or delete the folder"
            ]
            continue
        try:
            index, spec = _index(folder)
        except CacheError as error:
            found[folder.name] = [str(error)]
            continue
        problems = [
            f"{line}: {_mend(folder)}" for line in _damage(folder, index["shards"], index["tables"])
        ]
        named = {"cache.json", *index["tables"], *(shard["file"] for shard in index["shards"])}
        stale = sorted(path.name for path in folder.iterdir() if path.name not in named)
        problems += [f"{name} of {folder.name} belongs to no index: delete it" for name in stale]
        try:
            current = index["key"] == _key(eligible_rows(manifest.table, spec), spec)
        except CacheError as error:
            problems.append(f"{folder.name}: {error}")
        else:
            if not current:
                problems.append(
                    f"{folder.name} was made for another manifest or by another version: delete "
                    f"the folder"
                )
        found[folder.name] = problems
    return found


def _index(folder: Path) -> tuple[dict[str, Any], PreprocessSpec]:
    """The content of cache.json, and its spec. Raises CacheError where it is missing, altered or of
    another schema.
    """
    try:
        index = load_checksummed((folder / "cache.json").read_bytes())
        spec = spec_from(index["spec"])
        if missing := {"key", "shards", "tables", "left_out"} - index.keys():
            raise KeyError(*missing)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
        raise CacheError(
            f"the cache index of {folder.name} cannot be read ({type(error).__name__}): "
            f"{_mend(folder)}"
        ) from None
    return index, spec


def _damage(folder: Path, shards: list[dict[str, Any]], tables: dict[str, str]) -> Iterator[str]:
    """What is wrong with the files that an index names."""
    expected = [("shard", s["file"], s["bytes"], s["sha256"]) for s in shards]
    for kind, name, size, digest in [
        *expected,
        *(("table", name, None, sha) for name, sha in tables.items()),
    ]:
        path = folder / name
        if not path.is_file():
            yield f"{kind} {name} of cache {folder.name} is missing"
        elif size not in (None, path.stat().st_size) or file_sha256(path) != digest:
            yield f"{kind} {name} of cache {folder.name} is damaged"


def _key(table: pd.DataFrame, spec: PreprocessSpec) -> str:
    rows = table[["image", "file_sha256", "frame", "split"]].to_csv(index=False)
    return hashlib.sha256(f"{CODE_VERSION}\n{spec.sha256}\n{rows}".encode()).hexdigest()


def _mend(folder: Path) -> str:
    return (
        f"delete the folder {folder} and run the command again; it is rebuilt from the source files"
    )

"""Decode once: TFRecord shards of prepared integers, bound to the manifest they were made from.

    WORK/cache/<preset>-<key>/
        cache.json               spec, key, digests of the tables; for each shard: file, split,
                                 records, bytes, sha256
        images.parquet           image, split: the row number is the number that each sample carries
        slices.parquet           record, slice, image: where each slice of a stack or a volume comes
                                 from
        train-00000.tfrecord ... per sample: int32 row number, then the integers, little endian,
                             then the uint8 label map in a cache with masks (<preset>-masks-<key>)

The key is the SHA-256 of spec, code version and, for every image, its pseudonym, source hash, frame
and split (and of the label maps): a change of any of them leads to another folder, so outdated
pixels are never read. Labels are not in the shards; they are joined by row number. A cache is built
under another name and renamed when it is complete. Opening a cache checks every byte of each file
that changed since it was last checked (see verified.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data_pipelines.cache.annotations import AnnotationSource, StoredArray
from data_pipelines.cache.boxes import box_source, stored_boxes
from data_pipelines.cache.builder import LogCallback, ShardEntry, build, load_checksummed
from data_pipelines.cache.masks import mask_source, stored_masks
from data_pipelines.cache.plan import sample_bytes
from data_pipelines.cache.verified import NAME as VERIFIED
from data_pipelines.cache.verified import VerifiedFiles
from data_pipelines.errors import CacheError, ManifestError, SpecError
from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.ingestion.series_order import STANDARD_COLUMNS
from data_pipelines.kinds import FORMATS_WITH_POSITION
from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
from data_pipelines.runtime.atomic_files import file_sha256
from data_pipelines.runtime.engines.engine import LOCAL, Engine
from data_pipelines.runtime.object_stores import require_local
from data_pipelines.runtime.progress import Bars
from data_pipelines.runtime.worker_pool import ProgressCallback, StageCallback, stage

CODE_VERSION = 2
SCHEMA = "medres.cache/2"


@dataclass(frozen=True)
class Cache:
    """An opened, verified cache. Sample i is row i of `images` (columns image and split).

    For a stack or a volume, `image` is the middle slice; it represents the sample. `slices`
    (columns record, slice, image) names all slices; record is the number of the sample.
    `left_out`: verdict -> number of series that made no volume; in a cache with masks or boxes also
    the state of the annotation -> number of samples. `mask_classes`: the names of the labels 1, 2,
    ...; None in a cache without masks. `box_classes`: the names of the classes 0, 1, ...; None in a
    cache without boxes. `most_boxes`: lines of boxes of each sample.
    """

    folder: Path
    spec: PreprocessSpec
    images: pd.DataFrame
    slices: pd.DataFrame
    shards: dict[str, list[str]]
    left_out: dict[str, int]
    mask_classes: tuple[str, ...] | None = None
    box_classes: tuple[str, ...] | None = None
    most_boxes: int = 0

    @property
    def sample_bytes(self) -> int:
        """Bytes of one stored sample: the row number, the integers, and the annotation."""
        return sample_bytes(self.spec, self.stored)

    @property
    def stored(self) -> StoredArray | None:
        """What is stored behind each image; None in a cache of images alone."""
        if self.box_classes is not None:
            return stored_boxes(self.most_boxes)
        return None if self.mask_classes is None else stored_masks(self.spec)

    @property
    def mask_shape(self) -> tuple[int, ...] | None:
        """The shape of a stored label map; None in a cache without masks."""
        return None if self.mask_classes is None else self.spec.mask_shape

    def files(self, split: str) -> list[str]:
        """Paths of the shards of one split, in order."""
        return [str(self.folder / name) for name in self.shards[split]]


def ensure_cache(
    work: Path | str,
    preset: str | dict | PreprocessSpec,
    *,
    masks: bool = False,
    boxes: bool = False,
    workers: int | None = None,
    engine: Engine = LOCAL,
    progress: ProgressCallback | None = None,
    log: LogCallback | None = None,
) -> Cache:
    """Open the cache of `preset` for WORK's manifest; build it first if there is none.

    masks, boxes: a cache of its own, with the label map or the boxes of each sample; samples that
    are not annotated, or whose annotation was rejected, are not in it, and are counted in
    `left_out`. At most one of the two.
    engine: where headers are read and shards are written, see `opened_engine`; the cache is the
    same. progress: called with (done, total), see build; without it, a long build shows a progress
    bar on a terminal, and lines with the time left in a notebook or a log. log: receives lines of
    text: before the first byte is written how large the cache will be, and how many series make no
    volume. A build that was killed is resumed after its last complete shard; a second process waits
    for the first.
    Raises CacheError with code damaged (an existing cache was altered), source_changed (a source
    file changed since ingest), no_space (the disk is too full), no_volume, wrong_kind (the
    manifest holds no image of the preset's kind), or with annotations no_annotated_sample and
    overlapping_classes; ManifestError (no_annotations, no_boxes) if WORK was ingested without them;
    SpecError (several_annotations, volume_boxes).
    """
    require_local(work, "the work folder")
    manifest, spec = Manifest.load(work), spec_from(preset)
    table = eligible_rows(manifest.table, spec)
    source = _source(work, table, spec, masks=masks, boxes=boxes)
    key = _key(table, spec, source)
    name = spec.name if source is None else f"{spec.name}-{source.name}"
    folder = Path(work) / "cache" / f"{name}-{key[:12]}"
    with stage(Bars().task if progress is None else None, f"cache {spec.name}") as update:
        progress = progress or update
        if not folder.exists():
            index = {"schema": SCHEMA, "spec": spec.model_dump(), "key": key}
            index |= {} if source is None else source.index
            build(
                table,
                spec,
                folder,
                index,
                annotations=source,
                workers=workers,
                engine=engine,
                progress=progress,
                log=log,
            )
        return open_cache(folder, progress=progress)


def _source(
    work: Path | str, table: pd.DataFrame, spec: PreprocessSpec, *, masks: bool, boxes: bool
) -> AnnotationSource | None:
    if masks and boxes:
        raise SpecError(
            "a cache holds masks or boxes, not both: choose one", code="several_annotations"
        )
    if boxes:
        return box_source(work, table, spec)
    return mask_source(work, table) if masks else None


def eligible_rows(table: pd.DataFrame, spec: PreprocessSpec) -> pd.DataFrame:
    """The rows of a manifest's table that have the spec's kind (for stacks and volumes: only
    formats whose slices have a position), ordered by split (train, tune, test), then by series,
    then by position in the series.

    The order follows paths and positions, never pseudonyms: the same files give the same training
    with any key. Raises CacheError (code wrong_kind) if no row is left.
    """
    rows = table[table["kind"] == spec.kind]
    if spec.layout != "image":
        rows = rows[rows["form"].isin(FORMATS_WITH_POSITION)]
    if rows.empty:
        kinds = ", ".join(f"{count} {kind}" for kind, count in table["kind"].value_counts().items())
        raise CacheError(
            f"preset {spec.name} needs {spec.kind} images, the manifest holds {kinds or 'none'}: "
            f"choose another preset",
            code="wrong_kind",
        )
    keys = pd.DataFrame(
        {
            "split": rows["split"].map({name: i for i, name in enumerate(SPLITS)}),
            "series": rows.groupby("series", sort=False).ngroup(),
            "order": rows["order"],
        }
    )
    return rows.loc[keys.sort_values(["split", "series", "order"], kind="stable").index]


def open_cache(folder: Path, *, progress: ProgressCallback | None = None) -> Cache:
    """Read and verify a cache folder. Raises CacheError (code damaged) naming the first file that
    is missing, cut or altered. progress: called with (done, total) files.

    Files that were whole at an earlier opening, and have the same size, times and inode, are not
    read again; `verify_caches` reads all.
    """
    index, verified = _read_index(folder), VerifiedFiles(folder)
    for problem in _damage(folder, index, progress, verified.has_digest):
        raise CacheError(f"{problem}: {_how_to_rebuild(folder)}", code="damaged")
    verified.save()
    images = pd.read_parquet(folder / "images.parquet")
    if "slices.parquet" in index.tables:
        slices = pd.read_parquet(folder / "slices.parquet")
    else:
        slices = pd.DataFrame(
            {"record": np.arange(len(images)), "slice": 0, "image": images["image"]}
        )
    files = {name: [s["file"] for s in index.shards if s["split"] == name] for name in SPLITS}
    return Cache(
        folder,
        index.spec,
        images,
        slices,
        files,
        index.left_out,
        None if index.mask_classes is None else tuple(index.mask_classes),
        None if index.box_classes is None else tuple(index.box_classes),
        index.most_boxes,
    )


def verify_caches(work: Path | str, *, stages: StageCallback | None = None) -> dict[str, list[str]]:
    """Every problem of every cache of a work folder, by folder name; an empty list for a cache
    without problems.

    It reports a byte that changed; a file that is cut, missing or not named by the index (a stale
    shard); a cache that belongs to another manifest; and a cache that was never finished.

    stages: called with the name of each check, returns a context manager with a progress callback
    for its files (default: bars or lines, as in `ensure_cache`).
    """
    manifest, stages = Manifest.load(work), stages or Bars().task
    problems = {}
    for folder in sorted(path for path in (Path(work) / "cache").glob("*") if path.is_dir()):
        with stages(f"check {folder.name}") as progress:
            problems[folder.name] = _problems(folder, Path(work), manifest, progress)
    return problems


def cached_specs(work: Path | str) -> list[PreprocessSpec]:
    """The specs of the caches that belong to the manifest of a work folder, in the order of their
    names. Raises CacheError (code damaged) for an index that cannot be read.
    """
    manifest = Manifest.load(work)
    indices = map(_read_index, sorted((Path(work) / "cache").glob("[!.]*")))
    return [index.spec for index in indices if _is_current(index, manifest, Path(work))]


class _Index(NamedTuple):
    """The content of cache.json."""

    spec: PreprocessSpec
    key: str
    shards: list[ShardEntry]
    tables: dict[str, str]
    left_out: dict[str, int]
    mask_classes: list[str] | None
    box_classes: list[str] | None
    most_boxes: int


def _read_index(folder: Path) -> _Index:
    """Raises CacheError (code damaged) if cache.json is missing, altered or of another schema."""
    try:
        index = load_checksummed((folder / "cache.json").read_bytes())
        names = ("key", "shards", "tables", "left_out")
        fields = {name: index[name] for name in names}
        return _Index(
            spec=spec_from(index["spec"]),
            mask_classes=index.get("mask_classes"),
            box_classes=index.get("box_classes"),
            most_boxes=int(index.get("most_boxes", 0)),
            **fields,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
        raise CacheError(
            f"the cache index of {folder.name} cannot be read ({type(error).__name__}): "
            f"{_how_to_rebuild(folder)}",
            code="damaged",
        ) from None


def _problems(
    folder: Path, work: Path, manifest: Manifest, progress: ProgressCallback
) -> list[str]:
    if folder.name.startswith(".building-"):
        return ["it was never finished: repeat the command that builds it, or delete the folder"]
    try:
        index = _read_index(folder)
    except CacheError as error:
        return [str(error)]
    problems = [
        f"{problem}: {_how_to_rebuild(folder)}" for problem in _damage(folder, index, progress)
    ]
    named = {"cache.json", VERIFIED, *index.tables, *(shard["file"] for shard in index.shards)}
    stale = sorted(path.name for path in folder.iterdir() if path.name not in named)
    problems += [f"{name} of {folder.name} belongs to no index: delete it" for name in stale]
    try:
        is_current = _is_current(index, manifest, work)
    except (CacheError, ManifestError) as error:
        return [*problems, f"{folder.name}: {error}"]
    if not is_current:
        problems.append(
            f"{folder.name} was made for another manifest or by another version: delete the folder"
        )
    return problems


def _is_current(index: _Index, manifest: Manifest, work: Path) -> bool:
    """Raises CacheError (code wrong_kind) if the manifest has no image of this kind, and
    ManifestError if it has no masks or boxes any more.
    """
    table = eligible_rows(manifest.table, index.spec)
    masks, boxes = index.mask_classes is not None, index.box_classes is not None
    source = _source(work, table, index.spec, masks=masks, boxes=boxes)
    return index.key == _key(table, index.spec, source)


def _has_digest(path: Path, digest: str) -> bool:
    return file_sha256(path) == digest


def _damage(
    folder: Path,
    index: _Index,
    progress: ProgressCallback | None,
    has_digest: Callable[[Path, str], bool] = _has_digest,
) -> Iterator[str]:
    """What is wrong with the files that an index names. progress: called with (done, total)
    files.
    """
    shards = [("shard", s["file"], s["bytes"], s["sha256"]) for s in index.shards]
    tables = [("table", name, None, digest) for name, digest in index.tables.items()]
    files = [*shards, *tables]
    for number, (kind, name, size, digest) in enumerate(files, start=1):
        path = folder / name
        if not path.is_file():
            yield f"{kind} {name} of cache {folder.name} is missing"
        elif size not in (None, path.stat().st_size) or not has_digest(path, digest):
            yield f"{kind} {name} of cache {folder.name} is damaged"
        if progress is not None:
            progress(number, len(files))


def _key(table: pd.DataFrame, spec: PreprocessSpec, source: AnnotationSource | None = None) -> str:
    columns = ["image", "file_sha256", "frame", "split"]
    if spec.image_kind.is_standardized:
        columns += STANDARD_COLUMNS
    rows = table[columns].to_csv(index=False)
    text = f"{CODE_VERSION}\n{spec.sha256}\n{rows}"
    text += "" if source is None else f"\n{source.name} {source.digest}"
    return hashlib.sha256(text.encode()).hexdigest()


def _how_to_rebuild(folder: Path) -> str:
    return (
        f"delete the folder {folder} and run the command again; it is rebuilt from the source files"
    )

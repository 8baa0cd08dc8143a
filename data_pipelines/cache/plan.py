"""What a cache will hold, before it is built: samples, their slices, shards and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import pandas as pd

from data_pipelines.cache.annotations import AnnotationSource, StoredArray, annotated_samples
from data_pipelines.cache.worker import FileRef, read_planes
from data_pipelines.errors import CacheError, DicomError
from data_pipelines.ingestion.manifest import SPLITS
from data_pipelines.ingestion.series_order import STANDARD_COLUMNS
from data_pipelines.pixels.standardization import Standard
from data_pipelines.preprocessing.samples import SampleSlices, samples_of
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.archives import archive_or_file
from data_pipelines.runtime.engines.engine import LOCAL, Engine, map_files
from data_pipelines.runtime.object_stores import joined
from data_pipelines.runtime.worker_pool import ProgressCallback
from data_pipelines.volumes.plane import Plane

SHARD_BYTES = 64 << 20
FRAMING_BYTES = 16  # of a TFRecord: length, and two checksums
ROW_BYTES = 4


class Shard(TypedDict):
    """One file of a cache: the samples `first` to `first + records` of one split."""

    file: str
    split: str
    first: int
    records: int


@dataclass(frozen=True)
class CachePlan:
    """Every sample of a cache before it is built. The slice indices of `samples` are row numbers of
    `table`; the samples of a split follow one another. annotations: label maps or boxes of the
    rows of `table`, where they are stored too.
    """

    table: pd.DataFrame
    spec: PreprocessSpec
    samples: list[SampleSlices]
    left_out: dict[str, int]
    annotations: AnnotationSource | None = None

    @property
    def record_bytes(self) -> int:
        """Bytes of one stored sample without its framing."""
        source = self.annotations
        return sample_bytes(self.spec, None if source is None else source.stored(self.spec))

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return len(self.samples) * (self.record_bytes + FRAMING_BYTES)

    @property
    def images(self) -> pd.DataFrame:
        """image (of the middle slice) and split of each sample. Volumes also have `interpolated`,
        the share of slices that no stored slice supports; samples of volumes that are standardized,
        their mean and standard deviation.
        """
        middle = [sample.middle for sample in self.samples]
        standard = [name for name in STANDARD_COLUMNS if name in self.table]
        images = self.table[["image", "split", *standard]].iloc[middle].reset_index(drop=True)
        if self.spec.layout != "volume":
            return images
        return images.assign(interpolated=[sample.interpolated for sample in self.samples])

    @property
    def slices(self) -> pd.DataFrame:
        """record (number of the sample), slice, image: where each slice of a sample comes from."""
        rows = [
            (number, position, row)
            for number, sample in enumerate(self.samples)
            for position, row in enumerate(sample.slice_indices)
        ]
        number, position, row = np.array(rows, np.int64).reshape(-1, 3).T
        images = self.table["image"].to_numpy()[row]
        return pd.DataFrame({"record": number, "slice": position, "image": images})

    def shards(self) -> list[Shard]:
        """The shards, split by split."""
        splits, shards = self.images["split"], []
        per_shard = max(1, SHARD_BYTES // self.record_bytes)
        for split in SPLITS:
            rows = np.flatnonzero(splits == split)
            for number, start in enumerate(range(0, len(rows), per_shard)):
                shard: Shard = {
                    "file": f"{split}-{number:05d}.tfrecord",
                    "split": split,
                    "first": int(rows[start]),
                    "records": min(per_shard, len(rows) - start),
                }
                shards.append(shard)
        return shards


def sample_bytes(spec: PreprocessSpec, stored: StoredArray | None = None) -> int:
    """Bytes of one stored sample without its framing: the row number, the integers, and the
    annotation.
    """
    pixels = int(np.prod(spec.prepared_shape)) * spec.dtype.itemsize
    return ROW_BYTES + pixels + (0 if stored is None else stored.bytes)


def with_annotations(plan: CachePlan, source: AnnotationSource) -> CachePlan:
    """The plan of the samples that have a usable label map or usable boxes, with these. Raises
    CacheError (no_annotated_sample).
    """
    samples, left_out = annotated_samples(plan.samples, source, plan.spec)
    left_out = plan.left_out | left_out
    return replace(plan, samples=samples, left_out=left_out, annotations=source)


def plan_samples(
    table: pd.DataFrame,
    spec: PreprocessSpec,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    engine: Engine = LOCAL,
) -> CachePlan:
    """The samples of the eligible rows. Stacks and volumes need the position of every slice, which
    is read from the headers.

    progress: called with (done, total) files. engine: where headers are read. Raises CacheError if
    a header can no longer be read (code: that of the reader's error), or if no series makes a
    volume (code no_volume).
    """
    if spec.layout == "image":
        return CachePlan(table, spec, [SampleSlices((n,)) for n in range(len(table))], {})
    paths: pd.Series = pd.Series(
        [joined(source, path) for source, path in zip(table["source"], table["path"], strict=True)]
    )
    planes: dict[int, Plane] = {}
    rows_of_file = {
        str(path): rows for path, rows in paths.groupby(paths, sort=False).indices.items()
    }
    answers = map_files(
        engine,
        read_planes,
        list(rows_of_file),
        paths=archive_or_file,
        workers=workers,
        progress=progress,
    )
    for rows, (_, answer) in zip(rows_of_file.values(), answers, strict=True):
        if isinstance(answer, DicomError):
            raise CacheError(f"{table['path'].iloc[rows[0]]}: {answer}", code=answer.code)
        planes |= {int(n): _plane_of_row(answer, table.iloc[n]) for n in rows}
    samples, left_out = samples_of([planes[n] for n in range(len(table))], spec)
    if not samples:
        raise CacheError(
            f"preset {spec.name}: no series makes a volume ({format_left_out(left_out)}); the "
            f"policy is {spec.policy!r}",
            code="no_volume",
        )
    return CachePlan(table, spec, samples, left_out)


def _plane_of_row(planes: Sequence[Plane], row: pd.Series) -> Plane:
    """The plane of a manifest's row, with the identity that ingest has found for it."""
    return replace(
        planes[row["frame"]], patient=row["patient"], study=row["study"], series=row["series"]
    )


def file_refs(table: pd.DataFrame) -> list[FileRef]:
    """A reference for each row of a manifest's table."""
    columns = ("source", "path", "frame", "form", "kind", "file_sha256")
    standards = standards_of_rows(table)
    values = zip(*(table[column].tolist() for column in columns), strict=True)
    rows = zip(values, standards, strict=True)
    return [FileRef(*row)._replace(standard=standard) for row, standard in rows]


def standards_of_rows(table: pd.DataFrame) -> list[Standard | None]:
    """Mean and standard deviation of the volume of each row; None where it is not standardized."""
    if not {*STANDARD_COLUMNS} <= {*table}:
        return [None] * len(table)
    pairs = table[list(STANDARD_COLUMNS)].itertuples(index=False, name=None)
    return [None if math.isnan(mean) else Standard(mean, deviation) for mean, deviation in pairs]


def format_left_out(left_out: dict[str, int]) -> str:
    """What was left out, for people: "2 series MISSING, 1 series SINGLE, 3 samples rejected"."""
    parts = [
        f"{count} series {reason}" if reason.isupper() else f"{count} samples {reason}"
        for reason, count in left_out.items()
    ]
    return ", ".join(parts) or "nothing left out"

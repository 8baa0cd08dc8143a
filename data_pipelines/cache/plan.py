"""What a cache will hold before it is built: its records, their slices, its shards and its size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.cache.worker import read_planes
from data_pipelines.errors import CacheError, DicomError
from data_pipelines.ingestion.manifest import SPLITS
from data_pipelines.preprocessing.samples import SampleSlices, units_of
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.worker_pool import map_isolated
from data_pipelines.volumes.plane import Plane

SHARD_BYTES = 64 << 20
FRAMING_BYTES = 16  # of a TFRecord: length, and two checksums
ROW_BYTES = 4


@dataclass(frozen=True)
class CachePlan:
    """Every record of a cache before it is built: `units` hold places in `table`, a split's records
    follow one another.
    """

    table: pd.DataFrame
    spec: PreprocessSpec
    units: list[SampleSlices]
    left_out: dict[str, int]

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return len(self.units) * (record_bytes(self.spec) + FRAMING_BYTES)

    @property
    def images(self) -> pd.DataFrame:
        """image (of the middle slice) and split of each record."""
        return (
            self.table[["image", "split"]]
            .iloc[[unit.middle for unit in self.units]]
            .reset_index(drop=True)
        )

    @property
    def slices(self) -> pd.DataFrame:
        """record, slice, image: where each slice of a record comes from."""
        rows = [
            (number, at, n)
            for number, unit in enumerate(self.units)
            for at, n in enumerate(unit.members)
        ]
        record, at, place = np.array(rows, np.int64).reshape(-1, 3).T
        return pd.DataFrame(
            {"record": record, "slice": at, "image": self.table["image"].to_numpy()[place]}
        )

    def shards(self) -> list[dict[str, Any]]:
        """file, split, first record and number of records of each shard."""
        splits, found = self.images["split"], []
        per_shard = max(1, SHARD_BYTES // record_bytes(self.spec))
        for split in SPLITS:
            rows = np.flatnonzero(splits == split)
            for number, at in enumerate(range(0, len(rows), per_shard)):
                count = min(per_shard, len(rows) - at)
                name = f"{split}-{number:05d}.tfrecord"
                found.append(
                    {"file": name, "split": split, "first": int(rows[at]), "records": count}
                )
        return found


def record_bytes(spec: PreprocessSpec) -> int:
    """Bytes of one record without its framing: the row number, then the integers."""
    return ROW_BYTES + int(np.prod(spec.prepared_shape)) * spec.dtype.itemsize


def plan_records(
    table: pd.DataFrame, spec: PreprocessSpec, workers: int | None = None
) -> CachePlan:
    """Records of the eligible rows; stacks and volumes need the place of every slice, which is read
    from the headers.

    Raises CacheError where a header cannot be read any more, or no series makes a volume.
    """
    if spec.form == "image":
        return CachePlan(table, spec, [SampleSlices((n,)) for n in range(len(table))], {})
    places = pd.Series(paths_of(table)).reset_index(drop=True)
    planes: dict[int, Plane] = {}
    files = [(path, rows.index.to_numpy()) for path, rows in places.groupby(places, sort=False)]
    answers = map_isolated(read_planes, [path for path, _ in files], workers=workers)
    for (_, rows), (_, answer) in zip(files, answers, strict=True):
        if isinstance(answer, DicomError):
            raise CacheError(f"{table['path'].iloc[rows[0]]}: {answer}")
        planes |= {int(n): answer[table["frame"].iloc[n]] for n in rows}
    units, left_out = units_of([planes[n] for n in range(len(table))], spec)
    if not units:
        raise CacheError(
            f"preset {spec.name}: no series makes a volume ({format_left_out(left_out)}); policy "
            f"{spec.policy!r}"
        )
    return CachePlan(table, spec, units, left_out)


def paths_of(table: pd.DataFrame) -> list[str]:
    """The file of each row."""
    return [
        os.path.join(source, path)  # noqa: PTH118
        for source, path in zip(table["source"], table["path"], strict=True)
    ]


def format_left_out(left_out: dict[str, int]) -> str:
    """Verdicts left out, for people."""
    return (
        ", ".join(f"{count} series {verdict}" for verdict, count in left_out.items())
        or "nothing left out"
    )

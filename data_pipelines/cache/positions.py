"""Records by position: an input pipeline of a distributed run reads its own share of the records.

All records of a cache have the same length, so that the place of each in its file is known without
reading those before it. A position counts the records of one split, through its shards in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.errors import CacheError
from data_pipelines.runtime.backend import require_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

HEADER, FOOTER = 12, 4  # bytes of a TFRecord: length with its checksum, and checksum of the data
DAMAGED = (
    "is damaged: delete its folder and run the command again; it is rebuilt from the source files"
)
PARALLEL = 4  # batches that are read ahead, each on its own thread


class RecordReader:
    """Reads records of some shards by position.

    files: the shards of one split, in order. record_bytes: of each record. Raises CacheError (code
    damaged) where the size of a shard is no multiple of that of a record.
    """

    def __init__(self, files: Sequence[str], record_bytes: int) -> None:
        self.files, self.record_bytes = list(files), record_bytes
        self.frame = HEADER + record_bytes + FOOTER
        sizes = [Path(file).stat().st_size for file in self.files]
        for file, size in zip(self.files, sizes, strict=True):
            if size % self.frame:
                raise _damaged(file)
        self.starts = np.cumsum([0, *(size // self.frame for size in sizes)])
        length = record_bytes.to_bytes(8, "little")
        self._head = length + _checksum(length)
        self._opened: dict[int, int] = {}

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The records at these positions, uint8 (n, record_bytes). Raises CacheError (code damaged)
        where a file ends before a record does, or where a byte of a record has changed.
        """
        records = np.empty((len(positions), self.record_bytes), np.uint8)
        shards = np.searchsorted(self.starts, positions, side="right") - 1
        for record, shard, position in zip(records, shards, positions, strict=True):
            offset = int(position - self.starts[shard]) * self.frame
            frame = os.pread(self._file(int(shard)), self.frame, offset)
            content = frame[HEADER:-FOOTER]
            if frame[:HEADER] != self._head or frame[-FOOTER:] != _checksum(content):
                raise _damaged(self.files[shard])
            record[:] = np.frombuffer(content, np.uint8)
        return records

    def by_shards(self, order: np.ndarray) -> np.ndarray:
        """All positions, int64, with the shards in another order."""
        return np.concatenate(
            [np.arange(self.starts[shard], self.starts[shard + 1]) for shard in order]
        )

    def _file(self, shard: int) -> int:
        if shard not in self._opened:
            self._opened[shard] = os.open(self.files[shard], os.O_RDONLY)
        return self._opened[shard]

    def __del__(self) -> None:
        for file in self.__dict__.get("_opened", {}).values():
            os.close(file)


def records_at(positions: tf.data.Dataset, reader: RecordReader) -> tf.data.Dataset:
    """Batches of serialized records, uint8 (batch, bytes), from batches of positions."""
    tf = require_tensorflow()

    def read(batch: Any) -> Any:
        records = tf.numpy_function(reader, [batch], tf.uint8, stateful=False)
        return tf.ensure_shape(records, [None, reader.record_bytes])

    unconverted = tf.autograph.experimental.do_not_convert(read)
    return positions.map(unconverted, num_parallel_calls=PARALLEL, deterministic=True)


def shares_of_batches(
    batches: tf.data.Dataset, first: int, share: int, shares: int
) -> tf.data.Dataset:
    """The part of one pipeline of each batch: `shares` elements of `share` samples, from sample
    `first` on.
    """
    tf = require_tensorflow()

    def part(batch: Any) -> Any:
        return tf.reshape(batch[first : first + share * shares], [shares, share])

    unconverted = tf.autograph.experimental.do_not_convert(part)
    return batches.map(unconverted).unbatch()


def damage_of(error: BaseException) -> CacheError | None:
    """The CacheError (code damaged) that TensorFlow reports in words of its own: of a shard that is
    read by position, or from end to end, which TensorFlow checks itself. None for another error.
    """
    tf = require_tensorflow()
    if isinstance(error, tf.errors.DataLossError):
        return CacheError(f"a file of the cache {DAMAGED}", code="damaged")
    if not isinstance(error, tf.errors.OpError):
        return None
    found = re.search(rf"CacheError: the cache file (.+?) {re.escape(DAMAGED)}", str(error))
    return None if found is None else _damaged(found[1])


def _checksum(content: bytes) -> bytes:
    """The masked CRC-32C of TFRecord, little-endian."""
    import google_crc32c

    crc = google_crc32c.value(content)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def _damaged(file: str) -> CacheError:
    return CacheError(f"the cache file {file} {DAMAGED}", code="damaged")

"""From a cache to batches: tf.data of native ops only, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from data_pipelines.backend import require_tensorflow
from data_pipelines.cache import Cache, ensure_cache
from data_pipelines.errors import LabelError, SpecError
from data_pipelines.manifest import SPLITS, Manifest
from data_pipelines.preprocess import PreprocessSpec

if TYPE_CHECKING:
    import tensorflow as tf

Task = Literal["binary", "multilabel", "multiclass"]
SHUFFLE_BYTES = 1 << 30
PARALLEL = 4  # batches parsed ahead, on as many threads


@dataclass(frozen=True)
class Targets:
    """Labels and weights by cache row.

    binary, multilabel: both float32 (rows, findings); weight 0 where a label is missing or uncertain (its value is then 0).
    multiclass: labels int32 (rows,), weights float32 (rows,).
    """

    task: Task
    names: tuple[str, ...]
    labels: np.ndarray
    weights: np.ndarray

    def take(self, rows: np.ndarray) -> Targets:
        return Targets(self.task, self.names, self.labels[rows], self.weights[rows])


def targets_of(manifest: Manifest, images: pd.Series) -> Targets:
    """Targets of the given images (pseudonyms), in their order. Raises LabelError where the manifest has no labels."""
    task = manifest.summary["task"]
    table = manifest.table.set_index("image").loc[images]
    if task == "multiclass":
        names = tuple(manifest.summary["classes"])
        codes = pd.Categorical(table["class"].where(table["class"] != ""), categories=list(names)).codes
        return Targets(task, names, np.maximum(codes, 0).astype(np.int32), (codes >= 0).astype(np.float32))
    if task not in ("binary", "multilabel"):
        raise LabelError("the manifest has no labels: run medres ingest again with --labels labels.csv")
    names = tuple(manifest.summary["findings"])
    values = table[[f"label:{name}" for name in names]].to_numpy(np.float32)
    known = (values == 0) | (values == 1)
    return Targets(task, names, np.where(known, values, 0).astype(np.float32), known.astype(np.float32))


def datasets(
    work: Path | str,
    preset: str | dict | PreprocessSpec,
    batch_size: int,
    seed: int,
    *,
    epoch: int = 0,
    start: int = 0,
) -> tuple[tf.data.Dataset, tf.data.Dataset, tf.data.Dataset]:
    """Train, tune and test batches of ({"image", "key"}, label, weight); a missing cache is built first.

    image: float32 (batch, rows, cols, 1) in model units (HU, or display values 0..1).
    key: int32 (batch, 2), (hash of seed and epoch, image number): the source of randomness for augmentation.
    label, weight: see Targets. start: number of training batches to skip (restart in the middle of an epoch).
    The training order depends on (seed, epoch) alone, and its last, incomplete batch is dropped; tune and test keep the cache's
    order and all their images.
    """
    cache = ensure_cache(work, preset)
    targets = targets_of(Manifest.load(work), cache.images["image"])
    return (
        train_batches(cache, targets, batch_size, seed, epoch=epoch, start=start),
        eval_batches(cache, targets, batch_size, "tune"),
        eval_batches(cache, targets, batch_size, "test"),
    )


def train_batches(
    cache: Cache, targets: Targets, batch_size: int, seed: int, *, epoch: int = 0, start: int = 0
) -> tf.data.Dataset:
    """Shuffled training batches of one epoch; see `datasets`."""
    tf = require_tensorflow()
    _check_batch(batch_size)
    order = np.random.default_rng([seed, epoch])
    files = [cache.files("train")[i] for i in order.permutation(len(cache.files("train")))]
    count = int((cache.images["split"] == "train").sum())
    buffer = max(1, min(count, SHUFFLE_BYTES // cache.record_bytes))
    records = tf.data.TFRecordDataset(files).shuffle(
        buffer, seed=int(order.integers(2**31)), reshuffle_each_iteration=False
    )
    steps = training_steps(count, batch_size)
    batches = records.batch(batch_size, drop_remainder=count >= batch_size).skip(start)
    return _parsed(batches, max(0, steps - start), cache, targets, epoch_key(seed, epoch))


def eval_batches(cache: Cache, targets: Targets, batch_size: int, split: str) -> tf.data.Dataset:
    """All images of one split in cache order; see `datasets`."""
    tf = require_tensorflow()
    _check_batch(batch_size)
    if split not in SPLITS:
        raise SpecError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    batches = tf.data.TFRecordDataset(cache.files(split)).batch(batch_size)
    return _parsed(batches, -(-len(rows_of(cache, split)) // batch_size), cache, targets, 0)


def training_steps(images: int, batch_size: int) -> int:
    """Batches of one training epoch: the last, incomplete one is dropped unless it is the only one."""
    return max(1, images // batch_size) if images else 0


def rows_of(cache: Cache, split: str) -> np.ndarray:
    """Cache row numbers of one split, in the order of `eval_batches`."""
    return np.flatnonzero(cache.images["split"] == split)


def epoch_key(seed: int, epoch: int) -> int:
    """A 31-bit hash of (seed, epoch)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:4], "little") >> 1


def _parsed(batches: tf.data.Dataset, steps: int, cache: Cache, targets: Targets, key: int) -> tf.data.Dataset:
    tf = require_tensorflow()
    spec = cache.spec
    dtype, size = tf.as_dtype(spec.dtype.name), spec.rows * spec.cols * spec.dtype.itemsize
    labels, weights = tf.constant(targets.labels), tf.constant(targets.weights)

    def parse(records: Any) -> tuple:
        row = tf.reshape(tf.io.decode_raw(tf.strings.substr(records, 0, 4), tf.int32), [-1])
        pixels = tf.io.decode_raw(tf.strings.substr(records, 4, size), dtype)
        image = tf.cast(tf.reshape(pixels, [-1, spec.rows, spec.cols, 1]), tf.float32) * spec.scale
        inputs = {"image": image, "key": tf.stack([tf.fill(tf.shape(row), key), row], axis=1)}
        return inputs, tf.gather(labels, row), tf.gather(weights, row)

    parsed = batches.map(parse, num_parallel_calls=PARALLEL, deterministic=True)
    options = tf.data.Options()
    # The end of an epoch waits for tf.data's autotuning thread, which sleeps for up to a minute (TensorFlow 2.21).
    options.autotune.enabled = False
    return parsed.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(PARALLEL).with_options(options)


def _check_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise SpecError(f"batch_size must be 1 or more, received {batch_size}")

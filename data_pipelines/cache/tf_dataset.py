"""From a cache to batches: tf.data of native ops only, in an order that is a function of (seed,
epoch).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from data_pipelines.cache.plan import ROW_BYTES, sample_bytes
from data_pipelines.cache.positions import RecordReader, records_at, shares_of_batches
from data_pipelines.cache.record_labels import labels_per_sample
from data_pipelines.cache.store import Cache, ensure_cache
from data_pipelines.errors import LabelError, SpecError
from data_pipelines.ingestion.manifest import SPLITS, Manifest
from data_pipelines.labels.task import (
    BACKGROUND,
    DETECTION,
    LABEL_TASKS,
    SEGMENTATION,
    TaskName,
)
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.runtime.backend import require_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

Sampling = Literal["shuffled", "balanced"]
SHUFFLE_BYTES = 1 << 30
PARALLEL = 4  # batches that are parsed ahead, each on its own thread


@dataclass(frozen=True)
class Targets:
    """Labels and weights by cache row.

    binary, multilabel: both float32 (rows, findings). If a label is missing or uncertain, its
        weight and its value are 0.
    multiclass: labels int32 (rows,), weights float32 (rows,).
    segmentation: the labels are the label maps of the cache; `labels` is 0, weights float32
        (rows,), both of all rows. names: of the labels 0 (background), 1, 2, ...
    detection: in the same way, with the boxes of the cache. names: of the classes 0, 1, ...
    """

    task: TaskName
    names: tuple[str, ...]
    labels: np.ndarray
    weights: np.ndarray

    def take(self, rows: np.ndarray) -> Targets:
        """The targets of some rows: a boolean mask, or row numbers."""
        return Targets(self.task, self.names, self.labels[rows], self.weights[rows])


def targets_of(manifest: Manifest, images: pd.Series) -> Targets:
    """Targets of the given images (pseudonyms), in their order. Raises LabelError (code no_labels)
    if the manifest has no labels.
    """
    task = LABEL_TASKS.get(manifest.summary["task"])
    if task is None:
        raise LabelError(
            "the manifest has no labels: run medres ingest again with --labels labels.csv",
            code="no_labels",
        )
    table = manifest.table.set_index("image").loc[images]
    if task.exclusive:
        names = tuple(manifest.summary["classes"])
        classes = table["class"].where(table["class"] != "")
        codes = pd.Categorical(classes, categories=list(names)).codes
        labels, weights = np.maximum(codes, 0).astype(np.int32), codes >= 0
    else:
        names = tuple(manifest.summary["findings"])
        values = table[[f"label:{name}" for name in names]].to_numpy(np.float32)
        weights = (values == 0) | (values == 1)
        labels = np.where(weights, values, 0).astype(np.float32)
    return Targets(task.name, names, labels, weights.astype(np.float32))


def join_targets(manifest: Manifest, cache: Cache) -> tuple[Manifest, Targets]:
    """The manifest by the samples of the cache, and their targets.

    Raises LabelError if there are no labels (code no_labels), or if the slices of a volume have
    different classes (code mixed_classes).
    """
    manifest = labels_per_sample(manifest, cache)
    return manifest, targets_of(manifest, cache.images["image"])


def join_masks(manifest: Manifest, cache: Cache) -> tuple[Manifest, Targets]:
    """The manifest by the samples of a cache with masks (the row of a volume is that of its middle
    slice), and their targets: the label maps of the cache, each sample with the weight 1.
    """
    return _join_annotations(
        manifest, cache, SEGMENTATION, (BACKGROUND, *(cache.mask_classes or ()))
    )


def join_boxes(manifest: Manifest, cache: Cache) -> tuple[Manifest, Targets]:
    """The manifest by the samples of a cache with boxes, and their targets: the boxes of the cache,
    each sample with the weight 1.
    """
    return _join_annotations(manifest, cache, DETECTION, cache.box_classes or ())


def _join_annotations(
    manifest: Manifest, cache: Cache, task: TaskName, names: tuple[str, ...]
) -> tuple[Manifest, Targets]:
    table = manifest.table.set_index("image").loc[cache.images["image"]].reset_index()
    rows = len(cache.images)
    targets = Targets(task, names, np.zeros(rows, np.int32), np.ones(rows, np.float32))
    return replace(manifest, table=table[list(manifest.table.columns)]), targets


def datasets(
    work: Path | str,
    preset: str | dict | PreprocessSpec,
    batch_size: int,
    seed: int,
    *,
    epoch: int = 0,
    start: int = 0,
    sampling: Sampling = "shuffled",
    masks: bool = False,
    boxes: bool = False,
    context: tf.distribute.InputContext | None = None,
) -> tuple[tf.data.Dataset, tf.data.Dataset, tf.data.Dataset]:
    """Train, tune (validation) and test batches of ({"image", "key"}, label, weight). A missing
    cache is built first.

    image: float32 (batch, *spec.shape) in model units (HU, or display values 0..1).
    key: int32 (batch, 2), (hash of seed and epoch, image number): the source of randomness for
        augmentation.
    label, weight: see Targets. start: number of training batches to skip, to resume in the middle
        of an epoch.
    masks: label is the label map of each image, int32 (batch, [slices,] rows, columns), of the
        samples that have one; see `ensure_cache`.
    boxes: label is float32 (batch, lines, 5): x_min, y_min, x_max, y_max in pixels of the prepared
        image (edges), and the class; class -1 is a line without a box, -2 a region to ignore.
    sampling: "shuffled" gives each training image once per epoch, "balanced" each class equally
        often (see `train_batches`).
    context: from tf.distribute. batch_size is then the global batch size. Each element of a dataset
        is the share of one replica, and each input pipeline gives those of its replicas. Of several
        pipelines, each reads its own share of the files only.
    The order of training depends on (seed, epoch) alone, and the last, incomplete batch is dropped;
    tune and test keep the cache's order and all their images.
    Raises SpecError (codes batch_size, start, batch_share, unbalanced), LabelError, CacheError.
    """
    cache = ensure_cache(work, preset, masks=masks, boxes=boxes)
    join = join_boxes if boxes else join_masks if masks else join_targets
    _, targets = join(Manifest.load(work), cache)
    train = train_batches(
        cache,
        targets,
        batch_size,
        seed,
        epoch=epoch,
        start=start,
        sampling=sampling,
        context=context,
    )
    tune = eval_batches(cache, targets, batch_size, "tune", context=context)
    return train, tune, eval_batches(cache, targets, batch_size, "test", context=context)


def train_batches(
    cache: Cache,
    targets: Targets,
    batch_size: int,
    seed: int,
    *,
    epoch: int = 0,
    start: int = 0,
    sampling: Sampling = "shuffled",
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Training batches of one epoch, from batch `start` (0-based) on; see `datasets`.

    sampling "balanced": every run of as many images as there are classes holds each class once, in
    random order. Rare classes are repeated, images without a label are left out, and the epoch has
    as many batches as a shuffled one. Raises SpecError (code unbalanced) for several findings,
    which no sampling can balance together, and if a class has no image.
    """
    share, shares = _share_of_replica(batch_size, context)
    if start < 0:
        raise SpecError(f"start must be 0 or more, received {start}", code="start")
    count = len(rows_of(cache, "train"))
    if share < batch_size and count < batch_size:
        raise SpecError(
            f"{count} training images do not fill one batch of {batch_size} that is shared by "
            f"{batch_size // share} replicas: use a smaller batch_size",
            code="batch_share",
        )
    steps, rng = training_steps(count, batch_size), np.random.default_rng([seed, epoch])
    several = context if context is not None and context.num_input_pipelines > 1 else None
    if sampling == "balanced":
        records = _balanced(cache, targets, rng, steps * batch_size, positions=several is not None)
    else:
        records = _shuffled(cache, rng, positions=several is not None)
    elements = max(0, steps - start) * shares
    if several is not None:
        batches = records.batch(batch_size, drop_remainder=True).skip(start)
        first = several.input_pipeline_id * shares * share
        batches = records_at(shares_of_batches(batches, first, share, shares), _reader(cache))
    else:
        batches = records.batch(share, drop_remainder=count >= batch_size).skip(start * shares)
    return parsed(batches.take(elements), elements, cache, targets, epoch_key(seed, epoch))


def eval_batches(
    cache: Cache,
    targets: Targets,
    batch_size: int,
    split: str,
    *,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Batches of all images of one split, in the cache's order; see `datasets`.

    With a context of n input pipelines, each gives every n-th image. Raises SpecError (code
    unknown_split, batch_size, batch_share).
    """
    tf = require_tensorflow()
    share, _ = _share_of_replica(batch_size, context)
    if split not in SPLITS:
        raise SpecError(
            f"unknown split {split!r}: choose one of {', '.join(SPLITS)}", code="unknown_split"
        )
    count = len(rows_of(cache, split))
    if context is None or context.num_input_pipelines == 1:
        batches = tf.data.TFRecordDataset(cache.files(split)).batch(share)
    else:
        own = np.arange(context.input_pipeline_id, count, context.num_input_pipelines)
        count = len(own)
        positions = tf.data.Dataset.from_tensor_slices(own).batch(share)
        batches = records_at(positions, _reader(cache, split))
    return parsed(batches, -(-count // share), cache, targets, 0)


def training_steps(images: int, batch_size: int) -> int:
    """Number of batches of one training epoch: the last, incomplete batch is dropped unless it is
    the only one.

    >>> training_steps(20, 8), training_steps(5, 8)
    (2, 1)
    """
    return max(1, images // batch_size) if images else 0


def rows_of(cache: Cache, split: str) -> np.ndarray:
    """Cache row numbers of one split, int64, in the order of `eval_batches`."""
    return np.flatnonzero(cache.images["split"] == split)


def epoch_key(seed: int, epoch: int) -> int:
    """A 31-bit hash of (seed, epoch), the first half of each image's key.

    >>> epoch_key(0, 0) == epoch_key(0, 0) != epoch_key(0, 1)
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:4], "little") >> 1


def _reader(cache: Cache, split: str = "train") -> RecordReader:
    return RecordReader(cache.files(split), cache.sample_bytes)


def _shuffled(cache: Cache, rng: np.random.Generator, *, positions: bool) -> tf.data.Dataset:
    """Each training record once: shards in random order, then a shuffle over SHUFFLE_BYTES of
    records. positions: the positions of the records in this order, instead of their bytes.
    """
    tf = require_tensorflow()
    files = cache.files("train")
    order, shuffle_seed = shuffling(len(files), rng)
    if positions:
        records = tf.data.Dataset.from_tensor_slices(_reader(cache).by_shards(order))
    else:
        records = tf.data.TFRecordDataset([files[i] for i in order])
    return records.shuffle(shuffle_buffer(cache), seed=shuffle_seed, reshuffle_each_iteration=False)


def shuffling(files: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The order of the shards of one epoch, int64 (files,), and the seed of its shuffle."""
    return rng.permutation(files), int(rng.integers(2**31))


def shuffle_buffer(cache: Cache) -> int:
    """The number of training records that are shuffled at once."""
    return max(1, min(len(rows_of(cache, "train")), SHUFFLE_BYTES // cache.sample_bytes))


def _balanced(
    cache: Cache, targets: Targets, rng: np.random.Generator, count: int, *, positions: bool
) -> tf.data.Dataset:
    """`count` training records, each class in turn; shuffled and repeated within a class.
    positions: see `_shuffled`.
    """
    tf = require_tensorflow()
    if targets.labels.ndim == 2 and targets.labels.shape[1] > 1:
        raise SpecError(
            'sampling="balanced" needs one finding or classes, received '
            f"{targets.labels.shape[1]} findings: balance several findings by class weights",
            code="unbalanced",
        )
    is_labeled = targets.weights.reshape(len(targets.weights)) > 0
    labels = targets.labels.reshape(len(is_labeled))
    classes = np.where(is_labeled, labels, -1).astype(np.int32)
    train_classes = classes[rows_of(cache, "train")]
    sizes = np.bincount(train_classes + 1, minlength=1 + max(2, len(targets.names)))[1:]
    if (sizes == 0).any():
        raise SpecError(
            'sampling="balanced": a class has no labeled image in the train split: use '
            'sampling="shuffled", or label images of each class',
            code="unbalanced",
        )
    class_of_row, files = tf.constant(classes), cache.files("train")
    buffer = max(1, SHUFFLE_BYTES // cache.sample_bytes // len(sizes))

    def stream(label: int, size: int) -> Any:
        if positions:
            own = np.flatnonzero(train_classes == label)
            records = tf.data.Dataset.from_tensor_slices(own)
        else:
            records = tf.data.TFRecordDataset(files).filter(
                lambda record: tf.gather(class_of_row, _row(tf, record))[0] == label
            )
        return records.shuffle(min(size, buffer), seed=int(rng.integers(2**31))).repeat()

    rounds = np.tile(np.arange(len(sizes)), (-(-count // len(sizes)), 1))
    turns = rng.permuted(rounds, axis=1).ravel()[:count]
    streams = [stream(label, int(size)) for label, size in enumerate(sizes)]
    return tf.data.Dataset.choose_from_datasets(streams, tf.data.Dataset.from_tensor_slices(turns))


def _row(tf: ModuleType, records: Any) -> Any:
    """Row numbers of serialized records, int32 (records,)."""
    return tf.reshape(_numbers(tf, records, 0, ROW_BYTES, tf.int32), [-1])


def _numbers(tf: ModuleType, records: Any, first: int, size: int, dtype: Any) -> Any:
    """The numbers in `size` bytes of serialized records (texts, or uint8 (records, bytes))."""
    if records.dtype == tf.string:
        return tf.io.decode_raw(tf.strings.substr(records, first, size), dtype)
    part = records[:, first : first + size]
    if dtype.size == 1:
        return tf.bitcast(part, dtype)
    return tf.bitcast(tf.reshape(part, [-1, size // dtype.size, dtype.size]), dtype)


def parsed(
    batches: tf.data.Dataset, steps: int, cache: Cache, targets: Targets, key: int | None = None
) -> tf.data.Dataset:
    """Batches of ({"image", "key"}, label, weight), see `datasets`, from batches of serialized
    records. key: of the epoch (`epoch_key`); None: the batches are pairs (records, key).
    """
    tf = require_tensorflow()
    spec = cache.spec
    dtype = tf.as_dtype(spec.dtype.name)
    image_bytes = sample_bytes(spec) - ROW_BYTES
    labels, weights = tf.constant(targets.labels), tf.constant(targets.weights)
    stored = cache.stored

    def parse(records: Any, key: Any = key) -> tuple:
        row = _row(tf, records)
        pixels = _numbers(tf, records, ROW_BYTES, image_bytes, dtype)
        image = tf.cast(tf.reshape(pixels, [-1, *spec.shape]), tf.float32)
        image = image if spec.scale == 1 else image * spec.scale
        inputs = {"image": image, "key": tf.stack([tf.fill(tf.shape(row), key), row], axis=1)}
        if stored is None:
            return inputs, tf.gather(labels, row), tf.gather(weights, row)
        size = cache.sample_bytes - ROW_BYTES - image_bytes
        values = _numbers(tf, records, ROW_BYTES + image_bytes, size, tf.as_dtype(stored.dtype))
        label = tf.reshape(values, [-1, *stored.shape])
        label = tf.cast(label, tf.int32) if label.dtype.is_integer else label
        return inputs, label, tf.gather(weights, row)

    # AutoGraph would look for Python control flow to convert, which takes 0.4 s and finds nothing.
    unconverted = tf.autograph.experimental.do_not_convert(parse)
    parsed = batches.map(unconverted, num_parallel_calls=PARALLEL, deterministic=True)
    options = tf.data.Options()
    # The end of an epoch waits for tf.data's autotuning thread, which sleeps for up to a minute
    # (TensorFlow 2.21).
    options.autotune.enabled = False
    # `context` gives each pipeline its share already; tf.distribute must not shard once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return (
        parsed.apply(tf.data.experimental.assert_cardinality(steps))
        .prefetch(PARALLEL)
        .with_options(options)
    )


def _share_of_replica(
    batch_size: int, context: tf.distribute.InputContext | None
) -> tuple[int, int]:
    """Images that one replica gets of each batch, and the number of such shares that one input
    pipeline gives to it.
    """
    if batch_size < 1:
        raise SpecError(f"batch_size must be 1 or more, received {batch_size}", code="batch_size")
    if context is None:
        return batch_size, 1
    pipelines = context.num_input_pipelines
    replicas = max(pipelines, context.num_replicas_in_sync)
    if batch_size % replicas:
        raise SpecError(
            f"batch_size {batch_size} cannot be shared equally by {replicas} replicas: use a "
            f"multiple of {replicas}",
            code="batch_share",
        )
    return batch_size // replicas, replicas // pipelines

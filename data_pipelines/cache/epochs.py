"""Training batches for `Model.fit`: each pass over the data is the next epoch, with an order and
with keys of its own.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.cache.store import Cache
from data_pipelines.cache.tf_dataset import (
    Targets,
    epoch_key,
    parsed,
    rows_of,
    shuffle_buffer,
    shuffling,
    training_steps,
)
from data_pipelines.errors import SpecError
from data_pipelines.runtime.backend import require_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf


def training_epochs(
    cache: Cache, targets: Targets, batch_size: int, seed: int, *, epoch: int = 0
) -> tf.data.Dataset:
    """Training batches of ({"image", "key"}, label, weight), see `data_pipelines.datasets`.

    The first pass gives epoch `epoch`, each further pass the next one. A pass counts from its first
    batch on: an iterator that is never read (Keras makes some) does not count. Order and keys
    depend on (seed, epoch) alone, also where TensorFlow has a global seed, and are those with which
    medres.train trains. The last, incomplete batch is dropped unless it is the only one.
    Raises SpecError (codes batch_size, epoch).
    """
    tf = require_tensorflow()
    if batch_size < 1:
        raise SpecError(f"batch_size must be 1 or more, received {batch_size}", code="batch_size")
    if epoch < 0:
        raise SpecError(f"epoch must be 0 or more, received {epoch}", code="epoch")
    files, count = cache.files("train"), len(rows_of(cache, "train"))
    epochs = itertools.count(epoch)

    def begin(_: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number = next(epochs)
        order, shuffle_seed = shuffling(len(files), np.random.default_rng([seed, number]))
        return (
            order.astype(np.int64),
            np.array(shuffle_seed, np.int64),
            np.array(epoch_key(seed, number), np.int32),
        )

    def records(order: Any, shuffle_seed: Any, key: Any) -> Any:
        # The seed of this function's graph: the user's global seed then changes no order.
        tf.compat.v1.set_random_seed(seed)
        shards = tf.gather(tf.constant(files), tf.ensure_shape(order, [len(files)]))
        shuffled = tf.data.TFRecordDataset(shards).shuffle(
            shuffle_buffer(cache),
            seed=_ShuffleSeed(tf.ensure_shape(shuffle_seed, [])),
            reshuffle_each_iteration=False,
        )
        batches = shuffled.batch(batch_size, drop_remainder=count >= batch_size)
        return batches.map(lambda batch: (batch, tf.ensure_shape(key, [])))

    draws = tf.data.Dataset.range(1).map(
        lambda one: tf.numpy_function(begin, [one], [tf.int64, tf.int64, tf.int32])
    )
    return parsed(draws.flat_map(records), training_steps(count, batch_size), cache, targets)


class _ShuffleSeed:
    """A seed that is known only when a pass begins, int64. TensorFlow asks whether both seeds of a
    shuffle are 0, which a symbolic tensor cannot answer.
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __mod__(self, divisor: int) -> _ShuffleSeed:
        return _ShuffleSeed(self.tensor % divisor)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self.tensor

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import raises_code

from data_pipelines import datasets
from data_pipelines.cache.epochs import training_epochs
from data_pipelines.cache.store import ensure_cache
from data_pipelines.cache.tf_dataset import join_targets
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import Manifest


def epochs(work: Path, seed: int = 3, **options: int) -> tf.data.Dataset:
    cache = ensure_cache(work, "xray-32")
    targets = join_targets(Manifest.load(work), cache)[1]
    return training_epochs(cache, targets, 8, seed, **options)


def keys(batches: tf.data.Dataset) -> list[list[int]]:
    return np.concatenate([inputs["key"] for inputs, _, _ in batches]).tolist()


def images(batches: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([inputs["image"] for inputs, _, _ in batches])


@pytest.mark.parametrize("seed", [3, 0])
def test_each_pass_is_the_epoch_that_training_would_see(tiny_work: Path, seed: int) -> None:
    """medres.train has set TensorFlow's global seed to its own when it draws the order."""
    batches = epochs(tiny_work, seed)
    passes = [(keys(batches), batches.cardinality().numpy()) for _ in range(3)]
    keras.utils.set_random_seed(seed)
    for epoch, (seen, steps) in enumerate(passes):
        train = datasets(tiny_work, "xray-32", 8, seed, epoch=epoch)[0]
        assert seen == keys(train)
        assert steps == len(seen) // 8 == train.cardinality()
    assert len({str(seen) for seen, _ in passes}) == 3
    rows = [sorted(row for _, row in seen) for seen, _ in passes]
    assert all(len(set(part)) == len(part) for part in rows)  # no image twice in an epoch


def test_the_order_is_a_function_of_seed_and_epoch_alone(tiny_work: Path) -> None:
    keras.utils.set_random_seed(1)
    batches = epochs(tiny_work)
    first = [keys(batches) for _ in range(3)]
    keras.utils.set_random_seed(2)
    again = epochs(tiny_work)
    assert [keys(again) for _ in range(3)] == first
    resumed = epochs(tiny_work, epoch=2)
    assert keys(resumed) == first[2]


def test_an_iterator_that_is_not_read_is_no_epoch(tiny_work: Path) -> None:
    batches, other = epochs(tiny_work), epochs(tiny_work)
    iter(batches), iter(batches)
    assert keys(batches) == keys(other)


def test_bad_numbers_are_refused(tiny_work: Path) -> None:
    with raises_code(SpecError, "epoch", "-1"):
        epochs(tiny_work, epoch=-1)
    cache = ensure_cache(tiny_work, "xray-32")
    with raises_code(SpecError, "batch_size", "0"):
        training_epochs(cache, join_targets(Manifest.load(tiny_work), cache)[1], 0, 3)


@pytest.mark.parametrize("epoch", [0, 4])
def test_the_last_batch_of_a_small_split_is_kept(tiny_work: Path, epoch: int) -> None:
    cache = ensure_cache(tiny_work, "xray-32")
    targets = join_targets(Manifest.load(tiny_work), cache)[1]
    batches = training_epochs(cache, targets, 500, 3, epoch=epoch)
    assert len(images(batches)) == (cache.images["split"] == "train").sum()
    assert batches.cardinality() == 1

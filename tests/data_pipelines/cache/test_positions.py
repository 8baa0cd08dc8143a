"""Reading records by position, so that an input pipeline reads its share of the files only."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code

from data_pipelines.cache import positions
from data_pipelines.cache.positions import RecordReader
from data_pipelines.cache.store import Cache, ensure_cache
from data_pipelines.cache.tf_dataset import eval_batches, join_masks, join_targets, train_batches
from data_pipelines.errors import CacheError
from data_pipelines.ingestion.manifest import Manifest
from medres.training.distributed.joining import membership


@pytest.fixture
def cache(tiny_work: Path) -> Cache:
    return ensure_cache(tiny_work, "xray-32")


def write_shards(folder: Path, counts: list[int], size: int = 5) -> tuple[list[str], np.ndarray]:
    import tensorflow as tf

    records = np.random.default_rng(0).integers(0, 256, (sum(counts), size), np.uint8)
    files, start = [], 0
    for number, count in enumerate(counts):
        files.append(str(folder / f"{number}.tfrecord"))
        with tf.io.TFRecordWriter(files[-1]) as writer:
            for record in records[start : start + count]:
                writer.write(record.tobytes())
        start += count
    return files, records


def test_records_are_read_by_position_through_all_shards(tmp_path: Path) -> None:
    files, records = write_shards(tmp_path, [3, 1, 4])
    read = RecordReader(files, 5)
    wanted = np.array([7, 0, 3, 4, 2, 2])
    assert (read(wanted) == records[wanted]).all()
    assert read.by_shards(np.array([2, 0, 1])).tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_a_cut_shard_is_refused(tmp_path: Path) -> None:
    files, _ = write_shards(tmp_path, [3])
    read = RecordReader(files, 5)
    os.truncate(files[0], 3 * 21 - 6)
    with raises_code(CacheError, "damaged"):
        read(np.array([2]))
    with raises_code(CacheError, "damaged"):
        RecordReader(files, 5)


@pytest.mark.parametrize("at", [0, 9, 12, 16, 17, 20], ids=lambda at: f"byte {at}")
def test_a_changed_byte_is_an_error_and_no_wrong_image(tmp_path: Path, at: int) -> None:
    """Of the length, of its checksum, of the data, or of theirs."""
    files, records = write_shards(tmp_path, [3, 2])
    read = RecordReader(files, 5)
    data = bytearray(Path(files[0]).read_bytes())
    data[21 + at] ^= 4
    Path(files[0]).write_bytes(data)
    with raises_code(CacheError, "damaged", files[0]):
        read(np.array([0, 1]))
    assert (read(np.array([0, 2, 3])) == records[[0, 2, 3]]).all()


@pytest.mark.parametrize("several", [True, False])
def test_a_byte_that_changes_in_training_has_a_code(
    cache: Cache, tiny_work: Path, tmp_path: Path, several: bool
) -> None:
    """The cache was whole when it was opened: by position, and from end to end."""
    import tensorflow as tf

    folder = tmp_path / cache.folder.name
    shutil.copytree(cache.folder, folder)
    copy = dataclasses.replace(cache, folder=folder)
    _, targets = join_targets(Manifest.load(tiny_work), copy)
    for name in copy.files("train"):
        data = np.fromfile(folder / name, np.uint8)
        data[100 :: RecordReader([str(folder / name)], copy.sample_bytes).frame] ^= 1
        data.tofile(folder / name)
    context = tf.distribute.InputContext(2, 0, 2) if several else None
    with raises_code(CacheError, "damaged"), membership({}):
        for _ in train_batches(copy, targets, 8, 5, context=context):
            pass


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_each_pipeline_reads_its_share_and_they_join_to_the_batch_of_one(
    cache: Cache, tiny_work: Path, sampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pipelines of two replicas each: in order, their four shares are the batch of one
    pipeline, image by image; and of the files each reads no more than its own images.
    """
    import tensorflow as tf

    _, targets = join_targets(Manifest.load(tiny_work), cache)
    reads: list[int] = []

    def counted(file: int, size: int, offset: int) -> bytes:
        reads.append(size)
        return os_pread(file, size, offset)

    os_pread = os.pread
    monkeypatch.setattr(positions.os, "pread", counted)

    def batches(context=None) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
        elements = train_batches(
            cache, targets, 8, 5, epoch=1, start=1, sampling=sampling, context=context
        )
        return [
            (inputs["key"][:, 1].numpy().tolist(), inputs["image"].numpy(), label.numpy())
            for inputs, label, _ in elements
        ]

    one = batches()
    assert reads == []  # a single pipeline reads the shards from end to end
    parts = [batches(tf.distribute.InputContext(2, i, 4)) for i in range(2)]
    assert len(reads) == 8 * len(one)
    for number, (rows, image, label) in enumerate(one):
        shares = [p for part in parts for p in part[2 * number : 2 * number + 2]]
        assert [len(share[0]) for share in shares] == [2, 2, 2, 2]
        assert [row for share in shares for row in share[0]] == rows
        assert (np.concatenate([share[1] for share in shares]) == image).all()
        assert (np.concatenate([share[2] for share in shares]) == label).all()


def test_the_tuning_split_and_label_maps_are_shared_out_too(mask_work: Path) -> None:
    import tensorflow as tf

    cache = ensure_cache(mask_work, "xray-32", masks=True)
    _, targets = join_masks(Manifest.load(mask_work), cache)
    whole = {
        int(row): (image, label)
        for inputs, labels, _ in eval_batches(cache, targets, 4, "train")
        for row, image, label in zip(
            inputs["key"][:, 1].numpy(), inputs["image"].numpy(), labels.numpy(), strict=True
        )
    }
    rows = []
    for pipeline in range(3):
        context = tf.distribute.InputContext(3, pipeline, 3)
        for inputs, labels, _ in eval_batches(cache, targets, 6, "train", context=context):
            for row, image, label in zip(
                inputs["key"][:, 1].numpy(), inputs["image"].numpy(), labels.numpy(), strict=True
            ):
                assert (image == whole[int(row)][0]).all()
                assert (label == whole[int(row)][1]).all()
                rows.append(int(row))
    assert sorted(rows) == sorted(whole)

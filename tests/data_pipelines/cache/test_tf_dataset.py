from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import raises_code

from data_pipelines import datasets
from data_pipelines.cache.store import ensure_cache
from data_pipelines.cache.tf_dataset import (
    Targets,
    epoch_key,
    eval_batches,
    targets_of,
    train_batches,
)
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.pixels.image import read_image
from data_pipelines.preprocessing.preparation import prepare, to_model_units
from data_pipelines.preprocessing.spec import spec_from


def order(dataset) -> list[int]:
    return [int(row) for inputs, _, _ in dataset for row in inputs["key"][:, 1]]


def test_batches_hold_images_keys_labels_and_weights(tiny_work: Path) -> None:
    train, tune, test = datasets(tiny_work, "xray-32", 8, seed=5)
    inputs, label, weight = next(iter(train))
    assert inputs["image"].shape == (8, 32, 32, 1)
    assert inputs["image"].dtype == "float32"
    assert float(inputs["image"].numpy().min()) >= 0
    assert float(inputs["image"].numpy().max()) <= 1
    assert label.shape == weight.shape == (8, 1)
    manifest, cache = Manifest.load(tiny_work), ensure_cache(tiny_work, "xray-32")
    counts = cache.images["split"].value_counts()
    assert len(order(tune)) == counts["tune"]
    assert len(order(test)) == counts["test"]
    assert len(order(train)) == counts["train"] // 8 * 8
    table = manifest.table.set_index("image")
    for inputs, label, weight in test:
        for image, row, y, w in zip(
            inputs["image"], inputs["key"][:, 1].numpy(), label.numpy(), weight.numpy(), strict=True
        ):
            line = table.loc[cache.images["image"].iloc[row]]
            spec = spec_from("xray-32")
            want = to_model_units(
                prepare(read_image(Path(line["source"]) / line["path"]), spec), spec
            )
            assert (image.numpy() == want).all()
            assert y == line["label:square"]
            assert w == 1


def test_order_is_a_function_of_seed_and_epoch(tiny_work: Path) -> None:
    def train(**options) -> list[int]:
        return order(datasets(tiny_work, "xray-32", 8, **options)[0])

    assert train(seed=5) == train(seed=5)
    assert train(seed=5) != train(seed=6)
    assert train(seed=5) != train(seed=5, epoch=1)
    assert train(seed=5, epoch=2, start=2) == train(seed=5, epoch=2)[16:]


def test_the_key_holds_the_epoch(tiny_work: Path) -> None:
    train = datasets(tiny_work, "xray-32", 8, seed=5, epoch=3)[0]
    assert {int(k) for inputs, _, _ in train for k in inputs["key"][:, 0]} == {epoch_key(5, 3)}
    assert epoch_key(5, 3) != epoch_key(5, 4)


def test_the_graph_holds_no_python(tiny_work: Path) -> None:
    import tensorflow as tf

    shuffled, balanced = (
        datasets(tiny_work, "xray-32", 8, seed=0, sampling=s) for s in ("shuffled", "balanced")
    )
    for dataset in (*shuffled, balanced[0]):
        graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
        names = {node.op for node in graph.node}
        names |= {node.op for function in graph.library.function for node in function.node_def}
        assert "DecodeRaw" in names
        assert any(name.startswith("TFRecordDataset") for name in names)
        assert not {name for name in names if "PyFunc" in name or "Generator" in name}


def test_missing_and_uncertain_labels_weigh_nothing(tiny_work: Path) -> None:
    manifest = Manifest.load(tiny_work)
    table = manifest.table.copy()
    table["label:square"] = np.resize(np.array([0, 1, -1, np.nan], np.float32), len(table))
    changed = replace(manifest, table=table)
    targets = targets_of(changed, table["image"])
    assert targets.weights[:4, 0].tolist() == [1, 1, 0, 0]
    assert targets.labels[:4, 0].tolist() == [0, 1, 0, 0]


def test_multiclass_targets(tiny_work: Path) -> None:
    manifest = Manifest.load(tiny_work)
    table = manifest.table.drop(columns="label:square").assign(
        **{"class": np.resize(["a", "b", ""], len(manifest.table))}
    )
    summary = {**manifest.summary, "task": "multiclass", "classes": ["a", "b"]}
    targets = targets_of(replace(manifest, table=table, summary=summary), table["image"])
    assert targets.labels[:3].tolist() == [0, 1, 0]
    assert targets.weights[:3].tolist() == [1, 1, 0]


def test_a_batch_size_of_zero_is_refused(tiny_work: Path) -> None:
    with raises_code(SpecError, "batch_size", "0"):
        datasets(tiny_work, "xray-32", 0, seed=0)


def test_a_restart_gives_the_very_batches_that_were_left(tiny_work: Path) -> None:
    """Pixels, keys, labels and weights, under either sampling; a start past the end leaves
    nothing.
    """
    for sampling in ("shuffled", "balanced"):
        whole = list(datasets(tiny_work, "xray-32", 8, 5, epoch=3, sampling=sampling)[0])
        rest = list(datasets(tiny_work, "xray-32", 8, 5, epoch=3, start=2, sampling=sampling)[0])
        assert len(rest) == len(whole) - 2 > 0
        for a, b in zip(whole[2:], rest, strict=True):
            for x, y in zip((*a[0].values(), *a[1:]), (*b[0].values(), *b[1:]), strict=True):
                assert (x.numpy() == y.numpy()).all()
    assert order(datasets(tiny_work, "xray-32", 8, 5, start=100)[0]) == []
    with raises_code(SpecError, "start", "-1"):
        datasets(tiny_work, "xray-32", 8, 5, start=-1)


def few_positives(work: Path, every: int = 7) -> tuple:
    """The tiny cache with one positive in `every` images and one image in five without a label."""
    cache = ensure_cache(work, "xray-32")
    number = np.arange(len(cache.images))
    label = (number % every == 0).astype(np.float32)[:, None]
    weight = (number % 5 != 1).astype(np.float32)[:, None]
    return cache, Targets("binary", ("square",), label, weight)


def test_balanced_sampling_gives_every_class_its_turn(tiny_work: Path) -> None:
    cache, targets = few_positives(tiny_work)
    batches = list(train_batches(cache, targets, 8, 5, epoch=1, sampling="balanced"))
    rows = [row for inputs, _, _ in batches for row in inputs["key"][:, 1].numpy()]
    assert len(batches) == len(list(train_batches(cache, targets, 8, 5)))
    for inputs, label, weight in batches:
        assert label.numpy().sum() == 4  # half of eight
        assert (weight.numpy() == 1).all()
        assert (cache.images["split"].iloc[inputs["key"][:, 1].numpy()] == "train").all()
    labels = targets.labels[rows, 0]
    assert (labels.reshape(-1, 2).sum(axis=1) == 1).all()  # each pair holds both
    assert len(set(map(tuple, labels.reshape(-1, 2)))) == 2  # in either order
    positives = np.flatnonzero(
        (targets.labels * targets.weights)[:, 0] * (cache.images["split"] == "train")
    )
    taken = np.bincount(np.array(rows)[labels == 1], minlength=len(targets.labels))[positives]
    assert taken.max() - taken.min() <= 1  # repeated only after all others had their turn


def test_balanced_sampling_refuses_what_it_cannot_balance(tiny_work: Path) -> None:
    cache, targets = few_positives(tiny_work)
    two = Targets("multilabel", ("a", "b"), np.tile(targets.labels, 2), np.tile(targets.weights, 2))
    with raises_code(SpecError, "unbalanced", "2 findings"):
        train_batches(cache, two, 8, 5, sampling="balanced")
    none = Targets("binary", ("a",), np.zeros_like(targets.labels), targets.weights)
    with raises_code(SpecError, "unbalanced"):
        train_batches(cache, none, 8, 5, sampling="balanced")


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_input_pipelines_share_out_the_very_same_batches(tiny_work: Path, sampling: str) -> None:
    import tensorflow as tf

    cache, targets = few_positives(tiny_work)

    def rows(context=None, start: int = 0) -> list[list[int]]:
        batches = train_batches(
            cache, targets, 8, 5, epoch=2, start=start, sampling=sampling, context=context
        )
        return [inputs["key"][:, 1].numpy().tolist() for inputs, _, _ in batches]

    contexts = [tf.distribute.InputContext(2, i, 2) for i in range(2)]
    shares = [rows(context) for context in contexts]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [
        sorted(batch) for batch in rows()
    ]
    assert all(len(batch) == 4 for share in shares for batch in share)
    assert rows(contexts[1], start=3) == shares[1][3:]
    tune = [order(eval_batches(cache, targets, 4, "tune", context=context)) for context in contexts]
    assert sorted(tune[0] + tune[1]) == np.flatnonzero(cache.images["split"] == "tune").tolist()
    with raises_code(SpecError, "batch_share", "7"):
        train_batches(cache, targets, 7, 5, context=contexts[0])
    with raises_code(SpecError, "batch_share", "200"):
        train_batches(cache, targets, 200, 5, context=contexts[0])


def test_a_pipeline_with_more_images_than_others_gives_no_batch_more(tiny_work: Path) -> None:
    """The last batch that some pipelines lack is dropped by all."""
    import tensorflow as tf

    cache, targets = few_positives(tiny_work)
    count = int((cache.images["split"] == "train").sum())
    pipelines = next(p for p in range(2, 12) if count % p and count // p > 2)
    share = -(-count // pipelines)  # only the first pipelines have so many images
    contexts = [tf.distribute.InputContext(pipelines, i, pipelines) for i in range(pipelines)]
    for size in (share - 1, 1):
        lengths = {
            len([*train_batches(cache, targets, size * pipelines, 5, context=context)])
            for context in contexts
        }
        assert lengths == {count // (size * pipelines)}


def test_two_devices_of_one_process_share_a_batch(tiny_work: Path) -> None:
    """Each element of the dataset is the share of one replica; two of them make a batch."""
    import tensorflow as tf

    cache, targets = few_positives(tiny_work)

    def keys(**options: Any) -> list[list[int]]:
        batches = train_batches(cache, targets, 8, 5, **options)
        return [inputs["key"][:, 1].numpy().tolist() for inputs, _, _ in batches]

    one, shares = keys(), keys(context=tf.distribute.InputContext(1, 0, 2))
    assert {len(share) for share in shares} == {4}
    assert [a + b for a, b in zip(shares[::2], shares[1::2], strict=True)] == one
    assert keys(start=2, context=tf.distribute.InputContext(1, 0, 2)) == shares[4:]


def test_tf_distribute_takes_the_pipeline(tiny_work: Path) -> None:
    import tensorflow as tf

    cache, targets = few_positives(tiny_work)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    shared = strategy.distribute_datasets_from_function(
        lambda context: train_batches(cache, targets, 8, 5, context=context)
    )
    got = [inputs["key"][:, 1].numpy().tolist() for inputs, _, _ in shared]
    assert got == [
        inputs["key"][:, 1].numpy().tolist() for inputs, _, _ in train_batches(cache, targets, 8, 5)
    ]

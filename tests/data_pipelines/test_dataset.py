from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import datasets
from data_pipelines.cache import ensure_cache
from data_pipelines.dataset import epoch_key, targets_of
from data_pipelines.errors import SpecError
from data_pipelines.images import read_image
from data_pipelines.manifest import Manifest
from data_pipelines.preprocess import prepare, spec_from, to_model_units


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
            want = to_model_units(prepare(read_image(Path(line["source"]) / line["path"]), spec), spec)
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

    for dataset in datasets(tiny_work, "xray-32", 8, seed=0):
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
    with pytest.raises(SpecError, match="batch_size"):
        datasets(tiny_work, "xray-32", 0, seed=0)

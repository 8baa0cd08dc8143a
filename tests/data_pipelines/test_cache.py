from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import rewrite

from data_pipelines import building, planning
from data_pipelines.cache import eligible_rows, ensure_cache, open_cache
from data_pipelines.errors import CacheError
from data_pipelines.images import read_image
from data_pipelines.manifest import Manifest
from data_pipelines.preprocess import prepare, spec_from


@pytest.fixture
def work(tiny_work: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "work"
    shutil.copytree(tiny_work, copy, ignore=shutil.ignore_patterns("cache"))
    return copy


def records(folder: Path, spec) -> dict[int, np.ndarray]:
    import tensorflow as tf

    found = {}
    for shard in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            row = int(np.frombuffer(record[:4], np.int32)[0])
            found[row] = np.frombuffer(record[4:], spec.dtype).reshape(spec.rows, spec.cols)
    return found


def test_every_record_is_the_prepared_image(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SHARD_BYTES", 10 * 32 * 32 * 2)  # ten images a shard
    spec = spec_from("xray-32")
    cache = ensure_cache(work, spec)
    table = Manifest.load(work).table.set_index("image")
    found = records(cache.folder, spec)
    assert sorted(found) == list(range(60))
    assert len(list(cache.folder.glob("train-*"))) > 1
    for row, pixels in found.items():
        line = table.loc[cache.images["image"].iloc[row]]
        assert line["split"] == cache.images["split"].iloc[row]
        assert (pixels == prepare(read_image(Path(line["source"]) / line["path"]), spec)).all()


def test_a_second_call_builds_nothing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_cache(work, "xray-32")
    monkeypatch.setattr(building, "map_files", None)
    assert ensure_cache(work, "xray-32").folder == first.folder


def test_another_spec_or_split_is_another_cache(work: Path) -> None:
    first = ensure_cache(work, "xray-32")
    assert ensure_cache(work, "xray-24").folder != first.folder
    table = Manifest.load(work).table
    table["split"] = table["split"].replace({"tune": "test", "test": "tune"})
    rewrite(work, table)
    assert ensure_cache(work, "xray-32").folder != first.folder


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "index"])
def test_damage_is_noticed(work: Path, damage: str) -> None:
    folder = ensure_cache(work, "xray-32").folder
    shard = next(folder.glob("train-*.tfrecord"))
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    elif damage == "cut":  # at a record boundary: TFRecord itself would read it without a word
        size = 12 + 4 + 4 + 32 * 32 * 2
        assert len(data) % size == 0
        shard.write_bytes(data[:-size])
    elif damage == "delete":
        shard.unlink()
    else:
        (folder / "cache.json").write_text("{}")
    with pytest.raises(CacheError, match="delete the folder"):
        open_cache(folder)


def test_a_source_file_that_changed_after_ingest_is_an_error(work: Path, tmp_path: Path) -> None:
    table = Manifest.load(work).table
    images = tmp_path / "images"
    shutil.copytree(table["source"].iloc[0], images)
    table["source"] = str(images)
    rewrite(work, table)
    files = sorted(images.rglob("*.dcm"))
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(CacheError, match="changed since it was ingested"):
        ensure_cache(work, "xray-32")
    assert not list((work / "cache").glob("xray*"))
    assert not list((work / "cache").glob(".building*"))


def test_a_preset_of_another_kind_is_an_error(work: Path) -> None:
    with pytest.raises(CacheError, match="60 radiograph"):
        ensure_cache(work, "ct-32")


def test_the_cache_holds_no_more_than_the_integers(work: Path) -> None:
    cache = ensure_cache(work, "xray-64")
    shards = json.loads((cache.folder / "cache.json").read_text())["shards"]
    assert sum(s["bytes"] for s in shards) <= 1.05 * 60 * 64 * 64 * 2


def test_rows_follow_paths_and_positions_and_never_pseudonyms() -> None:
    table = pd.DataFrame(
        {
            "kind": ["ct", "ct", "radiograph", "ct", "ct", "ct"],
            "split": ["test", "train", "train", "train", "train", "train"],
            "series": ["z", "x", "r", "a", "x", "a"],
            "order": [0, 1, 0, 1, 0, 0],
            "image": ["5", "4", "3", "2", "1", "0"],
        }
    )
    assert eligible_rows(table, spec_from("ct-32"))["image"].tolist() == ["1", "4", "0", "2", "5"]

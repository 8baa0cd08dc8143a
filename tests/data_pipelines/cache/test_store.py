from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import rewrite
from helpers import raises_code, work_in_process

from data_pipelines.cache import builder, plan
from data_pipelines.cache.builder import load_checksummed
from data_pipelines.cache.store import eligible_rows, ensure_cache, open_cache, verify_caches
from data_pipelines.errors import CacheError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.pixels.image import read_image
from data_pipelines.preprocessing.preparation import prepare
from data_pipelines.preprocessing.spec import spec_from


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        work_in_process(patch)
        yield


@pytest.fixture
def work(tiny_work: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "work"
    shutil.copytree(tiny_work, copy, ignore=shutil.ignore_patterns("cache"))
    return copy


def records(folder: Path, spec) -> dict[int, np.ndarray]:
    import tensorflow as tf

    by_row = {}
    for shard in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            row = int(np.frombuffer(record[:4], np.int32)[0])
            by_row[row] = np.frombuffer(record[4:], spec.dtype).reshape(spec.rows, spec.cols)
    return by_row


def test_every_record_is_the_prepared_image(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD_BYTES", 10 * 32 * 32 * 2)  # ten images a shard
    spec = spec_from("xray-32")
    cache = ensure_cache(work, spec)
    table = Manifest.load(work).table.set_index("image")
    by_row = records(cache.folder, spec)
    assert sorted(by_row) == list(range(60))
    assert len(list(cache.folder.glob("train-*"))) > 1
    for row, pixels in by_row.items():
        line = table.loc[cache.images["image"].iloc[row]]
        assert line["split"] == cache.images["split"].iloc[row]
        assert (pixels == prepare(read_image(Path(line["source"]) / line["path"]), spec)).all()


def test_a_second_call_builds_nothing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_cache(work, "xray-32")
    monkeypatch.setattr(builder, "map_isolated", None)
    assert ensure_cache(work, "xray-32").folder == first.folder


def test_another_spec_or_split_is_another_cache(work: Path) -> None:
    first = ensure_cache(work, "xray-32")
    assert ensure_cache(work, "xray-24").folder != first.folder
    table = Manifest.load(work).table
    table["split"] = table["split"].replace({"tune": "test", "test": "tune"})
    rewrite(work, table)
    assert ensure_cache(work, "xray-32").folder != first.folder


@pytest.fixture(scope="module")
def built(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a cache of xray-32 in five shards. Read only."""
    copy = tmp_path_factory.mktemp("built") / "work"
    shutil.copytree(tiny_work, copy, ignore=shutil.ignore_patterns("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SHARD_BYTES", 20 * 32 * 32 * 2)
        ensure_cache(copy, "xray-32")
    return copy


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "work"))


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "index"])
def test_damage_is_noticed(copied: Path, damage: str) -> None:
    folder = ensure_cache(copied, "xray-32").folder
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
    with raises_code(CacheError, "damaged", str(folder)):
        open_cache(folder)


def test_a_source_file_that_changed_after_ingest_is_an_error(work: Path, tmp_path: Path) -> None:
    table = Manifest.load(work).table
    images = tmp_path / "images"
    shutil.copytree(table["source"].iloc[0], images)
    table["source"] = str(images)
    rewrite(work, table)
    files = sorted(images.rglob("*.dcm"))
    files[0].write_bytes(files[1].read_bytes())
    with raises_code(CacheError, "source_changed"):
        ensure_cache(work, "xray-32")
    assert not list((work / "cache").glob("xray*"))
    assert not list((work / "cache").glob(".building*"))


def test_a_preset_of_another_kind_is_an_error(work: Path) -> None:
    with raises_code(CacheError, "wrong_kind", "60 radiograph"):
        ensure_cache(work, "ct-32")


def test_the_cache_holds_no_more_than_the_integers(work: Path) -> None:
    cache = ensure_cache(work, "xray-64")
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 1.05 * 60 * 64 * 64 * 2


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


def test_verify_finds_every_flip_in_the_index_and_one_in_any_file(copied: Path) -> None:
    """Each byte of the index; of the other files the first, the last and some between."""
    (folder,) = (copied / "cache").iterdir()
    assert verify_caches(copied) == {folder.name: []}
    rng = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        offsets = {0, len(data) - 1, *rng.integers(0, len(data), 5).tolist()}
        for at in range(len(data)) if path.name == "cache.json" else offsets:
            changed = bytearray(data)
            changed[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            if path.name == "cache.json":
                with pytest.raises(ValueError):  # noqa: PT011  JSON's own errors are ValueErrors too
                    load_checksummed(bytes(changed))
            else:
                assert len(verify_caches(copied)[folder.name]) == 1, (path.name, at)
        path.write_bytes(data)
    assert verify_caches(copied) == {folder.name: []}


def test_verify_finds_what_is_cut_gone_stale_or_unfinished(copied: Path) -> None:
    (folder,) = (copied / "cache").iterdir()
    shards = sorted(folder.glob("*.tfrecord"))
    shards[0].write_bytes(shards[0].read_bytes()[:-10])
    shards[1].unlink()
    (folder / "images.parquet").unlink()
    shutil.copy(shards[2], folder / "train-00009.tfrecord")
    (copied / "cache" / ".building-xray-64-0123456789ab").mkdir()
    problems = verify_caches(copied)
    words = ("damaged", "missing", "belongs to no index")
    reasons = [next(word for word in words if word in line) for line in problems[folder.name]]
    assert sorted(reasons) == ["belongs to no index", "damaged", "missing", "missing"]
    assert "never finished" in problems[".building-xray-64-0123456789ab"][0]
    assert len(problems) == 2


def test_verify_finds_a_cache_of_another_manifest(copied: Path) -> None:
    (folder,) = (copied / "cache").iterdir()
    rewrite(copied, Manifest.load(copied).table.iloc[:-1])
    assert "another manifest" in verify_caches(copied)[folder.name][0]


def test_a_build_goes_on_after_its_last_whole_shard(
    work: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHARD_BYTES", 20 * 32 * 32 * 2)
    written: list[str] = []
    write = builder._write_shard

    def killed(folder: Path, shard: dict, records) -> dict:
        if len(written) == 2:
            (folder / "train-00002.partial").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(shard["file"])
        return write(folder, shard, records)

    monkeypatch.setattr(builder, "_write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        ensure_cache(work, "xray-32")
    (unfinished,) = (work / "cache").iterdir()
    with (unfinished / written[0]).open(
        "r+b"
    ) as file:  # and the disk lost a byte of the first shard meanwhile
        file.seek(100)
        file.write(b"\0\1\2\3")
    again: list[str] = []
    monkeypatch.setattr(
        builder, "_write_shard", lambda f, s, r: again.append(s["file"]) or write(f, s, r)
    )
    seen, lines = [], []
    cache = ensure_cache(
        work, "xray-32", progress=lambda done, total: seen.append((done, total)), log=lines.append
    )
    assert written[0] in again
    assert written[1] not in again
    assert (60, 60) in seen  # then the files are verified
    assert seen[0][0] == 20  # nineteen were there
    assert "already there" in lines[0]
    names = {path.name for path in cache.folder.iterdir()}
    assert names == {path.name for path in next((built / "cache").iterdir()).iterdir()}
    for path in (built / "cache").glob("*/*.tfrecord"):
        assert (cache.folder / path.name).read_bytes() == path.read_bytes()
    assert verify_caches(work) == {cache.folder.name: []}


BUILDER = """
import sys
from data_pipelines.cache import ensure_cache
print(ensure_cache(sys.argv[1], "xray-40", workers=1, log=print).folder.name)
"""


def test_two_processes_may_build_the_same_cache(work: Path) -> None:
    """One builds, the other waits, and both open the same whole cache."""
    command = [sys.executable, "-c", BUILDER, str(work)]
    pair = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    lines = [output.splitlines() for output, _ in outputs]
    assert lines[0][-1] == lines[1][-1]
    assert sum("60 samples of xray-40" in line for both in lines for line in both) == 1
    assert [path.name for path in (work / "cache").iterdir()] == [lines[0][-1]]
    assert verify_caches(work) == {lines[0][-1]: []}


def test_a_disk_without_room_is_an_error_before_the_first_byte(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 60 * (64 * 64 * 2 + 20) - 1
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(builder, "map_isolated", None)
    lines: list[str] = []
    with raises_code(CacheError, "no_space", "0.5 MiB"):
        ensure_cache(work, "xray-64", log=lines.append)
    assert lines == ["60 samples of xray-64, 0.5 MiB"]
    assert not [path for folder in (work / "cache").iterdir() for path in folder.iterdir()]


def test_the_estimate_is_the_size(built: Path) -> None:
    (folder,) = (built / "cache").iterdir()
    manifest, spec = Manifest.load(built), spec_from("xray-32")
    planned = plan.plan_samples(eligible_rows(manifest.table, spec), spec)
    assert planned.size == sum(path.stat().st_size for path in folder.glob("*.tfrecord"))

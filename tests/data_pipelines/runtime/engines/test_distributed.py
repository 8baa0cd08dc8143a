"""Engines: the order of results, lost tasks, errors of machines, and the same bytes as here."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_cluster import FakeCluster
from helpers import raises_code, work_in_process
from PIL import Image

from data_pipelines.cache.store import ensure_cache
from data_pipelines.errors import CacheError, EngineError, InputError
from data_pipelines.ingestion import ingest
from data_pipelines.runtime.engines import LOCAL, opened_engine, shared
from data_pipelines.runtime.engines.distributed import MAX_LOST, DistributedEngine
from data_pipelines.runtime.limits import active_limits, limited


def squares(parts: Sequence[int], /, *, workers, progress) -> Iterator:
    for part in parts:
        if part < 0:
            raise CacheError("negative", code="source_changed")
        yield part * part, active_limits().seconds


def run(engine, parts: Sequence[int], **options) -> list:
    return [n for n, _ in engine.run(squares, parts, sizes=[1] * len(parts), **options)]


def test_results_come_in_the_order_of_the_parts() -> None:
    done = []
    engine = DistributedEngine(FakeCluster(lost=[1, 0, 2]))
    assert run(engine, range(30), progress=lambda *counts: done.append(counts)) == run(
        LOCAL, range(30)
    )
    assert done[-1] == (30, 30)
    assert [n for n, _ in done] == sorted({n for n, _ in done})


def test_tasks_have_the_limits_of_the_caller() -> None:
    with limited(seconds=77):
        engine = DistributedEngine(FakeCluster())
        assert list(engine.run(squares, [3], sizes=[1])) == [(9, 77)]


def test_a_task_that_is_lost_again_and_again_ends_the_command() -> None:
    cluster = FakeCluster(lost=[MAX_LOST + 1])
    with raises_code(EngineError, "task_lost"):
        run(DistributedEngine(cluster), range(100))
    assert cluster.cancelled
    assert run(DistributedEngine(FakeCluster(lost=[MAX_LOST])), range(100))[-1] == 99**2


def test_an_error_of_a_machine_keeps_its_code() -> None:
    with raises_code(CacheError, "source_changed"):
        run(DistributedEngine(FakeCluster()), [1, -1, 2])


def full_disk(parts: Sequence[int], /, *, workers, progress) -> Iterator:
    raise OSError(28, "No space left on device")
    yield


def test_a_full_disk_of_a_machine_is_that_of_the_command() -> None:
    with pytest.raises(OSError, match="space") as caught:
        list(DistributedEngine(FakeCluster()).run(full_disk, [1], sizes=[1]))
    assert caught.value.errno == 28


def test_a_machine_with_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    original = cluster.submit

    def submit(job, parts):
        monkeypatch.setattr(shared, "code_version", lambda name: "another")
        return original(job, parts)

    cluster.submit = submit
    with raises_code(EngineError, "other_version"):
        run(DistributedEngine(cluster), [1])


def test_an_address_needs_an_engine_that_has_one() -> None:
    with raises_code(InputError, "address"), opened_engine("local", "auto"):
        pass
    with raises_code(InputError, "engine"), opened_engine("spark"):  # type: ignore[arg-type]
        pass


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(60):
        image = rng.integers(0, 256, (12, 12)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{n:02}.png")
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes([1] * 9))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_manifest_and_cache_are_those_of_the_local_engine(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDRES_KEY", "ab" * 32)
    monkeypatch.setattr("data_pipelines.cache.plan.SHARD_BYTES", 20_000)
    work_in_process(monkeypatch)
    read = functools.partial(ingest, source, units="display", progress=lambda done, total: None)
    here = read(out=tmp_path / "here")
    cluster = FakeCluster(lost=[1, 0, 1])
    there = read(out=tmp_path / "there", engine=DistributedEngine(cluster))
    assert len(cluster.submitted) > 8
    files = ["manifest.parquet", "quarantine.csv", "ingest.json"]
    assert not (tmp_path / ".there.parts").exists()
    caches = []
    for name, engine in ("here", LOCAL), ("there", DistributedEngine(FakeCluster(lost=[2]))):
        made = ensure_cache(tmp_path / name, "xray-32", engine=engine, progress=lambda *_: None)
        caches.append(made.folder.relative_to(tmp_path / name))
    assert caches[0] == caches[1]
    assert len(list((tmp_path / "here" / caches[0]).glob("*.tfrecord"))) > 3
    made = [path.name for path in (tmp_path / "here" / caches[0]).iterdir()]
    made = sorted({*made} - {"verified.json"})  # it has the times of the files
    assert len(made) > 3
    there_too = [path.name for path in (tmp_path / "there" / caches[0]).iterdir()]
    assert made == sorted({*there_too} - {"verified.json"})
    files += [str(caches[0] / name) for name in made]
    for name in files:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert here.summary == there.summary

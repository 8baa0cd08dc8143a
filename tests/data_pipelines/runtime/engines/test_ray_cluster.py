"""A Ray cluster: what is refused, and (long: it starts processes) a killed worker."""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image

from data_pipelines.cache.store import ensure_cache
from data_pipelines.errors import EngineError
from data_pipelines.ingestion import ingest
from data_pipelines.runtime.engines import opened_engine

TASK = b"ray::run_task"


def test_an_address_that_does_not_answer_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # nothing listens there
        start = time.monotonic()
        for url in (address, f"ray://{address}"):
            with raises_code(EngineError, "unreachable", address), opened_engine("ray", url):
                pass
        assert time.monotonic() - start < 60


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with raises_code(EngineError, "no_ray", "medres[ray]"), opened_engine("ray"):
        pass


@pytest.fixture(scope="module")
def engine() -> Iterator:
    ray = pytest.importorskip("ray", reason="Ray (extra ray) is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with opened_engine("ray") as engine:
        yield engine
    ray.shutdown()


def running_tasks() -> list[int]:
    """The processes below this one that work on a task."""
    parents, tasks = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if TASK in (folder / "cmdline").read_bytes():
                tasks.append(int(folder.name))
        except OSError:
            continue

    def is_ours(process: int) -> bool:
        while process > 1 and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    return [process for process in tasks if is_ours(process)]


def images(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(count):
        image = rng.integers(0, 256, (12, 12)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{n:04}.png")
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes([1] * 9))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.long  # starts a Ray cluster of two workers
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # of Ray
def test_a_killed_worker_costs_a_retry_and_no_row(
    engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDRES_KEY", "ab" * 32)
    monkeypatch.setattr("data_pipelines.cache.plan.SHARD_BYTES", 200_000)
    read = functools.partial(ingest, images(tmp_path / "in", 900), units="display")
    here = read(out=tmp_path / "here", progress=lambda done, total: None)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        for process in running_tasks()[: 1 - len(killed)]:
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    there = read(out=tmp_path / "there", engine=engine, progress=kill)
    assert len(killed) == 1
    s = there.summary
    assert (s["given"], s["quarantined"], s["skipped"]) == (902, 1, 1)
    assert s["given"] == s["ok"] + s["repaired"] + s["quarantined"] + s["skipped"]
    assert here.summary == s
    cache = ensure_cache(tmp_path / "here", "xray-32", progress=lambda *_: None).folder
    killed.clear()
    other = ensure_cache(tmp_path / "there", "xray-32", engine=engine, progress=kill).folder
    assert len(killed) == 1
    names = [sorted({p.name for p in f.iterdir()} - {"verified.json"}) for f in (cache, other)]
    assert names[0] == names[1]  # verified.json has the times of the files
    pairs = [(cache / name, other / name) for name in names[0]]
    pairs += [
        (tmp_path / "here" / name, tmp_path / "there" / name)
        for name in ("manifest.parquet", "quarantine.csv", "ingest.json")
    ]
    for a, b in pairs:
        assert a.read_bytes() == b.read_bytes(), a.name

"""The connections between the workers, and how they meet: threads of one process."""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from distributed_ports import free_ports

from medres.errors import TrainingError
from medres.training.distributed import meeting
from medres.training.distributed.agreement import require_agreement
from medres.training.distributed.cluster import Cluster
from medres.training.distributed.meeting import meet
from medres.training.distributed.team import Team, Workers, described
from medres.training.distributed.worker_log import WorkerLog


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "TWIN_SECONDS", 0.3)


def in_threads(jobs: list[Callable[[], Any]]) -> list[Any]:
    """The results of jobs that run at once; of a TrainingError its code."""

    def one(job: Callable[[], Any]) -> Any:
        try:
            return job()
        except TrainingError as error:
            return error.code

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(one, jobs))


def joined(size: int) -> list[Workers]:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(size))
    return in_threads([lambda r=r: meet(Cluster(addresses, r), 20) for r in range(size)])


def each(team: list[Workers], job: Callable[[Workers], Any]) -> list[Any]:
    return in_threads([lambda member=member: job(member) for member in team])


@pytest.fixture
def team():
    workers = joined(3)
    yield workers
    for worker in workers:
        for line in worker.lines.values():
            line.close()


def test_values_bytes_and_files_reach_all_workers(team: list[Workers], tmp_path: Path) -> None:
    assert [w.rank for w in team] == [0, 1, 2]
    assert [w.is_chief for w in team] == [True, False, False]
    assert each(team, lambda w: w.share([w.rank, 0.1, None])) == [[0, 0.1, None]] * 3
    assert each(team, lambda w: w.gather(w.rank * 2)) == [[0, 2, 4]] * 3
    assert each(team, lambda w: w.gather_bytes(bytes([w.rank]))) == [
        [b"\0", b"\1", b"\2"],
        None,
        None,
    ]
    file = tmp_path / "state.npz"
    file.write_bytes(bytes(range(256)) * 9000)

    def read(worker: Workers, path: Path | None) -> Any:
        with worker.copy_of(path if worker.is_chief else None) as copy:
            return None if copy is None else (copy.name, copy.read_bytes())

    assert each(team, lambda w: read(w, file)) == [("state.npz", file.read_bytes())] * 3
    assert each(team, lambda w: read(w, None)) == [None] * 3


def test_an_error_of_one_worker_is_raised_by_all(team: list[Workers]) -> None:
    """With its code; and the next run of the same processes does not see it."""

    def job(worker: Workers) -> Any:
        try:
            if worker.rank == 1:
                raise TrainingError("the disk of this node is full", code="no_space")
            return worker.gather(0)
        except TrainingError as error:
            worker.failed(error)
            raise

    assert each(team, job) == ["no_space"] * 3
    assert each(team, lambda w: w.begin()) == [None] * 3
    assert each(team, lambda w: w.gather(w.rank)) == [[0, 1, 2]] * 3


def test_the_text_of_an_error_without_a_code_stays_where_it_is() -> None:
    assert described(ValueError("Jane Doe")) == {
        "code": "worker_failed",
        "text": "internal error (ValueError)",
    }
    full = described(OSError(errno.ENOSPC, "No space left on device", "/home/jane/run"))
    assert full["code"] == "no_space"
    assert "jane" not in full["text"]


def test_a_worker_that_is_gone_is_named(team: list[Workers]) -> None:
    for line in team[2].lines.values():
        line.close()

    def job(worker: Workers) -> Any:
        try:
            return worker.gather(worker.rank)
        except TrainingError as error:
            worker.failed(error)
            raise

    assert each(team[:2], job) == ["worker_lost"] * 2


def test_one_process_alone_has_the_same_methods(tmp_path: Path) -> None:
    alone = Team()
    assert (alone.share(3), alone.gather(3), alone.gather_bytes(b"a")) == (3, [3], [b"a"])
    with alone.copy_of(tmp_path) as path:
        assert path == tmp_path


def test_workers_that_do_not_fit_together_all_end_with_the_same_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = meeting.greeting

    def other_numpy(cluster: Cluster, port_is_free: bool = True) -> dict[str, Any]:
        told = own(cluster, port_is_free)
        return told | {"versions": told["versions"] | {"numpy": f"1.{cluster.rank}"}}

    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    with monkeypatch.context() as patch:
        patch.setattr(meeting, "greeting", other_numpy)
        ranks = [Cluster(addresses, 0), Cluster(addresses, 1)]
        assert in_threads([lambda c=c: meet(c, 20) for c in ranks]) == ["other_version"] * 2
    moved = Cluster((addresses[0], f"127.0.0.1:{free_ports(1)[0]}"), 1)
    jobs = [lambda c=c: meet(c, 20) for c in (Cluster(addresses, 0), moved)]
    assert in_threads(jobs) == ["bad_cluster"] * 2


@pytest.mark.parametrize(("ahead", "code"), [(50, None), (70, "other_clock"), (-70, "other_clock")])
def test_clocks_may_differ_by_a_minute(
    ahead: int, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = meeting.greeting

    def greeting(cluster: Cluster, port_is_free: bool = True) -> dict[str, Any]:
        told = own(cluster, port_is_free)
        return told | {"time": told["time"] + ahead * cluster.rank}

    monkeypatch.setattr(meeting, "greeting", greeting)
    ended = joined(2)
    for worker in ended:
        for line in worker.lines.values() if isinstance(worker, Workers) else ():
            line.close()
    assert [end if isinstance(end, str) else None for end in ended] == [code] * 2


def test_two_processes_with_the_same_rank_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker 2 of three was started as worker 1; or two are the chief."""
    monkeypatch.setattr(meeting, "TWIN_SECONDS", 2.0)
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(3))
    for ranks in ([0, 1, 1], [0, 0, 1]):
        jobs = [lambda r=r: meet(Cluster(addresses, r), 8) for r in ranks]
        codes = in_threads(jobs)
        assert codes.count("duplicate_rank") >= 2, codes
        assert set(codes) <= {"duplicate_rank", "missing_worker"}


def test_a_worker_that_does_not_come_is_missed_in_time() -> None:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(3))
    start = time.monotonic()
    codes = in_threads([lambda r=r: meet(Cluster(addresses, r), 1.0) for r in (0, 1)])
    assert codes == ["missing_worker"] * 2
    assert in_threads([lambda: meet(Cluster(addresses, 2), 0.5)]) == ["missing_worker"]
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("rank", [0, 1])
def test_a_port_in_use_is_named_on_every_worker(rank: int) -> None:
    """By a server that answers something else, as an earlier run does."""
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as _:
        ports = free_ports(2)
        ports[rank] = other.getsockname()[1]

        def answer() -> None:
            while True:
                try:
                    line, _ = other.accept()
                except OSError:
                    return
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                line.close()

        threading.Thread(target=answer, daemon=True).start()
        addresses = tuple(f"127.0.0.1:{port}" for port in ports)
        jobs = [lambda r=r: meet(Cluster(addresses, r), 10) for r in (0, 1)]
        assert in_threads(jobs) == ["port_in_use"] * 2


def test_a_stranger_at_the_door_is_ignored() -> None:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))

    def knock() -> None:
        host, port = addresses[0].split(":")
        for _ in range(100):
            try:
                with socket.create_connection((host, int(port))) as line:
                    line.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
                    return
            except OSError:
                time.sleep(0.02)

    first = [lambda: meet(Cluster(addresses, 0), 20), knock]
    late = lambda: (time.sleep(0.5), meet(Cluster(addresses, 1), 20))[1]  # noqa: E731
    chief, _, worker = in_threads([*first, late])
    assert (chief.size, worker.rank) == (2, 1)
    for each_worker in (chief, worker):
        for line in each_worker.lines.values():
            line.close()


def test_other_data_and_other_settings_are_told_apart(team: list[Workers]) -> None:
    base = {"seed": 0, "data_sha256": "aa", "recipe": {"epochs": 3}}

    def job(changes: dict[str, Any]) -> Callable[[Workers], None]:
        return lambda w: require_agreement(w, base | (changes if w.rank == 2 else {}))

    assert each(team, job({})) == [None] * 3
    assert each(team, job({"data_sha256": "bb"})) == ["other_data"] * 3
    assert each(team, job({"seed": 1})) == ["other_settings"] * 3
    assert each(team, job({"recipe": {"epochs": 4}, "data_sha256": "b"})) == ["other_settings"] * 3


def test_each_worker_has_a_log(tmp_path: Path) -> None:
    from medres.progress import ProgressReporter

    log = WorkerLog(1, ProgressReporter())
    log.line("said before the folder was there")
    log.open(tmp_path)
    log.line("epoch 1")
    lines = (tmp_path / "workers" / "worker-1.log").read_text().splitlines()
    assert [line.split(" ", 1)[1].split(" on ")[0] for line in lines] == [
        "worker 1",
        "said before the folder was there",
        "epoch 1",
    ]


def test_a_greeting_holds_no_name_of_a_user_or_of_a_file() -> None:
    told = meeting.greeting(Cluster(("a:1", "b:1"), 1))
    assert set(told) == {"protocol", "rank", "addresses", "versions", "port_is_free", "time"}
    assert len(json.dumps(told)) < 1000

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import DicomError
from data_pipelines.runtime.limits import limited
from data_pipelines.runtime.warm_workers import WarmWorkers, shared_workers

TASKS = """
import os, signal, sys, time
from data_pipelines.runtime.storage import limit_file

def act(item):
    name, value = item
    if name == "echo":
        return value
    if name == "pid":
        time.sleep(value)
        return os.getpid()
    if name == "modules":
        return sorted({"tensorflow", "keras", "pandas"} & set(sys.modules))
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "sleep":
        time.sleep(value)
    if name == "memory":
        return len(bytearray(value))
    if name == "second file hangs":
        limit_file(0.5); limit_file(0.5); time.sleep(60)
    if name == "files, then work":
        for _ in range(3):
            limit_file(0.5); time.sleep(0.3)
        limit_file(0); time.sleep(value)
        return "done"
"""


@pytest.fixture(scope="module")
def act(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "warm_tasks.py").write_text(TASKS)
    sys.path.insert(0, str(folder))
    import warm_tasks  # type: ignore[import-not-found]

    yield warm_tasks.act
    sys.path.remove(str(folder))
    del sys.modules["warm_tasks"]


@pytest.fixture
def workers() -> Iterator[WarmWorkers]:
    workers = WarmWorkers(2)
    yield workers
    workers.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def code(result: object) -> object:
    return result.code if isinstance(result, DicomError) else result


def test_calls_that_follow_one_another_share_a_worker(act, workers) -> None:
    pids = {workers.call(act, ("pid", 0)) for _ in range(5)}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert workers.call(act, ("modules", 0)) == []


def test_what_kills_a_worker_costs_one_call(act, workers) -> None:
    first = workers.call(act, ("pid", 0))
    assert code(workers.call(act, ("memory", 8 << 30))) == "memory_limit"
    assert workers.call(act, ("pid", 0)) == first
    assert code(workers.call(act, ("segfault", 0))) == "decoder_crashed"
    assert code(workers.call(act, ("sleep", 60), timeout_s=0.5)) == "time_limit"
    assert workers.call(act, ("echo", 1)) == 1
    assert not is_alive(first)


def test_a_worker_that_died_between_calls_is_replaced(act, workers) -> None:
    pid = workers.call(act, ("pid", 0))
    os.kill(pid, 9)
    while is_alive(pid):
        pass
    assert workers.call(act, ("echo", 2)) == 2


def test_a_file_of_many_has_the_limit_of_one_and_unused_time_is_left_to_the_rest(
    act, workers
) -> None:
    hang = workers.call(act, ("second file hangs", 0), timeout_s=60)
    assert code(hang) == "time_limit"
    assert workers.call(act, ("files, then work", 0.8), timeout_s=60) == "done"


def test_limits_are_those_of_the_caller(act, workers) -> None:
    assert workers.call(act, ("memory", 256 << 20)) == 256 << 20
    with limited(memory=64 << 20):
        assert code(workers.call(act, ("memory", 256 << 20))) == "memory_limit"
    assert workers.call(act, ("memory", 256 << 20)) == 256 << 20


def test_threads_get_their_own_answers_from_few_workers(act, workers) -> None:
    items = [("segfault", 0) if n % 40 == 7 else ("echo", n) for n in range(400)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda item: code(workers.call(act, item)), items))
        pids = set(threads.map(lambda _: workers.call(act, ("pid", 0.02)), range(16)))
    expected = [value if name == "echo" else "decoder_crashed" for name, value in items]
    assert results == expected
    assert len(pids) <= 2


def test_workers_end_with_the_last_user_and_start_again(act, workers) -> None:
    class User: ...

    one, two = User(), User()
    release, _ = workers.lease(one), workers.lease(two)
    pid = workers.call(act, ("pid", 0))
    release()
    assert is_alive(pid)
    del two
    gc.collect()
    assert not is_alive(pid)
    assert workers.call(act, ("pid", 0)) != pid


def test_closing_lets_a_call_end(act, workers) -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(workers.call(act, ("pid", 1.0))))
    workers.call(act, ("echo", 1))
    thread.start()
    while workers._idle:
        pass
    workers.close()
    thread.join()
    assert not is_alive(results[0])
    assert workers._count == 0


def test_closing_leaves_no_worker_to_calls_that_wait(act) -> None:
    workers = WarmWorkers(1)
    assert workers.call(act, ("echo", 1)) == 1
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(workers.call, act, ("pid", 0.3)) for _ in range(4)]
        while workers._idle:
            time.sleep(0.01)
        time.sleep(0.1)
        workers.close()
        pids = {answer.result() for answer in answers}
    assert not any(map(is_alive, pids))


def in_daemon(_: int) -> object:
    with pytest.raises(DicomError) as caught:
        WarmWorkers(1).call(len, "ab")
    return caught.value.code


def test_a_process_that_may_start_none_says_so() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(in_daemon, [0]) == ["workers"]


def test_a_worker_that_cannot_start_says_so(workers, monkeypatch) -> None:
    monkeypatch.setattr("data_pipelines.runtime.warm_workers._call", _Unloadable())
    with raises_code(DicomError, "workers"):
        workers.call(print, "x")
    assert workers._count == 0


class _Unloadable:
    """Pickles well and cannot be loaded in the worker."""

    def __call__(self, item: object) -> None: ...

    def __reduce__(self) -> tuple:
        import importlib

        return importlib.import_module, ("no_module_has_this_name",)


def test_a_forked_process_does_not_end_the_workers_of_its_parent(act) -> None:
    workers = shared_workers()
    pid = workers.call(act, ("pid", 0))
    child = os.fork()
    if child == 0:
        workers.close()
        os._exit(0 if shared_workers() is not workers else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert workers.call(act, ("pid", 0)) == pid
    workers.close()

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import raises_code

from data_pipelines.errors import DecodeFailed, DicomError, NoPixelData
from data_pipelines.runtime import worker_pool
from data_pipelines.runtime.limits import Limits, limited
from data_pipelines.runtime.storage import StorageClock
from data_pipelines.runtime.worker_pool import map_isolated
from data_pipelines.runtime.worker_process import Worker

TASKS = """
import os, signal, sys, time
from data_pipelines.errors import NoPixelData
from data_pipelines.runtime import storage

def act(item):
    name, value = item
    if name == "echo":
        return value
    if name == "large":
        return bytes(value)
    if name == "sleep":
        time.sleep(value)
        return value
    if name == "slow read":
        with storage._clock.waiting():
            time.sleep(value)
        return value
    if name == "read, sleep":
        with storage._clock.waiting():
            time.sleep(1)
        time.sleep(value)
    if name == "modules":
        return sorted({"tensorflow", "keras", "pandas"} & set(sys.modules))
    if name == "pid":
        return os.getpid()
    if name == "print":
        os.write(1, b"CANARY"); os.write(2, b"CANARY"); print("CANARY")
    if name == "exit":
        os._exit(3)
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "memory":
        return len(bytearray(value))
    if name == "refuse":
        raise NoPixelData("none", code="own_code")
    if name == "fail":
        raise ValueError("CANARY")
"""


@pytest.fixture(scope="module")
def act(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "worker_tasks.py").write_text(TASKS)
    sys.path.insert(0, str(folder))
    import worker_tasks  # type: ignore[import-not-found]

    yield worker_tasks.act
    sys.path.remove(str(folder))
    del sys.modules["worker_tasks"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


def wait_until_gone(pids: list[int]) -> list[int]:
    for _ in range(200):
        pids = [pid for pid in pids if alive(pid)]
        if not pids:
            break
        time.sleep(0.05)
    return pids


def test_results_come_in_order_and_failures_cost_one_item(act, capfd) -> None:
    items = [
        ("sleep", 0.3),
        ("echo", 1),
        ("refuse", 0),
        ("fail", 0),
        ("exit", 0),
        ("echo", 2),
        ("segfault", 0),
    ]
    items += [
        ("large", 3_000_000),
        ("print", 0),
        ("memory", 8 << 30),
        ("memory", 1 << 20),
        ("modules", 0),
        ("echo", 3),
    ]
    done: list[tuple[int, int]] = []
    answers = list(
        map_isolated(act, items, workers=2, progress=lambda *counts: done.append(counts))
    )
    assert [item for item, _ in answers] == items
    results = [result for _, result in answers]
    assert results[:2] == [0.3, 1]
    assert isinstance(results[2], NoPixelData)
    assert [r.code for r in results if isinstance(r, DicomError)] == [
        "own_code",
        "decode_failed",
        "decoder_crashed",
        "decoder_crashed",
        "memory_limit",
    ]
    assert str(results[3]) == "Decoding failed with ValueError."
    assert "exit code 3" in str(results[4])
    assert "exit code -11" in str(results[6])
    assert results[7] == bytes(3_000_000)
    assert results[10:] == [1 << 20, [], 3]
    assert done == [(n + 1, len(items)) for n in range(len(items))]
    assert "CANARY" not in "".join(capfd.readouterr())


def test_a_hang_is_killed_and_the_others_go_on(act) -> None:
    items = [("pid", 0), ("sleep", 60), ("echo", 1), ("echo", 2)]
    with limited(seconds=1):
        results = [result for _, result in map_isolated(act, items, workers=1)]
    assert isinstance(results[1], DicomError)
    assert results[1].code == "time_limit"
    assert results[2:] == [1, 2]
    assert wait_until_gone([results[0]]) == []


def test_memory_may_be_limited_otherwise(act) -> None:
    items = [("memory", 256 << 20)]
    assert next(map_isolated(act, items))[1] == 256 << 20
    with limited(memory=64 << 20):
        result = next(map_isolated(act, items))[1]
    assert isinstance(result, DicomError)
    assert result.code == "memory_limit"


def test_workers_live_long_and_end_with_the_iterator(act) -> None:
    answers = map_isolated(act, [("pid", 0)] * 20, workers=2)
    pids = {next(answers)[1] for _ in range(10)}
    assert len(pids) <= 2
    assert os.getpid() not in pids
    answers.close()
    assert wait_until_gone(list(pids)) == []


def test_no_items_start_no_worker(act) -> None:
    assert list(map_isolated(act, [])) == []


def test_a_pool_that_cannot_start_says_so() -> None:
    with raises_code(DicomError, "workers"):
        list(map_isolated(_Unloadable(), [1]))


class _Unloadable:
    """Pickles well and cannot be loaded in the worker."""

    def __call__(self, item: int) -> int:
        return item

    def __reduce__(self) -> tuple:
        return importlib.import_module, ("no_module_has_this_name",)


SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {folder!r})
from worker_tasks import act
from data_pipelines.runtime.limits import Limits, install_limits
from data_pipelines.runtime.worker_pool import map_isolated
print("started", flush=True)
pids = [result for _, result in map_isolated(act, [("pid", 0)] * 8, workers=2)]
print(*sorted(set(pids)), flush=True)
"""


def test_a_plain_script_needs_no_main_guard(tmp_path: Path) -> None:
    (tmp_path / "worker_tasks.py").write_text(TASKS)
    (tmp_path / "script.py").write_text(SCRIPT.format(folder=str(tmp_path)))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.count("started") == 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_parent(tmp_path: Path, ending: signal.Signals) -> None:
    (tmp_path / "worker_tasks.py").write_text(TASKS)
    script = SCRIPT.format(folder=str(tmp_path)).replace(
        '[("pid", 0)] * 8', '[("pid", 0)] + [("sleep", 60)] * 3'
    )
    script = script.replace("pids = [result for _, result in", "for _, pid in").replace(
        ", workers=2)]", ", workers=2):"
    )
    script = script.replace(
        'print("started", flush=True)',
        'print("started", flush=True); install_limits(Limits(seconds=1))',
    )
    script = script.replace("print(*sorted(set(pids)), flush=True)", "    print(pid, flush=True)")
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        first = int(process.stdout.readline())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert str(first) in children
        time.sleep(0.5)  # the workers fall asleep over their items
        process.send_signal(ending)
        process.wait(30)
        assert wait_until_gone([int(pid) for pid in children]) == []


def test_errors_cross_the_process_border_with_their_code() -> None:
    error = pickle.loads(pickle.dumps(DecodeFailed("a", code="b")))
    assert (type(error), str(error), error.code) == (DecodeFailed, "a", "b")


def test_a_slow_item_does_not_idle_the_other_workers(act) -> None:
    items = [("sleep", 1.0 if n % 20 == 0 else 0.01) for n in range(160)]
    answers = map_isolated(act, items, workers=4)
    next(answers)  # the workers have started
    started = time.monotonic()
    assert [item for item, _ in answers] == items[1:]
    ideal = sum(seconds for _, seconds in items[1:]) / 4
    assert time.monotonic() - started < ideal + 1.5  # one slow item may end last


def test_few_bytes_wait_for_a_slow_item(act, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "MAX_WAITING_BYTES", 5_000_000)
    items = [("sleep", 1.5), *[("large", 1_000_000)] * 40]
    answers = map_isolated(act, items, workers=2)
    next(answers)
    queue = answers.gi_frame.f_locals["queue"]  # type: ignore[attr-defined]
    assert queue.submitted <= 9
    assert [len(result) for _, result in answers] == [1_000_000] * 40


def test_each_item_has_its_own_time_limit(act) -> None:
    items = [("sleep", 0.9), ("sleep", 0.9), ("sleep", 60)]
    limits = iter([2.0, 0.3, 0.5])
    results = [
        getattr(result, "code", result)
        for _, result in map_isolated(act, items, workers=1, timeout_s=lambda _: next(limits))
    ]
    assert results == [0.9, "time_limit", "time_limit"]


def test_waiting_for_storage_costs_no_decoding_time_and_has_its_own_limit(act) -> None:
    items = [("slow read", 1.6), ("slow read", 60), ("read, sleep", 60), ("echo", 1)]
    with limited(seconds=0.8, stall=4):
        results = [
            getattr(result, "code", result) for _, result in map_isolated(act, items, workers=1)
        ]
    assert results == [1.6, "read_stalled", "time_limit", 1]


def test_a_read_that_ends_while_the_deadline_is_computed_is_not_too_slow() -> None:
    """The worker clears the beginning of its read between two looks of the parent at it."""

    class Cells(list[float]):
        def __getitem__(self, index):
            value = super().__getitem__(index)
            if index == 0:
                self[0] = 0.0
            return value

    now = time.monotonic()
    clock = StorageClock(Cells([now, 0.0, 0.0]))
    worker = Worker(None, None, clock, now, Limits(), index=0, ready=True)
    assert worker.deadline >= now + min(Limits().seconds, Limits().stall)

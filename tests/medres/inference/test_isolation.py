from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

import medres
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.runtime.limits import limited
from data_pipelines.runtime.warm_workers import shared_workers
from medres.inference import predictor as predictor_module
from medres.inference.study_reader import StudyReading

TASKS = """
import os, signal, time
from medres.inference.study_reader import read_request

def hostile_read(request):
    for file in request.files:
        if file[:5] == b"CRASH":
            os.kill(os.getpid(), signal.SIGSEGV)
        if file[:5] == b"SLEEP":
            time.sleep(600)
        if file[:5] == b"LARGE":
            bytearray(8 << 30)
    return read_request(request)
"""


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> medres.Predictor:
    return medres.load(tiny_run / "model.keras")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Decoders that crash, hang or allocate where the bytes say so."""
    (tmp_path / "hostile_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import hostile_tasks  # type: ignore[import-not-found]

    shared_workers().close()
    monkeypatch.setattr(predictor_module, "read_request", hostile_tasks.hostile_read)
    yield
    shared_workers().close()
    del sys.modules["hostile_tasks"]


def good_file(work: Path, row: int = 0) -> bytes:
    entry = Manifest.load(work).table.iloc[row]
    return (Path(entry["source"]) / entry["path"]).read_bytes()


def test_a_file_that_kills_its_decoder_is_a_refusal(predictor, tiny_work, hostile) -> None:
    data = good_file(tiny_work)
    expected = predictor.predict(data).probabilities
    assert predictor.predict(b"CRASH").code == "decoder_crashed"
    assert predictor.predict(data).probabilities == expected
    with limited(seconds=1):
        assert predictor.predict(b"SLEEP").code == "time_limit"
    assert predictor.predict(b"LARGE").code == "memory_limit"
    assert predictor.predict([data, b"CRASH"]).code == "decoder_crashed"
    assert predictor.predict(data).probabilities == expected


def test_a_bomb_inflates_elsewhere(predictor, tiny_work: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(good_file(tiny_work)))
    plain = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(plain)
    data = plain.getvalue()
    length = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = [packer.compress(zlib.decompress(data[length:], -zlib.MAX_WBITS))]
    body += [packer.compress(bytes(64 << 20)) for _ in range(4)] + [packer.flush()]
    bomb = data[:length] + b"".join(body)
    assert len(bomb) < 1 << 19
    predictor.predict(good_file(tiny_work))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with limited(inflated=128 << 20):
        assert predictor.predict(bomb).code == "limit_exceeded"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


def test_decoding_here_or_elsewhere_gives_the_same(
    predictor, tiny_run: Path, tiny_work: Path, tmp_path: Path
) -> None:
    here = medres.load(tiny_run / "model.keras", isolate=False)
    data = good_file(tiny_work)
    (tmp_path / "cut.dcm").write_bytes(data[:-500])
    sources = [data, tmp_path / "cut.dcm", pydicom.dcmread(io.BytesIO(data)), b"no DICOM"]
    for source in sources:
        assert here.predict(source) == predictor.predict(source)
    with here:
        assert here.predict(data).saliency().png() == predictor.predict(data).saliency().png()


def test_a_data_set_is_neither_changed_nor_lost(predictor, tiny_work: Path) -> None:
    data = good_file(tiny_work)
    expected = predictor.predict(data).probabilities
    whole = pydicom.dcmread(io.BytesIO(data))
    before = whole.to_json()
    assert predictor.predict(whole).probabilities == expected
    assert whole.to_json() == before
    bare = pydicom.Dataset()
    bare.update(whole)  # without meta header: as if it came over the network
    assert predictor.predict(bare).probabilities == expected
    assert not hasattr(bare, "file_meta")
    odd = pydicom.Dataset({0x00080016: "not an element"})  # type: ignore[dict-item]
    assert predictor.predict(odd).code == "unreadable"


def test_a_pipe_is_not_waited_for(predictor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert predictor.predict(tmp_path / "pipe").code == "unreadable"


SCRIPT = """
import sys
import medres
print("started", flush=True)
with medres.load(sys.argv[1]) as predictor:
    for file in sys.argv[2:]:
        print(predictor.predict(file).refused)
"""


def test_a_script_needs_no_main_guard_and_leaves_no_worker(
    tiny_run: Path, tiny_work: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(good_file(tiny_work))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tiny_run / "model.keras", "a.dcm", "a.dcm"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *filter(None, sys.path)])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["started", "None", "None"]


def patients_of_one_study(work: Path, count: int) -> list[bytes]:
    """Files of different patients who share a study UID."""
    table, files = Manifest.load(work).table.drop_duplicates("patient"), []
    for number, row in enumerate(table.head(count).itertuples()):
        dataset = pydicom.dcmread(Path(row.source) / row.path)
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=["shared"])
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["shared", str(number)])
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        files.append(buffer.getvalue())
    return files


LONG = (pytest.mark.long, pytest.mark.timeout(3600))


@pytest.mark.parametrize("requests", [120, pytest.param(5000, marks=LONG)])
def test_mixed_requests_of_threads_get_their_own_answers(
    predictor, tiny_work: Path, hostile, requests: int
) -> None:
    """Patients who share a study UID, pairs of them, and files that crash their decoder."""
    known = {file: predictor.predict(file) for file in patients_of_one_study(tiny_work, 10)}
    files = [file for file, prediction in known.items() if prediction.refused is None]
    alone = [known[file] for file in files]
    assert len(files) > 5
    assert len({p.probabilities["square"] for p in alone}) == len(files)
    assert len({p.study_uid for p in alone}) == 1
    rng = np.random.default_rng(0)
    order = []
    for _ in range(requests):
        a, b = (int(n) for n in rng.choice(len(files), 2, replace=False))
        order.append(("one", "two", "crash")[rng.choice(3, p=[0.83, 0.15, 0.02])] + f" {a} {b}")

    def ask(request: str) -> medres.Prediction:
        kind, a, b = request.split()
        sources = {"one": files[int(a)], "two": [files[int(a)], files[int(b)]], "crash": b"CRASH"}
        return predictor.predict(sources[kind])

    assert {request.split()[0] for request in order} == {"one", "two", "crash"}
    with ThreadPoolExecutor(8) as threads:
        predictions = list(threads.map(ask, order))
    codes = {"one": None, "two": "several_patients", "crash": "decoder_crashed"}
    pairs = zip(order, predictions, strict=True)
    assert [(r, p.code) for r, p in pairs if p.code != codes[r.split()[0]]] == []
    for request, prediction in zip(order, predictions, strict=True):
        kind, a, _ = request.split()
        if kind == "one":
            assert prediction == alone[int(a)]
            assert prediction.sop_instance_uids == alone[int(a)].sop_instance_uids
        else:
            assert prediction.probabilities == {}


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=LONG)])
def test_predictions_need_no_more_and_more_memory(predictor, tiny_work: Path, count: int) -> None:
    files = [good_file(tiny_work, n) for n in range(8)]
    predictor.predict_many([])
    for n in range(100):
        predictor.predict(files[n % 8])
    worker = shared_workers()._idle[-1].process.pid
    before = memory(os.getpid()), memory(worker)
    for n in range(count):
        predictor.predict(files[n % 8])
    grown = memory(os.getpid()) - before[0], memory(worker) - before[1]
    assert shared_workers()._idle[-1].process.pid == worker
    assert max(grown) < 8 << 20, grown


def test_the_next_studies_are_decoded_meanwhile(
    predictor, tiny_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`predict_many` answers in order although others are read ahead."""
    source = Path(Manifest.load(tiny_work).table["source"].iloc[0])
    read, names = predictor.read, set[str]()

    def noted(files, rules) -> StudyReading:
        names.add(threading.current_thread().name)
        return read(files, rules)

    monkeypatch.setattr(predictor, "read", noted)
    predictions = list(predictor.predict_many([source]))
    assert [p.path for p in predictions] == sorted(str(p.path) for p in predictions)
    assert threading.current_thread().name not in names


def test_a_worker_loads_no_tensorflow() -> None:
    code = (
        "import medres.inference.study_reader, sys; "
        "print(sorted({'tensorflow', 'keras', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

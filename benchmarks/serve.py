"""Measure `medres serve` on loopback with mixed requests, and check every answer.

    python benchmarks/serve.py MODEL.keras FOLDER [--requests 1000] [--clients 4] [--bad 0.2]
                               [--objects]

FOLDER holds DICOM files that the model accepts. Each request is a study made of one of them, with
UIDs of its own. A share of the requests is bad: cut off, damaged inside, no DICOM at all, another
patient under a study UID that is held, other bytes under a SOP UID that is held, or a study sent
again. With --objects the server also makes the DICOM objects of each result.

Prints one JSON object: requests per second, latency (p50, p99), growth of the resident memory
between the first and the last tenth, wrong answers (another probability than the predictor's for
these pixels, or another study's), answers that are missing, and refusals by code.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import dcmread
from pydicom.uid import generate_uid

BAD = ("cut", "damaged", "garbage", "other_patient", "other_bytes", "again")
IN_FLIGHT = 50  # the newest requests may not be answered when one that repeats them is sent


class Request(NamedTuple):
    """body: a DICOM file. kind: 'good' or one of BAD. study: its UID. source: number of the file
    whose pixels it has.
    """

    body: bytes
    kind: str
    study: str
    source: int


class Answer(NamedTuple):
    request: Request
    status: int
    value: dict[str, Any]
    seconds: float


def study_of(data: bytes, **changes: str) -> bytes:
    """The file with UIDs of its own, and other changes."""
    dataset = dcmread(BytesIO(data))
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, name, generate_uid())
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def requests_of(sources: list[bytes], n: int, bad: float, seed: int) -> list[Request]:
    """Shuffled; a request that repeats a study comes after it."""
    rng, made = random.Random(seed), []
    good: list[Request] = []
    for number in range(n):
        source = number % len(sources)
        settled = good[:-IN_FLIGHT]
        kind = rng.choice(BAD) if settled and rng.random() < bad else "good"
        patient = f"P{rng.randrange(50)}"
        if kind in ("other_patient", "other_bytes", "again"):
            earlier = rng.choice(settled)
            held = dcmread(BytesIO(earlier.body))
            changes = {
                "again": {},
                "other_patient": {"PatientID": f"{held.PatientID}X"},
                "other_bytes": {"PatientComments": str(number)},
            }[kind]
            body = earlier.body
            if changes:
                changes["StudyInstanceUID"] = held.StudyInstanceUID
                if kind == "other_bytes":
                    changes |= {
                        "SOPInstanceUID": held.SOPInstanceUID,
                        "SeriesInstanceUID": held.SeriesInstanceUID,
                    }
                body = study_of(earlier.body, **changes)
            made.append(Request(body, kind, earlier.study, earlier.source))
            continue
        body = study_of(sources[source], PatientID=patient)
        study = str(dcmread(BytesIO(body)).StudyInstanceUID)
        if kind == "cut":
            body = body[: len(body) - 200]
        elif kind == "damaged":
            at = body.index(b"DICM") + 160 + rng.randrange(100)
            body = body[:at] + rng.randbytes(40) + body[at + 40 :]
        elif kind == "garbage":
            body = rng.randbytes(500)
        made.append(Request(body, kind, study, source))
        if kind == "good":
            good.append(made[-1])
    return made


def send(port: int, request: Request) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    since = time.perf_counter()
    headers = {"Content-Type": "application/dicom"}
    while True:
        connection.request("POST", "/v1/studies?wait=60", request.body, headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 429:
            break
        time.sleep(0.05)
    connection.close()
    return Answer(request, response.status, json.loads(text), time.perf_counter() - since)


def is_wrong(answer: Answer, expected: list[dict[str, float]]) -> bool:
    """Whether the answer is another study's or another number, or a bad file got one."""
    results = answer.value.get("results") or []
    kind = answer.request.kind
    if kind in ("garbage", "other_patient", "other_bytes"):
        return bool(results) or answer.status not in (400, 409)
    for result in results:
        if result["study_uid"] != answer.request.study and kind != "damaged":
            return True
        for prediction in result["predictions"] or []:
            if prediction["refused"] is None and kind == "cut":
                return True
            if prediction["refused"] is None and kind in ("good", "again"):
                return prediction["probabilities"] != expected[answer.request.source]
            if prediction["refused"] is not None and kind in ("good", "again"):
                return True
    return False


def is_missing(answer: Answer) -> bool:
    """A request without a refusal and without a complete answer."""
    if answer.status == 200:
        return any(result["predictions"] is None for result in answer.value["results"])
    return "code" not in answer.value


def resident_mib(pid: int) -> float:
    """Of a process and all that it has started; a thread that ends meanwhile has no children."""
    children: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            children += (task / "children").read_text().split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20 + sum(resident_mib(int(child)) for child in children)


def start(model: Path, spool: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    """The running server, and its port."""
    command = [sys.executable, "-m", "medres", "serve", str(model), "--http", "127.0.0.1:0"]
    command += ["--spool", str(spool), *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = server.stdout
    assert lines is not None  # noqa: S101
    for line in lines:  # what follows fits into the pipe
        match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if match:
            return server, int(match[1])
    raise SystemExit("the server did not start")


def measure(
    model: Path,
    files: list[Path],
    *,
    n: int,
    clients: int,
    bad: float,
    seed: int = 0,
    objects: bool = False,
) -> dict[str, Any]:
    """See the docstring of the module."""
    import medres

    sources = [path.read_bytes() for path in files]
    with medres.load(model) as predictor:
        expected = [predictor.predict(data).probabilities for data in sources]
    requests = requests_of(sources, n, bad, seed)
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        server, port = start(
            model, Path(folder) / "spool", "--objects" if objects else "--no-objects"
        )
        try:
            for source in sources[:4]:
                send(port, Request(study_of(source), "good", "", 0))
            counter, since = itertools.count(), time.perf_counter()

            def ask(request: Request) -> Answer:
                answer = send(port, request)
                if next(counter) % max(1, n // 10) == 0:
                    memory.append(resident_mib(server.pid))
                return answer

            with ThreadPoolExecutor(clients) as pool:
                answers = list(pool.map(ask, requests))
            seconds = time.perf_counter() - since
        finally:
            server.terminate()
            with server:  # closes its pipe
                server.wait(60)
    latencies = sorted(answer.seconds for answer in answers)
    codes = Counter(f"{a.request.kind}: {_code(a)}" for a in answers)
    return {
        "requests": n,
        "clients": clients,
        "bad": bad,
        "requests_per_second": round(n / seconds, 1),
        "p50_ms": round(statistics.median(latencies) * 1000),
        "p99_ms": round(latencies[int(0.99 * (n - 1))] * 1000),
        "rss_growth_mib": round(memory[-1] - memory[1], 1),
        "wrong": sum(is_wrong(answer, expected) for answer in answers),
        "missing": sum(map(is_missing, answers)),
        "outcomes": dict(sorted(codes.items())),
    }


def _code(answer: Answer) -> str:
    results = answer.value.get("results")
    return str(results[0]["code"] if results else answer.value.get("code"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--bad", type=float, default=0.2)
    parser.add_argument("--objects", action="store_true")
    options = parser.parse_args()
    files = sorted(path for path in options.folder.rglob("*") if path.is_file())[:50]
    result = measure(
        options.model,
        files,
        n=options.requests,
        clients=options.clients,
        bad=options.bad,
        objects=options.objects,
    )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""kill -9 in every state: nothing that was acknowledged is lost, and no result appears twice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fake_pacs import DicomWebPacs
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.transport import AssociationSocket

from medres.serve.database import SENT, STATES
from medres.serve.spool import Spool

from .test_server import RELATED, related
from .test_spool import image

SERVER = Path(__file__).parent / "slow_server.py"
KILLS = 50


class Client:
    """Sends images of many studies by STOW, C-STORE and the JSON API, and remembers what was
    acknowledged. What was not is sent again: also what a killed server may have stored.
    """

    def __init__(self) -> None:
        self.http_port = self.dicom_port = 0
        self.acknowledged: dict[str, bytes] = {}
        self.results: set[str] = set()
        self.studies: dict[str, set[str]] = defaultdict(set)
        self.stopping = False
        self.threads = [
            threading.Thread(target=self._send_all, args=(send, number))
            for number, send in enumerate((self._stow, self._c_store, self._post))
        ]
        for thread in self.threads:
            thread.start()

    def wait_for_acknowledgements(self, count: int) -> None:
        """At most five seconds."""
        goal, until = len(self.acknowledged) + count, time.monotonic() + 5
        while len(self.acknowledged) < goal and time.monotonic() < until:
            time.sleep(0.005)

    def stop(self) -> None:
        self.stopping = True
        for thread in self.threads:
            thread.join(60)

    def _send_all(self, send: Any, lane: int) -> None:
        number = lane * 100_000
        rng = random.Random(lane)
        while not self.stopping:
            number += 1
            study = f"1.2.{lane}.{number - rng.randrange(3)}"  # late images too
            data = image(number, study)
            sop = str(dcmread(BytesIO(data)).SOPInstanceUID)
            while not self.stopping:
                with contextlib.suppress(
                    OSError, http.client.HTTPException, RuntimeError, ValueError
                ):
                    if send(data):
                        self.acknowledged[sop] = data
                        self.studies[study].add(sop)
                        break
                time.sleep(0.05)
            time.sleep(rng.random() * 0.05)

    def _stow(self, data: bytes) -> bool:
        return self._upload("/dicom-web/studies", data)[0] == 200

    def _post(self, data: bytes) -> bool:
        status, value = self._upload("/v1/studies", data)
        self.results |= {result["id"] for result in value.get("results", ())}
        return status in (200, 202)

    def _upload(self, path: str, data: bytes) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            connection.request("POST", path, related(data), {"Content-Type": RELATED})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def _c_store(self, data: bytes) -> bool:
        entity, dataset = AE(ae_title="PACS"), dcmread(BytesIO(data))
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 5
        entity.add_requested_context(dataset.SOPClassUID)
        peer = entity.associate("127.0.0.1", self.dicom_port, ae_title="MEDRES")
        if not peer.is_established:
            return False
        status = peer.send_c_store(dataset)
        peer.release()
        return status.get("Status") == 0


@contextlib.contextmanager
def started(spool: Path, pacs: DicomWebPacs, client: Client) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(spool), pacs.url], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        words = process.stdout.readline().split()
        client.http_port, client.dicom_port = (int(word.rpartition(":")[2]) for word in words)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def wait_until_a_job_is(spool: Path, state: str) -> bool:
    """Whether one got there within six seconds."""
    connection = sqlite3.connect(f"file:{spool / 'spool.db'}?mode=ro", uri=True, timeout=1)
    query, until = "SELECT count(*) FROM job WHERE state = ?", time.monotonic() + 6
    try:
        before = connection.execute(query, (state,)).fetchone()[0] if state == SENT else 0
        while time.monotonic() < until:
            if connection.execute(query, (state,)).fetchone()[0] > before:
                return True
            time.sleep(0.002)
    finally:
        connection.close()
    return False


def wait_for_an_arrival(pacs: DicomWebPacs) -> bool:
    """Whether an object came within six seconds; the server has not noted it yet."""
    before, until = len(pacs.arrivals), time.monotonic() + 6
    while time.monotonic() < until:
        if len(pacs.arrivals) > before:
            return True
        time.sleep(0.001)
    return False


@pytest.fixture
def pacs() -> Iterator[DicomWebPacs]:
    with DicomWebPacs() as pacs:
        yield pacs


@pytest.mark.long  # fifty starts of a server
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_when_the_server_is_killed_in_every_state(
    tmp_path: Path, pacs: DicomWebPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets: list[socket.socket] = []
    create = AssociationSocket._create_socket

    def created(*arguments: Any) -> socket.socket:
        sockets.append(create(*arguments))
        return sockets[-1]

    # pynetdicom leaves the socket of a client open whose server was killed
    monkeypatch.setattr(AssociationSocket, "_create_socket", created)
    spool, rng, hits = tmp_path / "spool", random.Random(0), []
    client = Client()
    moments = ["receiving", *STATES[:4], "arrived"]
    try:
        for number in range(KILLS):
            with started(spool, pacs, client) as process:
                moment = moments[number % len(moments)]
                client.wait_for_acknowledgements(3)
                if number % 7 == 0:
                    pacs.failures.append(503)
                if moment == "receiving":
                    time.sleep(rng.random() * 0.3)
                elif moment == "arrived":
                    hits += [moment] * wait_for_an_arrival(pacs)
                elif wait_until_a_job_is(spool, moment):
                    hits.append(moment)
                if moment != "arrived":
                    time.sleep(rng.random() * 0.03)
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        client.stop()
    assert len({*hits}) == 5
    with started(spool, pacs, client):
        until = time.monotonic() + 120
        while unfinished(spool):
            assert time.monotonic() < until
            time.sleep(0.2)
    check(Spool(spool), pacs, client)
    for one in sockets:
        one.close()


def unfinished(spool: Path) -> int:
    with contextlib.closing(sqlite3.connect(spool / "spool.db")) as connection:
        query = (
            "SELECT (SELECT count(*) FROM study WHERE is_open)"
            " + (SELECT count(*) FROM job WHERE state != ?)"
        )
        return connection.execute(query, (SENT,)).fetchone()[0]


def check(spool: Spool, pacs: DicomWebPacs, client: Client) -> None:
    rows = spool.database.rows("SELECT * FROM instance")
    held = {row["sop"]: row for row in rows}
    assert len(client.acknowledged) > KILLS
    for sop, data in client.acknowledged.items():
        stored = (spool.folder / "files" / held[sop]["file"]).read_bytes()
        assert dcmread(BytesIO(stored)).PixelData == dcmread(BytesIO(data)).PixelData
    assert len(client.results) > KILLS // 4
    jobs = spool.database.rows("SELECT * FROM job ORDER BY study, revision")
    assert client.results <= {job["id"] for job in jobs}
    by_study = defaultdict(list)
    for job in jobs:
        by_study[job["study"]].append(job)
    for study, sops in client.studies.items():
        revisions = by_study[study]
        assert [job["revision"] for job in revisions] == [*range(1, len(revisions) + 1)]
        assert [job["predecessor"] for job in revisions[1:]] == [j["id"] for j in revisions[:-1]]
        last = json.loads(revisions[-1]["instances"])
        assert sops <= {*last}
        for job in revisions:
            (prediction,) = json.loads(job["result"])["predictions"]
            assert prediction["probabilities"]["n"] == len(json.loads(job["instances"]))
    # an object may arrive twice, since a crash can come before the note that it arrived: the same
    # UID with the same bytes, which the PACS holds once
    assert len(pacs.objects) == len(jobs) == len({job["result_key"] for job in jobs})
    made = spool.database.rows("SELECT sop, is_sent FROM made_object")
    assert {row["sop"] for row in made if row["is_sent"]} == {*pacs.objects}
    assert spool.audit.verify().n_events > len(jobs)
    twice = len(pacs.arrivals) - len(pacs.objects)
    print(f"{len(client.acknowledged)} acknowledged, {len(jobs)} results, {twice} arrived twice")
    spool.close()

"""The way to the PACS: what is down gets everything later, and nothing comes there twice."""

from __future__ import annotations

import contextlib
import io
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from canaries import CANARIES, encodings, with_canaries
from fake_pacs import DicomWebPacs, DimsePacs
from helpers import raises_code
from pydicom import dcmread

from data_pipelines.dicom.reader import silence_pydicom
from data_pipelines.errors import InputError
from medres.errors import ServeError
from medres.serve.database import DEAD, MADE, SENT
from medres.serve.delivery.c_store import StoreSender
from medres.serve.delivery.outbox import MAX_REFUSALS, Outbox, bury
from medres.serve.delivery.stow import StowSender
from medres.serve.parts import MadeObject, MakeOrder
from medres.serve.server import Server, sender_of
from medres.serve.settings import Address, Pacs, Peer, Settings, parse_pacs
from medres.serve.spool import Capacity, Spool
from medres.serve.telemetry import Telemetry

from .test_scheduler import Answers, job_of, scheduler_of, wait_for
from .test_server import Running, self_signed
from .test_spool import dicom, image


class Makers(Answers):
    """A model that makes two DICOM objects per job."""

    def make(self, order: MakeOrder, seconds: float) -> list[MadeObject]:
        out = Path(order["out"])
        out.mkdir(exist_ok=True)
        made = []
        for number in range(2):
            data = image(1000 * (1 + int(order["key"][:6], 16)) + number, "1.2.3")
            (out / f"{number}.dcm").write_bytes(data)
            sop = _sop(data)
            made.append(MadeObject(sop=sop, file=f"{number}.dcm", role="report"))
        return made


def _sop(data: bytes) -> str:
    return str(dcmread(io.BytesIO(data)).SOPInstanceUID)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", Capacity(free_bytes=0))
    yield spool
    spool.close()


def made_job(spool: Spool, number: int) -> str:
    model = Makers()
    scheduler = scheduler_of(spool, model, makes_objects=True)
    job = job_of(spool, image(number, f"1.9.{number}"))
    query = "SELECT * FROM job WHERE id = ?"
    scheduler.answer(model, spool.database.row(query, job))
    scheduler.make(model, spool.database.row(query, job))
    return job


def states(spool: Spool) -> list[tuple[str, str | None]]:
    rows = spool.database.rows("SELECT state, failure FROM job ORDER BY created")
    return [(row["state"], row["failure"]) for row in rows]


def pacs_of(kind: str, port: int = 0) -> Any:
    return DicomWebPacs(port) if kind == "stow" else DimsePacs(port)


def sender(kind: str, port: int) -> Callable[[Path], None]:
    if kind == "stow":
        return StowSender(f"http://127.0.0.1:{port}/rs", timeout=5)
    return StoreSender(Pacs("127.0.0.1", port, "PACS"), "MEDRES", timeout=5)


@pytest.mark.parametrize("kind", ["stow", "c-store"])
def test_a_pacs_that_was_down_gets_each_object_once(spool: Spool, kind: str) -> None:
    with pacs_of(kind) as pacs:
        port = pacs.port
    outbox = Outbox(spool, Telemetry(io.StringIO()), sender(kind, port))
    for number in range(3):
        made_job(spool, number)
    assert all(outbox.send_next() for _ in range(3))
    assert states(spool) == [(MADE, "unreachable")] * 3
    assert not outbox.send_next()  # each waits
    with pacs_of(kind, port) as pacs:
        spool.database.execute(
            "UPDATE job SET next_try = 0 WHERE id IN (SELECT id FROM job LIMIT 1)"
        )
        assert all(outbox.send_next() for _ in range(3))  # one success ends the waiting of all
        assert states(spool) == [(SENT, None)] * 3
        assert len(pacs.arrivals) == len({*pacs.arrivals}) == len(pacs.objects) == 6
        events = [event["event"] for event in spool.audit.events()]
        assert events.count("sent") == 3


@pytest.mark.parametrize("kind", ["stow", "c-store"])
def test_an_object_that_arrived_unseen_is_sent_again_and_held_once(spool: Spool, kind: str) -> None:
    job = made_job(spool, 1)
    with pacs_of(kind) as pacs:
        outbox = Outbox(spool, Telemetry(io.StringIO()), sender(kind, pacs.port))
        assert outbox.send_next()
        # a crash before the row was written
        spool.database.execute("UPDATE job SET state = ? WHERE id = ?", MADE, job)
        spool.database.execute("UPDATE made_object SET is_sent = 0 WHERE job = ?", job)
        assert outbox.send_next()
        assert (len(pacs.arrivals), len(pacs.objects)) == (4, 2)
    assert states(spool) == [(SENT, None)]


@pytest.mark.parametrize("kind", ["stow", "c-store"])
def test_files_are_read_while_an_object_is_sent(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = {"stow": DicomWebPacs, "c-store": DimsePacs}[kind]._store
    read: list[str] = []

    def reading(pacs: Any, *arguments: Any) -> Any:
        with silence_pydicom():  # as whoever receives files does, in another thread
            read.append("a file")
        return store(pacs, *arguments)

    monkeypatch.setattr({"stow": DicomWebPacs, "c-store": DimsePacs}[kind], "_store", reading)
    (tmp_path / "a.dcm").write_bytes(image(1))
    with pacs_of(kind) as pacs:
        sender(kind, pacs.port)(tmp_path / "a.dcm")
        assert len(pacs.arrivals) == 1
    assert read == ["a file"]


@pytest.mark.parametrize(
    ("kind", "answer", "code"),
    [
        ("stow", 400, "refused_by_pacs"),
        ("stow", 401, "refused_by_pacs"),
        ("stow", 503, "unreachable"),
        ("c-store", 0xA900, "refused_by_pacs"),
        ("c-store", 0xA700, "unreachable"),
    ],
)
def test_what_the_pacs_says_decides_how_long_it_is_tried(
    spool: Spool, kind: str, answer: int, code: str
) -> None:
    job = made_job(spool, 1)
    with pacs_of(kind) as pacs:
        answers = pacs.failures if kind == "stow" else pacs.statuses
        outbox = Outbox(spool, Telemetry(io.StringIO()), sender(kind, pacs.port))
        answers.append(answer)
        outbox.send_next()
        assert states(spool) == [(MADE, code)]
        answers.append(answer)
        spool.database.execute(
            "UPDATE job SET next_try = 0, attempts = ? WHERE id = ?", MAX_REFUSALS - 1, job
        )
        outbox.send_next()
        assert states(spool) == [(DEAD if code == "refused_by_pacs" else MADE, code)]


def test_an_object_that_is_there_already_is_delivered(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(image(1))
    with DimsePacs() as pacs:
        pacs.statuses += [0x0111, 0xB000]
        send = StoreSender(Pacs("127.0.0.1", pacs.port, "PACS"), "MEDRES")
        send(tmp_path / "a.dcm")
        send(tmp_path / "a.dcm")
    with DicomWebPacs() as pacs:
        pacs.add(image(1))
        StowSender(pacs.url)(tmp_path / "a.dcm")
        pacs.objects[_sop(image(1))] = b"other"
        with raises_code(ServeError, "refused_by_pacs"):
            StowSender(pacs.url)(tmp_path / "a.dcm")


def test_a_server_sends_what_it_made_and_takes_none_of_it_in(tmp_path: Path) -> None:
    with DicomWebPacs() as pacs:
        options = {"maker": "fake", "pacs_dicomweb": pacs.url}
        with Running(tmp_path, model=Makers(), **options) as running:
            reply = running.post(image(1, "1.1"))
            document = wait_for(running.server.spool, reply.body["results"][0]["id"], SENT)
            assert [one["is_sent"] for one in document["objects"]] == [True, True]
            assert {one["sop_instance_uid"] for one in document["objects"]} == {*pacs.arrivals}
            back = running.post(pacs.objects[pacs.arrivals[0]])
            assert (back.status, back.body["code"]) == (409, "own_output")
            metrics = running.ask("GET", "/metrics").body.decode()
            assert 'medres_deliveries_total{outcome="delivered"} 2.0' in metrics


def test_no_identifier_of_an_object_that_is_not_delivered(tmp_path: Path) -> None:
    with DicomWebPacs() as pacs:
        pacs.failures += [400] * 50
        options = {"maker": "fake", "pacs_dicomweb": pacs.url}
        with Running(tmp_path, model=Makers(), **options) as running:
            job = running.post(dicom(with_canaries(1))).body["results"][0]["id"]
            spool = running.server.spool
            wait_for(spool, job, MADE)
            until = time.monotonic() + 20
            while not spool.database.value("SELECT attempts FROM job"):
                assert time.monotonic() < until
                time.sleep(0.01)
            bury(spool, job, "refused_by_pacs")
            replies = [running.ask("GET", path) for path in ("/v1/dead-letters", "/metrics")]
            text = repr([reply.body for reply in replies]) + running.log.getvalue()
            text += repr(spool.audit.events())
            text += repr([path.name for path in spool.folder.rglob("*")])
            assert "refused_by_pacs" in text
            for canary in CANARIES:
                assert not any(form in text.encode() for form in encodings(canary)), canary


def test_dicom_over_tls_in_and_out(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    settings = Settings(
        models=(), spool=tmp_path / "spool", http=None, dicom=Address("127.0.0.1", 0),
        peers=(Peer("MEDRES", ""),), tls_certificate=certificate, tls_key=key,
        dicom_tls=True, dicom_ca=certificate, pacs_ca=certificate,
        pacs=Pacs("127.0.0.1", 1, "PACS"), capacity=Capacity(free_bytes=0),
    )  # fmt: skip
    (tmp_path / "a.dcm").write_bytes(image(1))
    server = Server(settings, models=[Answers()])
    try:
        port = int(server.dicom_address.rpartition(":")[2])
        to_it = Pacs("localhost", port, "MEDRES")
        StoreSender(to_it, "MEDRES", context=settings.pacs_tls(), timeout=5)(tmp_path / "a.dcm")
        assert server.spool.database.value("SELECT count(*) FROM instance") == 1
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(b"\x01\x00\x00\x00\x00\x44" + bytes(68))  # A-ASSOCIATE-RQ without TLS
            with contextlib.suppress(ConnectionResetError):
                assert plain.recv(100)[:1] in (b"", b"\x15")  # closed, or an alert of TLS
    finally:
        server._close()


def test_the_pacs_of_the_settings(tmp_path: Path) -> None:
    base = {"models": (), "spool": tmp_path}
    assert sender_of(Settings(**base)) is None
    pacs = parse_pacs("[::1]:104:PACS")
    assert pacs == Pacs("::1", 104, "PACS")
    assert isinstance(sender_of(Settings(**base, pacs=pacs)), StoreSender)
    with raises_code(InputError, "two_pacs"):
        Settings(**base, pacs=pacs, pacs_dicomweb="http://127.0.0.1/rs")
    for text, code in (("127.0.0.1:104", "bad_address"), ("PACS", "bad_address")):
        with raises_code(InputError, code):
            parse_pacs(text)
    with raises_code(InputError, "bad_endpoint"):
        sender_of(Settings(**base, pacs_dicomweb="ftp://host/rs"))
    with raises_code(InputError, "bad_certificate"):
        Settings(**base, dicom_tls=True)

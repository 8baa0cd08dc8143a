"""C-STORE and C-ECHO on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from canaries import radiograph
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from medres.serve.settings import Address, Peer
from medres.serve.spool import Capacity

from .test_server import LOOPBACK, Running
from .test_spool import dicom, image


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    options = {
        "dicom": LOOPBACK,
        "aet": "MEDRES",
        "peers": (Peer("PACS", ""), Peer("FAR", "10.0.0.7")),
    }
    capacity = Capacity(studies=2, free_bytes=0)
    with Running(tmp_path_factory.mktemp("dimse"), capacity=capacity, **options) as running:
        yield running


def association(running: Running, *, calling: str = "PACS", called: str = "MEDRES") -> Any:
    entity = AE(ae_title=calling)
    entity.add_requested_context(Verification)
    entity.add_requested_context(radiograph("P1", 1).SOPClassUID)
    host, _, port = running.server.dicom_address.partition("@")[2].rpartition(":")
    return entity.associate(host, int(port), ae_title=called)


def stored(running: Running, *files: bytes) -> list[int]:
    peer = association(running)
    statuses = [peer.send_c_store(dcmread(BytesIO(file))).Status for file in files]
    peer.release()
    return statuses


def test_echo_store_and_the_statuses_of_refusals(running: Running) -> None:
    peer = association(running)
    assert peer.send_c_echo().Status == 0
    peer.release()
    changed = radiograph("P1", 1)
    changed.StudyInstanceUID, changed.PatientComments = "1.1", "changed"
    first, second = image(1, "1.1"), image(2, "1.2")
    assert stored(running, first, first, second) == [0, 0, 0]
    assert stored(running, dicom(changed), image(3, "1.1", patient="P2")) == [0x0111, 0x0110]
    assert stored(running, image(4, "1.3"), image(5, "1.2")) == [0xA700, 0]  # two studies wait


def test_the_same_image_by_http_is_known(running: Running) -> None:
    stored(running, image(1, "1.1"))
    reply = running.post(image(1, "1.1"), path="/dicom-web/studies")
    assert reply.status == 200
    query = "SELECT count(*) FROM instance WHERE study = '1.1'"
    assert running.server.spool.database.value(query) == 1


@pytest.mark.parametrize(
    ("calling", "called"), [("OTHER", "MEDRES"), ("PACS", "OTHER"), ("FAR", "MEDRES")]
)
def test_unknown_peers_are_rejected_and_audited(
    running: Running, calling: str, called: str
) -> None:
    before = len(running.server.spool.audit.events())
    assert not association(running, calling=calling, called=called).is_established
    events = [event["event"] for event in running.server.spool.audit.events()[before:]]
    assert events == ["association_rejected"]


def test_addresses_are_told(running: Running, tmp_path: Path) -> None:
    assert running.server.dicom_address.startswith("MEDRES@127.0.0.1:")
    assert Address("::1", 104).is_loopback

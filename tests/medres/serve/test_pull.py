"""Studies from a PACS on request, and studies that are complete when all their images came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fake_pacs import DicomWebPacs, DimsePacs
from helpers import fails, medres, raises_code

from medres.errors import ServeError
from medres.results.identity import MANUFACTURER
from medres.serve.database import SENT
from medres.serve.delivery.outbox import bury
from medres.serve.intake.client import ServerClient
from medres.serve.settings import Peer

from .test_scheduler import wait_for
from .test_server import LOOPBACK, Running
from .test_spool import dicom, image, radiograph


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    options = {"dicom": LOOPBACK, "peers": (Peer("PACS", ""),)}
    with Running(tmp_path_factory.mktemp("pull"), **options) as running:
        yield running


def pulled(running: Running, study: str, *options: str) -> Any:
    url = running.server.http_address
    done = medres("serve", "pull", "--study", study, *options, "--server", url, "--json")
    return json.loads(done.stdout)


def own_result(study: str) -> bytes:
    made = radiograph("P1", 77)
    made.StudyInstanceUID, made.Manufacturer = study, MANUFACTURER
    return dicom(made)


def test_a_study_comes_by_wado_without_our_own_results(running: Running) -> None:
    with DicomWebPacs() as pacs:
        pacs.add(image(1, "1.1"), image(2, "1.1"), image(3, "1.2"), own_result("1.1"))
        (result,) = pulled(running, "1.1", "--pacs-dicomweb", pacs.url)
    assert result["images_received"] == 2
    assert result["predictions"][0]["probabilities"] == {"n": 2}


def test_a_study_comes_by_c_move_and_is_complete_with_its_last_image(running: Running) -> None:
    with DimsePacs() as pacs:
        pacs.add(image(11, "1.3"), image(12, "1.3"), image(13, "1.4"))
        port = int(running.server.dicom_address.rpartition(":")[2])
        pacs.places["MEDRES"] = ("127.0.0.1", port)
        address = f"127.0.0.1:{pacs.port}:PACS"
        (result,) = pulled(running, "1.3", "--pacs", address)
        assert result["predictions"][0]["probabilities"] == {"n": 2}


def test_a_count_closes_a_study_when_it_is_reached(running: Running) -> None:
    client = ServerClient(running.server.http_address)
    with raises_code(ServeError, "unknown_study"):
        client.complete("1.5", 2)
    running.post(image(21, "1.5"), path="/dicom-web/studies")
    assert client.complete("1.5", 2) == []
    running.post(image(22, "1.5"), path="/dicom-web/studies")
    (result,) = client.complete("1.5", 2)
    document = wait_for(running.server.spool, result["id"], SENT)
    assert (document["revision"], document["images_received"]) == (1, 2)
    for body in (b"{", b'{"study_uid": 3}', b'{"study_uid": "1.5", "images": 0}'):
        with raises_code(ServeError, "bad_json"):
            client.ask("POST", "/v1/complete", body)


def test_dead_letters_are_listed_and_tried_again_from_the_command_line(running: Running) -> None:
    reply = running.post(image(31, "1.6"))
    job = reply.body["results"][0]["id"]
    wait_for(running.server.spool, job, SENT)
    bury(running.server.spool, job, "refused_by_pacs")
    running.server.spool.database.execute(
        "INSERT INTO made_object (sop, job, file) VALUES ('9.9', ?, '0.dcm')", job
    )
    url = running.server.http_address
    listed = medres("serve", "retry", "--server", url)
    assert f"{job} refused_by_pacs" in listed.stdout
    medres("serve", "retry", "--all", "--server", url)
    assert wait_for(running.server.spool, job, SENT)["failure"] is None
    with raises_code(ServeError, "unknown_result"):
        ServerClient(url).ask("POST", f"/v1/dead-letters/{job}/retry", b"")


def test_a_pacs_or_server_that_is_not_there_is_told(running: Running) -> None:
    at = ("--server", running.server.http_address)
    pull = ("serve", "pull", "--study", "1.99")
    assert "does not answer" in fails(medres(*pull, "--pacs", "127.0.0.1:1:PACS", *at))
    with DicomWebPacs() as pacs:
        assert "no such study" in fails(medres(*pull, "--pacs-dicomweb", pacs.url, *at))
    fails(medres(*pull, *at), code=2)
    assert "is it running" in fails(medres("serve", "retry", "--server", "http://127.0.0.1:1"))

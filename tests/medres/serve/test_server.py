"""The running server: its doors, what they refuse, and what they tell."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from canaries import CANARIES, encodings, with_canaries
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dicomweb_client.api import DICOMwebClient
from helpers import fails, medres, raises_code
from pydicom import dcmread

from data_pipelines.errors import InputError
from medres.errors import ArtefactError, ServeError
from medres.serve.database import SENT
from medres.serve.intake.folders import WatchedFolder
from medres.serve.model_process import ModelOptions
from medres.serve.parts import FHIR, MadeObject, MakeOrder
from medres.serve.routing import ServedModel
from medres.serve.server import Server
from medres.serve.settings import Address, Peer, Settings, parse_address, read_token
from medres.serve.spool import Capacity
from medres.serve.telemetry import Telemetry

from .test_scheduler import Answers, wait_for
from .test_spool import MODEL, dicom, image

LOOPBACK = Address("127.0.0.1", 0)
TOKEN = "t" * 32


class Reply(NamedTuple):
    status: int
    body: Any
    headers: Any


class Running:
    """A server in threads of this process, with a model that counts files."""

    def __init__(self, folder: Path, *, model: Answers | None = None, **options: Any) -> None:
        self.log, self.model = io.StringIO(), model or Answers()
        settings = {"http": LOOPBACK, "capacity": Capacity(free_bytes=0), "quiet_seconds": 60.0}
        self.server = Server(
            Settings(models=(), spool=folder / "spool", **settings | options),
            models=[self.model],
            telemetry=Telemetry(self.log),
        )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def ask(
        self, method: str, path: str, body: Any = None, kind: str = "application/dicom", **more: str
    ) -> Reply:
        host, _, port = self.server.http_address.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if body is not None:
            headers["Content-Type"] = kind
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        is_json = "json" in response.headers.get("Content-Type", "")
        return Reply(response.status, json.loads(text) if is_json else text, response.headers)

    def post(self, *files: bytes, path: str = "/v1/studies?wait=30", **more: str) -> Reply:
        return self.ask("POST", path, related(*files), RELATED, **more)


RELATED = 'multipart/related; type="application/dicom"; boundary=xyz'


def related(*files: bytes) -> bytes:
    parts = [b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + f + b"\r\n" for f in files]
    return b"".join([*parts, b"--xyz--\r\n"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("root")
    with Running(tmp_path_factory.mktemp("server"), roots=(root,)) as running:
        running.root = root
        yield running


def test_an_upload_is_complete_at_once_and_gets_its_answer(running: Running) -> None:
    reply = running.post(image(1, "1.1"), image(2, "1.1"))
    (result,) = reply.body["results"]
    assert reply.status == 200
    assert result["predictions"][0]["probabilities"] == {"n": 2}
    assert (result["revision"], result["predecessor"]) == (1, None)
    assert reply.headers["Location"] == f"/v1/results/{result['id']}"
    again = running.ask("GET", reply.headers["Location"])
    assert again.body["predictions"] == result["predictions"]
    calls = running.model.calls
    assert running.post(image(1, "1.1"), image(2, "1.1")).body["results"][0]["id"] == result["id"]
    assert running.model.calls == calls


def test_one_file_and_a_form_are_uploads_too(running: Running) -> None:
    assert running.ask("POST", "/v1/studies?wait=30", image(3, "1.2")).status == 200
    form = related(image(4, "1.3")).replace(
        b"Content-Type",
        b'Content-Disposition: form-data; name="f"; filename="a.dcm"\r\nContent-Type',
    )
    reply = running.ask("POST", "/v1/studies?wait=30", form, "multipart/form-data; boundary=xyz")
    assert reply.body["results"][0]["images_received"] == 1


def test_a_path_below_a_root_is_an_upload_and_any_other_path_is_not_told_about(
    running: Running, tmp_path: Path
) -> None:
    (running.root / "study").mkdir()
    (running.root / "study" / "a.dcm").write_bytes(image(5, "1.4"))
    (tmp_path / "b.dcm").write_bytes(image(6, "1.5"))
    (running.root / "link").symlink_to(tmp_path)

    def post(path: Path) -> Reply:
        body = json.dumps({"path": str(path)})
        return running.ask("POST", "/v1/studies?wait=30", body, "application/json")

    assert post(running.root / "study").body["results"][0]["images_received"] == 1
    for path in (tmp_path / "b.dcm", running.root / "link" / "b.dcm", Path("/nothing/here")):
        reply = post(path)
        assert (reply.status, reply.body["code"]) == (403, "not_allowed")
        assert str(path) not in json.dumps(reply.body)


def test_stow_answers_for_each_instance(running: Running) -> None:
    changed = image(7, "1.6", patient="P9")
    reply = running.post(image(7, "1.6"), image(8, "1.6"), path="/dicom-web/studies")
    assert (reply.status, len(reply.body["00081199"]["Value"])) == (200, 2)
    reply = running.post(image(8, "1.6"), changed, path="/dicom-web/studies")
    assert reply.status == 202
    (failure,) = reply.body["00081198"]["Value"]
    assert failure["00081197"]["Value"] == [0x0110]
    assert running.post(changed, path="/dicom-web/studies").status == 409


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"x", "application/dicom", 400, "not_dicom"),
        (b"", "application/dicom", 400, "not_dicom"),
        (b"x", "text/plain", 415, "other_type"),
        (related(b"abc")[:-9], RELATED, 400, "bad_multipart"),
        (b"--xyz--\r\n", RELATED, 400, "no_file"),
        (b"{", "application/json", 400, "bad_json"),
        (b'{"path": 3}', "application/json", 400, "bad_json"),
        (b'{"path": "' + b"a" * 70000 + b'"}', "application/json", 413, "too_large"),
    ],
)
def test_bad_uploads_are_refused_with_a_code(
    running: Running, body: bytes, kind: str, status: int, code: str
) -> None:
    reply = running.ask("POST", "/v1/studies", body, kind)
    assert (reply.status, reply.body["code"]) == (status, code)


def test_an_upload_with_one_bad_file_leaves_nothing(running: Running) -> None:
    reply = running.post(image(11, "1.11"), b"no DICOM file")
    assert (reply.status, reply.body["files"]) == (400, [None, "not_dicom"])
    query = "SELECT 1 FROM study WHERE uid = '1.11'"
    assert running.server.spool.database.row(query) is None


def test_unknown_results_and_methods(running: Running) -> None:
    assert running.ask("GET", "/v1/results/1.2.3").status == 404
    assert running.ask("GET", "/v1/studies").status == 405
    assert running.ask("OPTIONS", "/v1/studies").status == 405  # no CORS
    assert running.ask("GET", "/nothing").body["code"] == "http_404"


def test_health_models_and_headers(running: Running) -> None:
    assert running.ask("GET", "/livez").body == {"live": True}
    assert running.ask("GET", "/readyz").body == {"ready": True}
    (model,) = running.ask("GET", "/v1/models").body
    assert model["banner"].startswith("UNSIGNED")
    headers = running.ask("GET", "/livez").headers
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    assert "server" not in headers


def test_pages_of_other_sites_cannot_use_a_loopback_server(running: Running) -> None:
    reply = running.ask("GET", "/livez", Host="evil.example")
    assert (reply.status, reply.body["code"]) == (403, "other_host")
    reply = running.post(image(1, "1.1"), Origin="http://evil.example")
    assert (reply.status, reply.body["code"]) == (403, "other_origin")


def test_bytes_are_counted_even_without_a_length(tmp_path: Path) -> None:
    with Running(tmp_path, max_upload=5000) as running:
        for body in (b"x" * 5001, (b"x" * 1000 for _ in range(6))):
            reply = running.ask("POST", "/v1/studies", body)
            assert (reply.status, reply.body["code"]) == (413, "too_large")
        assert list((running.server.spool.folder / "incoming").iterdir()) == []


def test_a_full_queue_and_a_full_spool_send_clients_away(tmp_path: Path) -> None:
    with Running(tmp_path, capacity=Capacity(studies=1, free_bytes=0)) as running:
        assert running.post(image(1, "1.1"), path="/dicom-web/studies").status == 200
        reply = running.post(image(2, "1.2"))
        assert (reply.status, reply.body["code"]) == (429, "queue_full")
        assert int(reply.headers["Retry-After"]) > 0
    with Running(tmp_path / "b", capacity=Capacity(free_bytes=1 << 60)) as running:
        assert running.post(image(2, "1.2")).status == 507
        assert running.ask("GET", "/readyz").status == 503
        assert running.ask("GET", "/livez").status == 200


def test_the_token_is_needed_except_for_health(tmp_path: Path) -> None:
    with Running(tmp_path, token=TOKEN) as running:
        assert running.ask("GET", "/livez").status == 200
        for path in ("/metrics", "/v1/models", "/v1/results/x"):
            assert running.ask("GET", path).status == 401
        assert running.ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}").status == 200
        assert running.ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}x").status == 401
        assert running.ask("GET", "/metrics", Authorization="Bearer é").status == 401
        # five wrong tokens: even the right one has to wait
        reply = running.ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}")
        assert (reply.status, reply.body["code"]) == (429, "rate_limit")
        events = [event["event"] for event in running.server.spool.audit.events()]
    assert events.count("wrong_token") == 5


def test_the_rate_of_one_client_is_limited(tmp_path: Path) -> None:
    with Running(tmp_path, requests_per_second=1.0) as running:
        replies = [running.ask("GET", "/livez") for _ in range(4)]
    assert [reply.status for reply in replies].count(429) >= 1
    assert int(replies[-1].headers["Retry-After"]) >= 1


def test_no_identifier_in_logs_metrics_audit_errors_and_names(tmp_path: Path) -> None:
    data = dicom(with_canaries(1))
    with Running(tmp_path) as running:
        replies = [
            running.post(data, path="/v1/studies"),
            running.post(data[:-2] + b"zz"),
            running.post(b"CANARY" * 100),
            running.ask("GET", "/metrics"),
            running.ask("GET", "/v1/results/CANARY"),
        ]
        audit = repr(running.server.spool.audit.events())
        names = repr([path.name for path in (tmp_path / "spool").rglob("*")])
    assert [reply.status for reply in replies] == [202, 409, 400, 200, 404]
    told = [running.log.getvalue(), audit, names, replies[0].headers["Location"]]
    told += [repr(reply.body) for reply in replies[1:]]
    assert "other_bytes" in told[0]
    assert "other_bytes" in audit
    for canary in CANARIES:
        for form in encodings(canary):
            assert not any(form in text.encode() for text in told)


def test_a_watched_folder_takes_files_that_have_come_to_rest(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        folder = tmp_path / "watched"
        (folder / "sub").mkdir(parents=True)
        watched = WatchedFolder(folder, running.server.spool, running.server.telemetry)
        for name in ("accepted", "refused"):
            (folder / name).mkdir()
        (folder / "sub" / "a.dcm").write_bytes(image(1))
        (folder / "b.txt").write_bytes(b"text")
        watched.look()
        (folder / "b.txt").write_bytes(b"text that grows")
        watched.look()
        assert (folder / "accepted" / "sub" / "a.dcm").exists()
        assert (folder / "b.txt").exists()
        watched.look()
        assert (folder / "refused" / "b.txt").exists()
        assert running.server.spool.database.value("SELECT count(*) FROM instance") == 1


def test_a_graceful_stop_answers_what_has_begun(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        reply = running.post(image(1), path="/v1/studies")
    assert reply.status == 202
    with Running(tmp_path) as running:  # the same spool
        result = running.ask("GET", reply.headers["Location"] + "?wait=30").body
        events = [event["event"] for event in running.server.spool.audit.events()]
    assert result["predictions"][0]["probabilities"] == {"n": 1}
    assert events[-1] in ("started", "answered", "sent")
    assert events.count("stopped") == 1


def test_careless_settings_are_refused(tmp_path: Path) -> None:
    def settings(**options: Any) -> Settings:
        return Settings(models=(), spool=tmp_path, **options)

    everywhere = Address("0.0.0.0", 8080)
    for options in ({}, {"token": TOKEN}, {"tls_certificate": tmp_path, "tls_key": tmp_path}):
        with raises_code(InputError, "needs_tls_and_token", "0.0.0.0:8080"):
            settings(http=everywhere, **options)
    both = {"token": TOKEN, "tls_certificate": tmp_path, "tls_key": tmp_path}
    assert settings(http=everywhere, **both).needs_signature
    assert not settings(http=everywhere, **both, allow_unsigned=True).needs_signature
    assert not settings().needs_signature
    with raises_code(InputError, "needs_peers"):
        settings(dicom=Address("127.0.0.1", 104))
    with raises_code(InputError, "needs_peers"):
        settings(dicom=Address("0.0.0.0", 104), peers=(Peer("PACS", ""),))
    assert settings(dicom=Address("0.0.0.0", 104), peers=(Peer("PACS", "10.0.0.7"),)).dicom
    with raises_code(InputError, "no_intake"):
        settings(http=None)
    with raises_code(InputError, "bad_aet"):
        settings(aet="a" * 17)
    with raises_code(InputError, "bad_address", "8080"):
        parse_address("8080")


def test_an_address_that_is_taken_is_told_with_the_option(tmp_path: Path) -> None:
    with Running(tmp_path / "a") as running:
        address = parse_address(running.server.http_address.removeprefix("http://"))
        for options in ({"http": address}, {"dicom": address, "peers": (Peer("PACS", ""),)}):
            settings = Settings(models=(), spool=tmp_path / "b", **{"http": LOOPBACK} | options)
            with raises_code(InputError, "address_in_use", str(address)):
                Server(settings, models=[Answers()])


def test_a_token_file_is_private_and_long(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    with raises_code(InputError, "token_open_to_others"):
        read_token(path)
    path.chmod(0o600)
    assert read_token(path) == TOKEN
    path.write_text("short")
    with raises_code(InputError, "token_too_short"):
        read_token(path)


def test_an_independent_stow_client_is_served(running: Running) -> None:
    client = DICOMwebClient(f"{running.server.http_address}/dicom-web")
    dataset = dcmread(io.BytesIO(image(21, "1.21")))
    response = client.store_instances([dataset])
    assert response.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID


def test_tls_with_a_token(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with Running(tmp_path, token=TOKEN, tls_certificate=certificate, tls_key=key) as running:
        address = running.server.http_address
        port = int(address.rpartition(":")[2])
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().status == 200
        connection.close()
    assert address.startswith("https://")
    with raises_code(InputError, "bad_certificate"):
        Settings((), tmp_path, tls_certificate=key, tls_key=certificate).tls()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(certificate.public_bytes(pem))
    paths[1].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_an_unsigned_model_is_not_served_to_other_machines_unless_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(options: ModelOptions) -> Answers:
        assert Path(options.path).read_bytes() == model.read_bytes()
        raise ArtefactError("no model", code=f"opened_{options.signature and 'signed'}")

    monkeypatch.setattr("medres.serve.server.ModelProcess", opened)
    certificate, key = self_signed(tmp_path)
    model = tmp_path / "model.keras"
    model.write_bytes(b"not opened before its signature is there")
    settings = Settings(
        (model,), tmp_path / "spool", http=Address("0.0.0.0", 0), token=TOKEN,
        tls_certificate=certificate, tls_key=key,
    )  # fmt: skip
    with raises_code(ServeError, "needs_signature", "model.keras.sig"):
        Server(settings)
    with raises_code(ArtefactError, "opened_None"):
        Server(replace(settings, allow_unsigned=True))
    (tmp_path / "model.keras.sig").write_bytes(b"verified by the model process")
    with raises_code(ArtefactError, "opened_signed"):
        Server(replace(settings, public_key=tmp_path / "key.pem"))


def test_a_reload_that_fails_leaves_the_running_model_in_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Server, path: Path) -> Answers:
        raise ArtefactError("other outputs", code="golden_vectors")

    new = Answers(facts=ServedModel("n" * 64, "p" * 64, None, MODEL.card))
    with Running(tmp_path) as running:
        server = running.server
        server.settings = replace(server.settings, models=(tmp_path / "model.keras",))
        monkeypatch.setattr(Server, "_open_model", refused)
        server.reload_models()
        assert [model.sha256 for model in server.scheduler.served] == ["m" * 64]
        monkeypatch.setattr(Server, "_open_model", lambda self, path: new)
        server.reload_models()
        reply = running.post(image(1))
        events = [event["event"] for event in server.spool.audit.events()]
    assert reply.body["results"][0]["model"]["sha256"] == "n" * 64
    assert events[:3] == ["started", "model_not_replaced", "model_replaced"]
    assert new.is_closed


def test_the_audit_log_is_checked_from_the_command_line(tmp_path: Path) -> None:
    assert "no spool" in fails(medres("serve-audit", "verify", "--spool", tmp_path))
    with Running(tmp_path):
        pass
    spool = tmp_path / "spool"
    checked = medres("serve-audit", "verify", "--spool", spool, "--json")
    assert json.loads(checked.stdout)["n_events"] == 2
    assert "1 " in medres("serve-audit", "show", "--spool", spool).stdout
    with contextlib.closing(sqlite3.connect(spool / "spool.db")) as connection, connection:
        connection.execute("UPDATE audit SET event = 'other' WHERE number = 2")
    assert "event 2" in fails(medres("serve-audit", "verify", "--spool", spool))


def test_careless_commands_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "model.keras"
    arguments = ("serve", model, "--spool", tmp_path / "spool")
    assert "--token-file" in fails(medres(*arguments, "--http", "0.0.0.0:8080"))
    assert "--allow-aet" in fails(medres(*arguments, "--dicom", "127.0.0.1:0"))
    assert "model.keras" in fails(medres(*arguments, "--http", "127.0.0.1:0"))


class Fhir(Answers):
    """A model that makes a FHIR bundle and no object."""

    def make(self, order: MakeOrder, seconds: float) -> list[MadeObject]:
        super().make(order, seconds)
        (Path(order["out"]) / FHIR).write_text('{"resourceType": "Bundle"}')
        return []


def test_the_fhir_bundle_of_a_result_is_fetched_from_the_api_and_the_page(tmp_path: Path) -> None:
    with Running(tmp_path, model=Fhir(), maker="fake", fhir=True) as running:
        job = running.post(image(1, "1.1")).body["results"][0]["id"]
        document = wait_for(running.server.spool, job, SENT)
        reply = running.ask("GET", document["fhir"])
        assert reply.body == {"resourceType": "Bundle"}
        assert reply.headers["Content-Type"] == "application/fhir+json"
        page = running.ask("GET", f"/page/studies/{job}").body.decode()
        (link,) = [part.split('"')[0] for part in page.split('href="') if "fhir.json" in part]
        assert running.ask("GET", link).body == reply.body
        for missing in ("0" * 32, ".."):
            reply = running.ask("GET", f"/v1/results/{missing}/fhir")
            assert (reply.status, reply.body["code"]) == (404, "no_fhir")
    with raises_code(InputError, "fhir_without_objects"):
        Settings(models=(), spool=tmp_path, fhir=True)

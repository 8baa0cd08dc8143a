"""DICOMweb as a client: what a search finds comes byte for byte, and only once."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from canaries import radiograph
from fake_pacs import DicomWebPacs
from helpers import raises_code
from pydicom import dcmread

from data_pipelines.dicomweb import client as client_module
from data_pipelines.dicomweb.client import DicomWeb, parse_endpoint
from data_pipelines.dicomweb.download import AUTHORIZATION, Download, download
from data_pipelines.errors import InputError, NetworkError


def image(number: int, study: str) -> bytes:
    dataset, buffer = radiograph("P1", number), BytesIO()
    dataset.StudyInstanceUID = study
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def address(pacs: DicomWebPacs, query: str = "") -> str:
    return pacs.url.replace("http:", "dicomweb:") + query


def test_a_download_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    files = [image(number, f"1.2.{number % 2}") for number in range(5)]
    with DicomWebPacs() as pacs:
        pacs.add(*files)
        done: list[tuple[int, int]] = []

        def stop(count: int, total: int) -> None:
            done.append((count, total))
            if len(done) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            download(address(pacs), tmp_path, progress=stop)
        assert len(list(tmp_path.iterdir())) == 2
        pacs.requests.clear()
        (tmp_path / "left.partial").write_bytes(b"half")
        assert download(address(pacs), tmp_path) == Download(new=3, known=2, studies=2)
        assert sum("/instances/" in request for request in pacs.requests) == 3
        assert download(address(pacs), tmp_path) == Download(new=0, known=5, studies=2)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {*files}
    uid = str(dcmread(next(tmp_path.iterdir())).SOPInstanceUID)
    assert not any(uid in path.name for path in tmp_path.iterdir())


def test_a_search_is_narrowed_by_attributes_and_read_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    with DicomWebPacs() as pacs:
        pacs.add(*(image(number, f"1.2.{number}") for number in range(5)))
        query = "?StudyInstanceUID=1.2.3"
        assert download(address(pacs, query), tmp_path / "one").new == 1
        assert download(address(pacs), tmp_path / "all").new == 5
        with raises_code(InputError, "no_study"):
            download(address(pacs, "?StudyInstanceUID=1.2.9"), tmp_path / "none")


def test_a_server_that_fails_is_told_with_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DicomWebPacs() as pacs:
        pacs.add(image(1, "1.2"))
        for status, code in ((401, "not_authorized"), (404, "refused"), (503, "unreachable")):
            pacs.failures = [status]
            with raises_code(NetworkError, code):
                download(address(pacs), tmp_path)
        client = DicomWeb(parse_endpoint(pacs.url))
        monkeypatch.setattr(pacs, "_reply", _cut(pacs._reply))
        with raises_code(NetworkError, "bad_answer"):
            list(client.search("studies", {}))
        client.close()
    with raises_code(NetworkError, "unreachable"):
        download(address(pacs), tmp_path)


def _cut(reply: Any) -> Any:
    def cut(handler: Any, status: int, body: bytes, kind: str = "application/json") -> None:
        reply(handler, status, body[:-1], kind)

    return cut


def test_addresses() -> None:
    assert parse_endpoint("dicomweb://pacs.example/rs").scheme == "https"
    assert parse_endpoint("dicomweb://localhost:8042/rs/").path == "/rs"
    for text in ("ftp://host", "dicomweb://", "http://user:secret@host/rs", "http://[::1/rs"):
        with raises_code(InputError, "bad_endpoint"):
            parse_endpoint(text)


def test_the_authorization_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    with DicomWebPacs() as pacs:
        pacs.add(image(1, "1.2"))
        monkeypatch.setenv(AUTHORIZATION, "Bearer xyz")
        answer = pacs.answer

        def noted(handler: Any, body: bytes) -> None:
            sent.append(handler.headers["Authorization"])
            answer(handler, body)

        monkeypatch.setattr(pacs, "answer", noted)
        download(address(pacs), tmp_path)
    assert {*sent} == {"Bearer xyz"}

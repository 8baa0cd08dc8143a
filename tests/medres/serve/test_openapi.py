"""The server does what its OpenAPI description says, whatever it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from medres.serve.intake.openapi import openapi

from .test_server import Running
from .test_spool import image

schemathesis = pytest.importorskip("schemathesis", reason="the extra medres[dev] is not installed")
DOCUMENT = openapi(metadata.version("medres"))
ROOT = Path(__file__).parents[3]
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
#: that bytes are a DICOM file is more than a schema says
EXCLUDED = [schemathesis.checks.load_all_checks() or schemathesis.checks.CHECKS.get_one(
    "positive_data_acceptance"
)]  # fmt: skip


@schemathesis.serializer("application/dicom", "multipart/related")
def as_bytes(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("openapi")
    with Running(folder, requests_per_second=1e6) as running:
        running.post(image(1, "1.1"))
        yield running


def settings(n: int) -> Any:
    return hypothesis.settings(
        max_examples=n, deadline=None, derandomize=True, database=None,
        suppress_health_check=[*hypothesis.HealthCheck],
    )  # fmt: skip


def call(case: Any, server: Running) -> None:
    address = server.server.http_address
    case.call_and_validate(base_url=address, excluded_checks=EXCLUDED)


@SCHEMA.parametrize()
@settings(4)
def test_answers_are_as_described(case: Any, server: Running) -> None:
    call(case, server)


@pytest.mark.long  # some hundred requests to each address
@pytest.mark.timeout(900)
@SCHEMA.parametrize()
@settings(60)
def test_many_answers_are_as_described(case: Any, server: Running) -> None:
    call(case, server)


def test_the_description_is_served_and_stands_in_the_documentation(server: Running) -> None:
    assert server.ask("GET", "/openapi.json").body == DOCUMENT
    assert json.loads((ROOT / "docs/reference/openapi.json").read_text()) == DOCUMENT
    reply = server.ask("GET", "/v1/results/" + "0" * 32 + "?wait=soon")
    assert (reply.status, reply.body["code"]) == (400, "bad_wait")


def test_every_address_for_programs_is_described(server: Running) -> None:
    app = server.server._http.config.app._app
    paths = {route.path for route in app.routes}
    programs = {path for path in paths if not path.startswith("/page")} - {"/", "/favicon.ico"}
    assert programs == {*DOCUMENT["paths"]}

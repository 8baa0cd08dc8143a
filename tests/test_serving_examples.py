"""The examples of `medres.load` in servers of other people."""

from __future__ import annotations

import importlib.util
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import medres
from medres.artefact.archive import load
from medres.inference.exporting import export

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(path: str) -> ModuleType:
    file = EXAMPLES / path
    assert len(file.read_text().splitlines()) < 100
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def served(app: Any) -> Iterator[Callable[[bytes], tuple[int, dict]]]:
    """An ASGI application on a port of its own: gives what posts files to it."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < until
        assert thread.is_alive()
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]

    def post(data: bytes) -> tuple[int, dict]:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/predict", data)
        response = connection.getresponse()
        value = json.load(response)
        connection.close()
        return response.status, value

    yield post
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def test_a_fastapi_server_answers_as_the_predictor_does(
    tiny_run: Path, tiny_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    image = next((tiny_work.parent / "images").glob("TINY001-0*"))
    monkeypatch.setenv("MEDRES_MODEL", str(tiny_run / "model.keras"))
    app = example("fastapi/app.py")
    with medres.load(tiny_run / "model.keras", isolate=False) as predictor:
        expected = predictor.predict(image)
    with served(app.app) as post:
        status, told = post(image.read_bytes())
        _, refused = post(b"no DICOM")
        monkeypatch.setattr(app, "MAX_BYTES", 100)
        assert post(image.read_bytes())[0] == 413
    assert status == 200
    assert told["probabilities"] == expected.probabilities
    assert told["decisions"] == expected.decisions
    assert told["refused"] is None
    assert "Not a medical device" in told["research_use_only"]
    assert (refused["code"], refused["probabilities"]) == ("not_dicom", {})


class Rest(BaseHTTPRequestHandler):
    """The REST interface of TensorFlow Serving, as far as the example uses it. TensorFlow Serving
    itself is not installed here; what runs is the signature of the export.
    """

    signature: Any = None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/models/medres:predict"
        assert body["signature_name"] == "serving_default"
        outputs = self.signature(image=np.asarray(body["inputs"]["image"], np.float32))
        data = json.dumps({"outputs": {name: v.numpy().tolist() for name, v in outputs.items()}})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def rest() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Rest) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.long  # the export alone takes half of the time that new tests may have
def test_a_tensor_server_answers_as_the_predictor_does(
    tiny_run: Path,
    tiny_work: Path,
    tmp_path: Path,
    rest: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import tensorflow as tf

    folder = export(load(tiny_run / "model.keras"), "saved_model", tmp_path / "medres" / "1").folder
    assert (folder / "saved_model.pb").is_file()  # the folder of a version, as the server wants it
    module = tf.saved_model.load(str(folder))
    monkeypatch.setattr(Rest, "signature", staticmethod(module.signatures["serving_default"]))
    client = example("tf_serving/client.py")
    url = f"http://127.0.0.1:{rest.server_address[1]}/v1/models/medres:predict"
    monkeypatch.setattr(client, "URL", url)
    assert client.main(folder) == 0
    assert "golden vectors" in capsys.readouterr().out

    image = next((tiny_work.parent / "images").glob("TINY001-0*"))
    with medres.load(tiny_run / "model.keras", isolate=False) as predictor:
        expected = predictor.predict(image)
    serving = json.loads((folder / "serving.json").read_text())
    told = client.answer(image, serving)
    assert told["refused"] is None
    assert told["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert told["positive"] == expected.decisions
    # an image unlike the training images is refused here too
    serving["outputs"]["novelty"]["refused_above"] = 0.0
    assert client.answer(image, serving) == {"refused": "novelty"}


def test_the_unit_and_the_image_start_the_command_that_exists() -> None:
    from typer.main import get_command

    from medres.cli.app import app

    serve = get_command(app).commands["serve"]
    folder = EXAMPLES / "serve"
    unit = (folder / "medres.service").read_text()
    image = (folder / "Containerfile").read_text()
    (started,) = re.findall(r"^ExecStart=\S*/medres serve (.*)$", unit, re.MULTILINE)
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", image, re.MULTILINE)
    options = {one for parameter in serve.params for one in parameter.opts}
    options |= {
        one
        for verb in serve.commands.values()
        for parameter in verb.params
        for one in parameter.opts
    }
    for words in (started.split(), json.loads(entry)):
        used = [word for word in words if word.startswith("--")]
        assert used == ["--spool"]
        assert {*used} <= options
    for line in ("NoNewPrivileges=true", "StateDirectoryMode=0700", "ProtectSystem=strict"):
        assert line in unit.splitlines()
    assert "USER medres" in image.splitlines()
    assert "Not a medical device" in unit
    assert "Not a medical device" in image

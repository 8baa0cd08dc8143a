"""Sources in a bucket, from servers of S3 and of Google Cloud Storage on this machine."""

from __future__ import annotations

import http.server
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image

from data_pipelines.cache.store import ensure_cache
from data_pipelines.errors import InputError
from data_pipelines.ingestion import ingest

pytestmark = [
    pytest.mark.long,  # starts a server, and decode workers that load s3fs
    pytest.mark.filterwarnings("ignore"),  # of the server
]


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The scheme of URLs, and a file system with the bucket `bucket`; decode workers find the
    server by the environment.
    """
    return request.param, request.getfixturevalue(f"{request.param}_bucket")


@pytest.fixture
def gs_bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    gcsfs = pytest.importorskip("gcsfs", reason="gcsfs (extra stores) is not installed")
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    # without it gcsfs asks by gRPC whether the bucket has folders, which no emulator answers
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # each connection stays open, and workers have their own
    monkeypatch.setattr(http.server, "HTTPServer", http.server.ThreadingHTTPServer)
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server._api.daemon = True  # it ends with this process: to stop it would wait for connections
    server.start()
    return gcsfs.GCSFileSystem(token="anon")


@pytest.fixture
def s3_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    s3fs = pytest.importorskip("s3fs", reason="s3fs (extra stores) is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    yield system
    running.stop()


def test_a_bucket_and_a_folder_give_the_same_manifest(
    store: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme, bucket = store
    monkeypatch.setenv("MEDRES_KEY", "ab" * 32)
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    for n in range(40):
        image = Image.fromarray(rng.integers(0, 256, (12, 12)).astype(np.uint8))
        image.save(folder / f"{n:02}.png")
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes([1] * 9))
    (folder / "large.dcm").write_bytes(bytes(128) + b"DICM" + bytes(9 << 20))  # several requests
    for file in folder.iterdir():
        bucket.pipe(f"bucket/deep/{file.name}", file.read_bytes())
    options = {"units": "display", "workers": 1, "progress": lambda done, total: None}
    here = ingest(folder, None, tmp_path / "here", **options)
    there = ingest(f"{scheme}://bucket/deep", None, tmp_path / "there", **options)
    differing = ["source", "image", "study", "series", "patient", "split"]
    assert here.table.drop(columns=differing).equals(there.table.drop(columns=differing))
    assert set(there.table["source"]) == {f"{scheme}://bucket/deep"}
    reasons = [m.quarantine[["path", "reason"]].to_dict() for m in (here, there)]
    assert reasons[0] == reasons[1]
    cache = ensure_cache(tmp_path / "there", "xray-32", workers=1, progress=lambda *_: None)
    assert len(cache.images) == 40
    assert json.loads((tmp_path / "there" / "ingest.json").read_text())["given"] == 42
    with raises_code(InputError, "no_source", f"{scheme}://absent"):
        ingest(f"{scheme}://absent/x", **options)

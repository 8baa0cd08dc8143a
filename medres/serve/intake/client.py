"""A running server, asked over HTTP by the commands of `medres serve`."""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from data_pipelines.errors import InputError
from medres.errors import ServeError

TIMEOUT_SECONDS = 120.0


class ServerClient:
    """url: http(s)://HOST:PORT. token: of the server. authority: PEM file for its certificate."""

    def __init__(self, url: str, token: str | None = None, authority: Path | None = None) -> None:
        """Raises InputError (bad_address)."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"server {url!r}: write http://HOST:PORT", code="bad_address")
        self._is_tls, self._place = parts.scheme == "https", (parts.hostname, parts.port)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._context = ssl.create_default_context(cafile=authority) if self._is_tls else None

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        size: int = 0,
    ) -> Any:
        """The JSON answer. Raises ServeError with the code that the server gave, or unreachable."""
        connection = (
            http.client.HTTPSConnection(
                *self._place, timeout=TIMEOUT_SECONDS, context=self._context
            )
            if self._is_tls
            else http.client.HTTPConnection(*self._place, timeout=TIMEOUT_SECONDS)
        )
        headers = dict(self._headers)
        if body is not None:
            headers |= {"Content-Type": kind, "Content-Length": str(size or len(body))}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            value = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServeError(
                f"the server at {self._place[0]}:{self._place[1]} does not answer "
                f"({type(error).__name__}); is it running?",
                code="unreachable",
            ) from None
        finally:
            connection.close()
        if response.status >= 400:
            raise ServeError(value.get("message", "refused"), code=value.get("code", "refused"))
        return value

    def upload(self, paths: Sequence[Path], wait: int) -> list[dict[str, Any]]:
        """Send the files of complete studies; their results, answered within `wait` seconds."""
        boundary = uuid.uuid4().hex
        with tempfile.TemporaryFile() as body:
            for path in paths:
                body.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode())
                body.write(path.read_bytes())
                body.write(b"\r\n")
            body.write(f"--{boundary}--\r\n".encode())
            kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
            return self._sized("POST", f"/v1/studies?wait={wait}", body, kind)["results"]

    def complete(self, study: str, images: int) -> list[dict[str, Any]]:
        """Say how many images a study has; its result, if they are held."""
        body = json.dumps({"study_uid": study, "images": images}).encode()
        return self.ask("POST", "/v1/complete", body)["results"]

    def result(self, job: str, wait: int) -> dict[str, Any]:
        return self.ask("GET", f"/v1/results/{job}?wait={wait}")

    def _sized(self, method: str, path: str, body: IO[bytes], kind: str) -> Any:
        size = body.tell()
        body.seek(0)
        return self.ask(method, path, body, kind, size)

"""One DICOMweb server: what it holds (QIDO-RS), its files byte for byte (WADO-RS), and files sent
to it (STOW-RS). Nothing is tried again here.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import json
import ssl
import threading
import uuid
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from data_pipelines.errors import InputError, NetworkError

SCHEME = "dicomweb"
TIMEOUT = 60.0  # seconds without an answer
PAGE = 500  # objects that are asked for at once
MAX_JSON = 64 << 20  # bytes of one page
_BLOCK = 1 << 20
STUDY, SERIES, SOP = "0020000D", "0020000E", "00080018"
_STORED, _FAILED, _REASON = "00081199", "00081198", "00081197"
DUPLICATE = 0x0111  # failure reason: the object is there already (PS3.7 C.5.8)


class Instance(NamedTuple):
    """The UIDs of one object."""

    study: str
    series: str
    sop: str


class Endpoint(NamedTuple):
    """scheme: http or https. path: of the service, without a slash at its end. query: attributes
    of a search.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: dict[str, str]


def parse_endpoint(text: str) -> Endpoint:
    """http://, https:// or dicomweb:// with host, port and path. dicomweb:// is https, on a
    loopback address http; attributes of a search stand behind a question mark.

    Raises InputError (code bad_endpoint).

    >>> parse_endpoint("dicomweb://127.0.0.1:8042/rs?Modality=CT")
    Endpoint(scheme='http', host='127.0.0.1', port=8042, path='/rs', query={'Modality': 'CT'})
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    scheme = parts.scheme
    if scheme == SCHEME:
        scheme = "http" if _is_loopback(host) else "https"
    if scheme not in ("http", "https") or not host or parts.username is not None:
        raise InputError(
            "a DICOMweb address is written http://, https:// or dicomweb://HOST:PORT/PATH, without "
            "a user name; give the authorization in a file or in MEDRES_DICOMWEB_AUTHORIZATION",
            code="bad_endpoint",
        )
    default = 443 if scheme == "https" else 80
    return Endpoint(
        scheme, host, port or default, parts.path.rstrip("/"), dict(parse_qsl(parts.query))
    )


class DicomWeb:
    """One connection to a server, for one thread at a time. authorization: the value of the header
    Authorization, such as 'Bearer ...'. context: of TLS; None trusts the authorities of the system.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        authorization: str | None = None,
        timeout: float = TIMEOUT,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.endpoint, self._authorization = endpoint, authorization
        self._timeout, self._context = timeout, context
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def search(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """QIDO-RS, page by page: the objects as DICOM JSON. path: such as 'studies'. Raises
        NetworkError.
        """
        offset, before = 0, None
        while True:
            page = {**query, "limit": str(PAGE), "offset": str(offset)}
            headers = {"Accept": "application/dicom+json"}
            with self._answer("GET", f"/{path}?{urlencode(page)}", headers) as response:
                data = response.read(MAX_JSON + 1) if response.status == 200 else b"[]"
            rows = _json_list(data)
            if rows == before:  # the server knows no pages
                return
            yield from rows
            if len(rows) < PAGE:
                return
            offset, before = offset + len(rows), rows

    def instances(self, study: str) -> list[Instance]:
        """Every object of a study. Raises NetworkError."""
        return [
            Instance(study, value_of(row, SERIES), value_of(row, SOP))
            for row in self.search(f"studies/{_part(study)}/instances", {})
        ]

    def retrieve(self, instance: Instance, file: IO[bytes]) -> None:
        """WADO-RS: write one object to `file` as the server holds it. Raises NetworkError."""
        path = "/".join(
            f"{level}/{_part(uid)}"
            for level, uid in zip(("studies", "series", "instances"), instance, strict=True)
        )
        headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        with self._answer("GET", f"/{path}", headers) as response:
            if response.status != 200:
                raise _no_object()
            _copy_part(response, file)

    def store(self, path: Path) -> None:
        """STOW-RS: send one file. An object that the server has already is a success. Raises
        NetworkError (refused), with a number of the server: its HTTP status or failure reason.
        """
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
        with self._answer("POST", "/studies", headers, body, ok=(200, 202, 409)) as response:
            _require_stored(response.status, response.read(MAX_JSON + 1))

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None = None,
        ok: tuple[int, ...] = (200, 204),
    ) -> Iterator[http.client.HTTPResponse]:
        if self._authorization:
            headers = {**headers, "Authorization": self._authorization}
        try:
            with self._lock:
                response = self._request(method, self.endpoint.path + path, headers, body)
                if response.status not in ok:
                    response.read(_BLOCK)
                    raise _refused(response.status)
                yield response
                response.read()  # the connection is free for the next request
        except NetworkError:
            self.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # of the file that the answer is written to
            raise NetworkError(
                f"the DICOMweb server {self.endpoint.host}:{self.endpoint.port} does not answer "
                f"({type(error).__name__})",
                code="unreachable",
            ) from None

    def _request(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> http.client.HTTPResponse:
        """On a connection that the server has closed meanwhile, once more."""
        is_fresh = self._connection is None
        try:
            return self._request_once(method, path, headers, body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if is_fresh:
                raise
            self.close()
            return self._request_once(method, path, headers, body)

    def _request_once(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            place = self.endpoint.host, self.endpoint.port
            self._connection = (
                http.client.HTTPSConnection(*place, timeout=self._timeout, context=self._context)
                if self.endpoint.scheme == "https"
                else http.client.HTTPConnection(*place, timeout=self._timeout)
            )
        self._connection.request(method, path, body, headers)
        return self._connection.getresponse()


def value_of(row: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute of DICOM JSON, '' if absent."""
    values = (row.get(tag) or {}).get("Value") or [""]
    return str(values[0])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _part(uid: str) -> str:
    """A UID as a part of a path: nothing else may come into it."""
    if not uid or len(uid) > 64 or not all(c in "0123456789." for c in uid):
        raise NetworkError("the DICOMweb server gave a UID that is none", code="bad_answer")
    return uid


def _json_list(data: bytes) -> list[dict[str, Any]]:
    try:
        rows = json.loads(data) if len(data) <= MAX_JSON else None
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _bad_answer()
    return rows


def _copy_part(response: http.client.HTTPResponse, file: IO[bytes]) -> None:
    """The only part of a multipart answer, or a body that is DICOM itself."""
    message = Message()
    message["Content-Type"] = response.headers.get("Content-Type", "")
    if message.get_content_type() == "application/dicom":
        while block := response.read(_BLOCK):
            file.write(block)
        return
    boundary = message.get_boundary()
    if message.get_content_maintype() != "multipart" or not boundary:
        raise _bad_answer()
    marker = b"--" + boundary.encode()
    first = response.readline(_BLOCK).strip() or response.readline(_BLOCK).strip()
    if not first.startswith(marker):  # some servers send an empty line before it
        raise _bad_answer()
    while response.readline(_BLOCK).strip():
        pass
    _copy_until(response, b"\r\n" + marker, file)


def _copy_until(response: http.client.HTTPResponse, end: bytes, file: IO[bytes]) -> None:
    tail = b""
    while block := response.read(_BLOCK):
        tail += block
        at = tail.find(end)
        if at >= 0:
            file.write(tail[:at])
            return
        file.write(tail[: -len(end)])
        tail = tail[-len(end) :]
    raise _bad_answer()


def _require_stored(status: int, data: bytes) -> None:
    try:
        answer = json.loads(data) if data else {}
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        if status == 200:
            return
        raise _refused(status)
    failures = (answer.get(_FAILED) or {}).get("Value") or []
    reasons = [(one.get(_REASON) or {}).get("Value", [0])[0] for one in failures]
    if status != 200 and not failures:
        raise _refused(status)
    for reason in reasons:
        if reason != DUPLICATE:
            raise _refused(reason)


def _refused(number: int) -> NetworkError:
    code = "not_authorized" if number in (401, 403) else "refused"
    if number in (429, 500, 502, 503, 504):
        code = "unreachable"
    return NetworkError(f"the DICOMweb server refused the request ({number})", code=code)


def _no_object() -> NetworkError:
    return NetworkError("the DICOMweb server does not give an object that it lists", code="refused")


def _bad_answer() -> NetworkError:
    return NetworkError(
        "the DICOMweb server gave an answer that is not understood", code="bad_answer"
    )

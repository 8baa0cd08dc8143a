"""PACSs for tests on loopback: a DICOMweb service, and a storage service class provider that also
answers C-FIND and C-MOVE.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset, dcmread
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

_UIDS = {
    "0020000D": "StudyInstanceUID",
    "0020000E": "SeriesInstanceUID",
    "00080018": "SOPInstanceUID",
}


class DicomWebPacs:
    """objects: SOP Instance UID -> file. arrivals: each UID that came, in order. failures: statuses
    of the next answers.
    """

    def __init__(self, port: int = 0, objects: dict[str, bytes] | None = None) -> None:
        self.objects = {} if objects is None else objects
        self.arrivals: list[str] = []
        self.requests: list[str] = []
        self.failures: list[int] = []
        pacs = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                pacs.answer(self, b"")

            def do_POST(self) -> None:
                pacs.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/rs"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> DicomWebPacs:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add(self, *files: bytes) -> None:
        for data in files:
            self.objects[str(dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID)] = data

    def answer(self, handler: Any, body: bytes) -> None:
        path, query = urlsplit(handler.path).path, parse_qs(urlsplit(handler.path).query)
        self.requests.append(handler.path)
        if self.failures:
            self._reply(handler, self.failures.pop(0), b"")
        elif handler.command == "POST":
            self._store(handler, body)
        elif path.rpartition("/")[2] in ("studies", "instances"):
            self._search(handler, path, query)
        else:
            data = self.objects[path.rpartition("/")[2]]
            part = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n"
            kind = 'multipart/related; type="application/dicom"; boundary=b'
            self._reply(handler, 200, part, kind)

    def _store(self, handler: Any, body: bytes) -> None:
        data = body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
        sop = str(dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID)
        self.arrivals.append(sop)
        if self.objects.setdefault(sop, data) != data:
            failure = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"Value": [0x0110]}}]}}
            self._reply(handler, 409, json.dumps(failure).encode())
        else:
            self._reply(handler, 200, b"{}")

    def _search(self, handler: Any, path: str, query: dict[str, list[str]]) -> None:
        headers = [dcmread(BytesIO(d), stop_before_pixels=True) for d in self.objects.values()]
        parts = path.split("/")
        if parts[-1] == "instances":
            headers = [one for one in headers if one.StudyInstanceUID == parts[-2]]
        else:
            headers = [*{str(one.StudyInstanceUID): one for one in headers}.values()]
        for name, (value,) in query.items():
            if name not in ("limit", "offset"):
                headers = [one for one in headers if str(one.get(name)) == value]
        first = int(query.get("offset", ["0"])[0])
        rows = [
            {tag: {"vr": "UI", "Value": [str(one.get(name))]} for tag, name in _UIDS.items()}
            for one in headers[first : first + int(query.get("limit", ["100"])[0])]
        ]
        self._reply(handler, 200, json.dumps(rows).encode())

    def _reply(
        self, handler: Any, status: int, body: bytes, kind: str = "application/dicom+json"
    ) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


class DimsePacs:
    """objects, arrivals: as above. statuses: of the next C-STORE answers. places: AE title ->
    address, for C-MOVE.
    """

    def __init__(self, port: int = 0, *, tls: Any = None) -> None:
        self.objects: dict[str, Dataset] = {}
        self.arrivals: list[str] = []
        self.statuses: list[int] = []
        self.places: dict[str, tuple[str, int]] = {}
        entity = AE(ae_title="PACS")
        entity.supported_contexts = StoragePresentationContexts
        for uid in (
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelMove,
            Verification,
        ):
            entity.add_supported_context(uid)
        entity.requested_contexts = StoragePresentationContexts[:120]
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
        ]
        self._server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls
        )
        self.port = self._server.socket.getsockname()[1]

    def stop(self) -> None:
        self._server.shutdown()

    def __enter__(self) -> DimsePacs:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add(self, *files: bytes) -> None:
        for data in files:
            dataset = dcmread(BytesIO(data))
            self.objects[str(dataset.SOPInstanceUID)] = dataset

    def _store(self, event: Any) -> int:
        if self.statuses:
            return self.statuses.pop(0)
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        sop = str(dataset.SOPInstanceUID)
        self.arrivals.append(sop)
        self.objects[sop] = dataset
        return 0

    def _matching(self, event: Any) -> list[Dataset]:
        study = str(event.identifier.StudyInstanceUID)
        return [one for one in self.objects.values() if one.StudyInstanceUID == study]

    def _find(self, event: Any) -> Any:
        matches = self._matching(event)
        if matches:
            answer = Dataset()
            answer.QueryRetrieveLevel = "STUDY"
            answer.StudyInstanceUID = event.identifier.StudyInstanceUID
            answer.NumberOfStudyRelatedInstances = len(matches)
            yield 0xFF00, answer
        yield 0x0000, None

    def _move(self, event: Any) -> Any:
        place = self.places.get(str(event.move_destination).strip())
        if place is None:
            yield None, None
            return
        yield place
        matches = self._matching(event)
        yield len(matches)
        for one in matches:
            yield 0xFF00, one

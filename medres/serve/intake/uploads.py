"""Request bodies as files of the spool: one DICOM file, or many in a multipart body. Every byte is
counted when it comes; nothing is kept in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from medres.errors import ServeError
from medres.serve.spool import IncomingFiles, Spool, full_disk_refused

MAX_PARTS = 20_000
MAX_FIELD, MAX_FIELDS = 4096, 16  # bytes of a value, and number, of the fields of a form
CHUNK_SECONDS = 30.0  # in which a client must send its next bytes
DICOM, RELATED, FORM = "application/dicom", "multipart/related", "multipart/form-data"


@dataclass
class Upload:
    """What a body held. paths: of its files, on the disk. names: of each file, as the browser
    called it; they can hold a patient's name. fields: of a form, name -> value.
    """

    paths: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list, repr=False)
    fields: dict[str, str] = field(default_factory=dict, repr=False)


async def received_files(
    request: Request, spool: Spool, incoming: IncomingFiles, max_bytes: int
) -> list[Path]:
    """The DICOM files of a body, on the disk. Raises as `received_upload`."""
    return (await received_upload(request, spool, incoming, max_bytes)).paths


async def received_upload(
    request: Request, spool: Spool, incoming: IncomingFiles, max_bytes: int
) -> Upload:
    """The files and fields of a body; of a form, parts without a file name are fields, and a file
    input that was left empty is nothing. Raises ServeError: too_large, other_type, bad_multipart,
    too_slow, spool_full.
    """
    name, options = parse_options_header(request.headers.get("content-type", ""))
    kind = name.decode("ascii", "replace").lower()
    chunks = counted(request, spool, max_bytes)
    if kind == DICOM:
        return Upload([await _one_file(chunks, incoming)], [""])
    if kind not in (RELATED, FORM):
        raise ServeError(f"send {DICOM}, {RELATED} or {FORM}", code="other_type")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:
        raise _bad_multipart()
    parts = _Parts(incoming, is_form=kind == FORM)
    parser = MultipartParser(boundary, parts.callbacks(), max_header_count=16)
    try:
        async for chunk in chunks:
            with full_disk_refused():
                parser.write(chunk)
            await parts.sync()
        parser.finalize()
    except FormParserError:
        raise _bad_multipart() from None
    await parts.sync()
    if not parts.is_complete:
        raise _bad_multipart()
    return parts.upload


async def counted(request: Request, spool: Spool, max_bytes: int) -> AsyncIterator[bytes]:
    """The chunks of the body. Raises ServeError: too_large, too_slow, spool_full."""
    length = request.headers.get("content-length", "0")
    announced = int(length) if length.isdecimal() and len(length) < 20 else max_bytes + 1
    if announced > max_bytes:
        raise _too_large(max_bytes)
    spool.require_space(announced)
    n_bytes, checked = 0, announced
    stream = request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), CHUNK_SECONDS)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ServeError("the upload stopped", code="too_slow") from None
        except ClientDisconnect:
            raise ServeError("the client has gone", code="disconnected") from None
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        if n_bytes > checked:  # a chunked body announces no length
            checked += 64 << 20
            spool.require_space(checked - n_bytes)
        yield chunk


async def _one_file(chunks: AsyncIterator[bytes], incoming: IncomingFiles) -> Path:
    file = incoming.open()
    async for chunk in chunks:
        with full_disk_refused():
            file.write(chunk)
    return await run_in_threadpool(incoming.finish, file)


class _Parts:
    """Writes each file of a multipart body to the disk, and keeps the fields of a form."""

    def __init__(self, incoming: IncomingFiles, *, is_form: bool) -> None:
        self._incoming, self._is_form, self.is_complete = incoming, is_form, False
        self.upload = Upload()
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._file: IO[bytes] | None = None
        self._name, self._file_name = "", ""
        self._value = bytearray()
        self._done: list[tuple[str, IO[bytes]]] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._headers.clear,
            "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
            "on_header_field": lambda data, start, end: self._headers[-1][0].extend(
                data[start:end]
            ),
            "on_header_value": lambda data, start, end: self._headers[-1][1].extend(
                data[start:end]
            ),
            "on_headers_finished": self._begin,
            "on_part_data": self._write,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        disposition = next(
            (bytes(v) for k, v in self._headers if k.lower() == b"content-disposition"), b""
        )
        options = parse_options_header(disposition)[1]
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._value, self._file = bytearray(), None
        if self._is_form and not self._file_name:
            return
        if len(self.upload.paths) + len(self._done) >= MAX_PARTS:
            raise ServeError(f"more than {MAX_PARTS} files in one request", code="too_large")
        self._file = self._incoming.open()

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD or len(self.upload.fields) > MAX_FIELDS:
            raise ServeError("the fields of the form are too large", code="too_large")

    def _end(self) -> None:
        if self._file is not None:
            self._done.append((self._file_name, self._file))
        elif self._name:
            self.upload.fields[self._name] = self._value.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.is_complete = True

    async def sync(self) -> None:
        """Force the parts that have ended to the disk."""
        done, self._done = self._done, []
        for name, file in done:
            self.upload.paths.append(await run_in_threadpool(self._incoming.finish, file))
            self.upload.names.append(name)


def _too_large(max_bytes: int) -> ServeError:
    return ServeError(f"the upload has more than {max_bytes} bytes", code="too_large")


def _bad_multipart() -> ServeError:
    return ServeError("the multipart body is malformed or incomplete", code="bad_multipart")

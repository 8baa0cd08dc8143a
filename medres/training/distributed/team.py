"""What the workers of a run tell each other beside TensorFlow's collectives: each worker has one
connection to the chief, over which decisions, states and errors travel. Tensors do not.

A message is its kind (one byte), its length (8 bytes) and its content: JSON, bytes, or an error.
All workers call the same methods in the same order. A worker that fails sends its error in place of
its next message, so that every worker ends with the same code.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from data_pipelines.errors import DicomError
from medres.errors import MedresError, TrainingError

VALUE, BYTES, ERROR, BEGIN = b"v", b"b", b"e", b"s"
HEADER = struct.Struct("<cQ")
T = TypeVar("T")


class Team:
    """The workers of a run. This class is a process that trains alone; `Workers` are several.

    rank: of this process; 0 is the chief. size: the number of processes.
    """

    rank, size = 0, 1

    @property
    def is_chief(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """The chief's value (JSON), on every worker."""
        return value

    def gather(self, value: T) -> list[T]:
        """The values (JSON) of all workers by rank, on every worker."""
        return [value]

    def gather_bytes(self, content: bytes) -> list[bytes] | None:
        """The bytes of all workers by rank, on the chief; None on the others."""
        return [content]

    @contextlib.contextmanager
    def copy_of(self, file: Path | None) -> Iterator[Path | None]:
        """The chief's file, on every worker; the others see a copy with the same name, as long as
        the context lasts. None: the chief has none.
        """
        yield file

    def begin(self) -> None:
        """Wait until all workers are here, and forget what was said in an earlier run."""

    def failed(self, error: BaseException) -> None:
        """Tell the others that this worker ends with an error."""


class Workers(Team):
    """Several processes: `lines` are the connections of the chief by rank, of any other worker that
    to the chief (rank 0).
    """

    def __init__(self, rank: int, size: int, lines: dict[int, socket.socket]) -> None:
        self.rank, self.size, self.lines = rank, size, lines
        self.has_lost = False

    def share(self, value: T) -> T:
        if self.is_chief:
            self._send_all(VALUE, json.dumps(value).encode())
            return value
        return json.loads(self._receive(0))

    def gather(self, value: T) -> list[T]:
        parts = self.gather_bytes(json.dumps(value).encode())
        return self.share([json.loads(part) for part in parts or ()])

    def gather_bytes(self, content: bytes) -> list[bytes] | None:
        if not self.is_chief:
            self._send(0, BYTES, content)
            return None
        return [content, *(self._receive(rank) for rank in range(1, self.size))]

    @contextlib.contextmanager
    def copy_of(self, file: Path | None) -> Iterator[Path | None]:
        name = self.share(None if file is None else file.name)
        if file is not None and self.is_chief:
            self._send_all(BYTES, file.read_bytes())
        if name is None or self.is_chief:
            yield file
            return
        content = self._receive(0)
        with tempfile.TemporaryDirectory(prefix="medres-") as folder:
            copy = Path(folder) / name
            copy.write_bytes(content)
            yield copy

    def begin(self) -> None:
        if not self.is_chief:
            self._send(0, BEGIN, b"")
        for rank in self.lines:
            while self._message(rank)[0] != BEGIN:
                pass
        if self.is_chief:
            self._send_all(BEGIN, b"")

    def failed(self, error: BaseException) -> None:
        rank_of_error = None if isinstance(error, Reported) else self.rank
        report = json.dumps({"rank": rank_of_error, **described(error)}).encode()
        for rank in self.lines:
            with contextlib.suppress(OSError):
                send(self.lines[rank], ERROR, report)

    def reported(self, seconds: float) -> Reported | None:
        """The error that another worker has sent, if one comes within `seconds`. `has_lost` says
        afterwards whether a worker has left without one.
        """
        deadline = time.monotonic() + seconds
        for line in self.lines.values():
            try:
                while True:
                    line.settimeout(max(0.1, deadline - time.monotonic()))
                    kind, content = receive(line)
                    if kind == ERROR:
                        return reported_error(content)
            except TimeoutError:
                continue
            except (OSError, EOFError):
                self.has_lost = True
                deadline = min(deadline, time.monotonic() + 1.0)
            finally:
                with contextlib.suppress(OSError):
                    line.settimeout(None)
        return None

    def _send_all(self, kind: bytes, content: bytes) -> None:
        for rank in self.lines:
            self._send(rank, kind, content)

    def _send(self, rank: int, kind: bytes, content: bytes) -> None:
        try:
            send(self.lines[rank], kind, content)
        except OSError:
            self._lost(rank)

    def _message(self, rank: int) -> tuple[bytes, bytes]:
        try:
            return receive(self.lines[rank])
        except (OSError, EOFError):
            self._lost(rank)

    def _receive(self, rank: int) -> bytes:
        kind, content = self._message(rank)
        if kind == ERROR:
            raise reported_error(content)
        return content

    def _lost(self, rank: int) -> NoReturn:
        raise self.reported(1.0) or lost(f"worker {rank}")


class Reported(TrainingError):
    """An error of another worker, which this one ends with too."""


def lost(who: str) -> Reported:
    """The error of a run that a worker has left."""
    return Reported(
        f"{who} of this run has ended or cannot be reached any more. What was written is whole: "
        f"start the same command again on all workers, and training resumes from the newest "
        f"checkpoint",
        code="worker_lost",
    )


def described(error: BaseException) -> dict[str, str]:
    """Code and text of an error for the other workers. The text of an error without a code may
    hold anything, and stays here.
    """
    if isinstance(error, MedresError | DicomError):
        return {"code": error.code, "text": str(error)}
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return {"code": "no_space", "text": "the disk is full: free some space, and start again"}
    return {"code": "worker_failed", "text": f"internal error ({type(error).__name__})"}


def reported_error(content: bytes) -> Reported:
    """The error that another worker has sent."""
    report = json.loads(content)
    prefix = "" if report["rank"] is None else f"worker {report['rank']}: "
    return Reported(f"{prefix}{report['text']}", code=str(report["code"]))


def send(line: socket.socket, kind: bytes, content: bytes) -> None:
    """Send one message. Raises OSError."""
    line.sendall(HEADER.pack(kind, len(content)))
    line.sendall(content)


def receive(line: socket.socket, most: int | None = None) -> tuple[bytes, bytes]:
    """Kind and content of the next message. most: bytes that are accepted. Raises OSError, and
    EOFError where the connection ends or what comes is no message.
    """
    kind, size = HEADER.unpack(_exactly(line, HEADER.size))
    if kind not in (VALUE, BYTES, ERROR, BEGIN) or (most is not None and size > most):
        raise EOFError
    return kind, _exactly(line, size)


def _exactly(line: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = line.recv(min(size - len(content), 1 << 20))
        if not part:
            raise EOFError
        content += part
    return bytes(content)


def keep_alive(line: socket.socket) -> None:
    """Notice within about half a minute that a cable was cut."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

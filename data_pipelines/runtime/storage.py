"""Reading files, and members of archives, such that the time limit of a decode worker counts the
decoding, and not the wait for slow storage. A read that stands still has a limit of its own.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from data_pipelines.errors import LimitExceeded, Unreadable
from data_pipelines.runtime.archives import is_member, source_bytes
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.object_stores import is_url, opened_url

_CHUNK = 4 << 20  # bytes: each of them may take as long as the limit `stall`
_BUFFER = 1 << 16


class Cells(Protocol):
    """Some doubles: a list, or an array in shared memory."""

    def __getitem__(self, index: int, /) -> float: ...
    def __setitem__(self, index: int, value: float, /) -> None: ...


class StorageClock:
    """How long a process has waited for storage. cells: CELLS doubles, in memory that the parent of
    a worker may share: when the read that is going on began (time.monotonic(); 0: there is none),
    the seconds spent in earlier reads, and when the present file must be done, were there no
    reading (0: it has no limit of its own). on_change: called with True when a read begins and with
    False when it ends.
    """

    CELLS = 3

    def __init__(self, cells: Cells, on_change: Callable[[bool], object] | None = None) -> None:
        self.cells, self._on_change = cells, on_change or (lambda begins: None)

    def reset(self) -> None:
        self.cells[0], self.cells[1], self.cells[2] = 0.0, 0.0, 0.0

    def limit_file(self, seconds: float) -> None:
        self.cells[2] = time.monotonic() - self.waited + seconds if seconds else 0.0

    @property
    def file_deadline(self) -> float:
        """When the present file must be done; 0: it has no limit of its own."""
        until = self.cells[2]
        return until + self.waited if until else 0.0

    @property
    def reading_since(self) -> float:
        return self.cells[0]

    @property
    def waited(self) -> float:
        return self.cells[1]

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for storage."""
        self._on_change(True)
        self.cells[0] = time.monotonic()
        try:
            yield
        finally:
            # in this order, the parent never sees too short a wait
            self.cells[1] += time.monotonic() - self.cells[0]
            self.cells[0] = 0.0
            self._on_change(False)


_clock = StorageClock([0.0] * StorageClock.CELLS)


def install_clock(clock: StorageClock) -> None:
    """Measure the reads of this process with `clock` from now on: for workers."""
    global _clock
    _clock = clock


def limit_file(seconds: float) -> None:
    """From now on, a worker with an item of several files reads one of them, which may cost so many
    seconds of decoding. 0: only the time limit of the whole item counts again.
    """
    _clock.limit_file(seconds)


def open_file(path: str | Path) -> BinaryIO:
    """Open a file, or an object by its URL, to read its bytes; each read counts as waiting for
    storage. A member of an archive is read at once, see `source_bytes`. Raises OSError; for a
    member also Unreadable and LimitExceeded.
    """
    if is_url(path):
        with _clock.waiting():
            return io.BufferedReader(_TimedObject(opened_url(str(path))), _BUFFER)
    if is_member(path):
        with _clock.waiting():
            return io.BytesIO(source_bytes(path) or b"")
    with _clock.waiting():
        return io.BufferedReader(_TimedFile(path), _BUFFER)


def read_file(path: str | Path) -> bytes:
    """All bytes of a file or of a member of an archive, read once.

    Raises OSError, LimitExceeded above the limit of file size, and Unreadable for a member.
    """
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size > active_limits().file:
            raise LimitExceeded(
                f"The file has {size} bytes; the limit is {active_limits().file}. Split the file, "
                f"or exclude it."
            )
        file.seek(0)
        return file.read()


def read_source(path: str | Path) -> bytes:
    """As `read_file`, but a file that cannot be opened or read is Unreadable."""
    try:
        return read_file(path)
    except OSError as error:
        raise Unreadable(
            f"The file cannot be opened ({type(error).__name__}). Check the path and its "
            f"permissions."
        ) from None


class _TimedObject(io.RawIOBase):
    """An object of a store whose reads count as waiting, in chunks of _CHUNK bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        with _clock.waiting():
            try:
                data = self._file.read(min(len(buffer), _CHUNK))
            except Exception as error:  # noqa: BLE001  each store has its own
                raise OSError(type(error).__name__) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _TimedFile(io.FileIO):
    """A file whose reads count as waiting for storage, in chunks of _CHUNK bytes."""

    def readinto(self, buffer) -> int | None:  # type: ignore[no-untyped-def]
        with _clock.waiting():
            return super().readinto(memoryview(buffer)[:_CHUNK])

    def readall(self) -> bytes:
        chunks: list[bytes] = []
        while True:
            with _clock.waiting():
                chunk = self.read(_CHUNK)
            if not chunk:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.append(chunk)

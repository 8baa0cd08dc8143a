"""Files on this machine: a path below an allowed root that a client names, and a watched folder."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.errors import CodedError
from data_pipelines.runtime.walk import walk_files
from medres.errors import ServeError
from medres.serve.spool import TEMPORARY, IncomingFiles, Receipt, Spool, full_disk_refused
from medres.serve.telemetry import Telemetry

SCAN_SECONDS = 1.0
ACCEPTED, REFUSED = "accepted", "refused"
SOURCE = "folder"


def copy_below_roots(path: str, roots: Sequence[Path], incoming: IncomingFiles) -> list[Path]:
    """Copy a file, or the files of a folder, into the spool. Links out of the roots are refused.
    Raises ServeError (not_allowed, also where nothing is there; spool_full).
    """
    try:
        target = Path(path).resolve(strict=True)
        is_allowed = any(target.is_relative_to(root.resolve()) for root in roots)
        if not is_allowed:
            raise _not_allowed()
        walk = walk_files(target)
    except (OSError, ValueError, CodedError):
        raise _not_allowed() from None
    return [copied(walk.root / file, incoming) for file in walk.files]


def copied(path: Path, incoming: IncomingFiles) -> Path:
    """Raises ServeError: not_allowed for what is no regular file, spool_full."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise _not_allowed() from None
    with os.fdopen(handle, "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _not_allowed()
        incoming.require_space(status.st_size)
        with full_disk_refused():
            file = incoming.open()
            shutil.copyfileobj(source, file, 1 << 20)
    return incoming.finish(file)


def _not_allowed() -> ServeError:
    return ServeError(
        "the path is not a file or folder below a folder that was given with --root",
        code="not_allowed",
    )


class WatchedFolder:
    """Takes in the files of a folder once their size has not changed between two looks, and moves
    them to accepted/ or refused/ there. What is refused for the time being stays.
    """

    def __init__(self, folder: Path, spool: Spool, telemetry: Telemetry) -> None:
        self._folder, self._spool, self._telemetry = folder, spool, telemetry
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for name in (ACCEPTED, REFUSED):
            (self._folder / name).mkdir(mode=0o700, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(SCAN_SECONDS):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  the next look may succeed
                self._telemetry.log("internal_error", kind=type(error).__name__)

    def look(self) -> None:
        """Take in what has come to rest since the last look."""
        before, self._sizes = self._sizes, {}
        for name in walk_files(self._folder).files:
            if name.split("/")[0] in (ACCEPTED, REFUSED):
                continue
            path = self._folder / name
            status = path.stat()
            self._sizes[path] = size = status.st_size, status.st_mtime_ns
            if before.get(path) == size:
                self._take(path, name)

    def _take(self, path: Path, name: str) -> None:
        with self._spool.incoming() as incoming:
            try:
                receipts = self._spool.accept([copied(path, incoming)], source=SOURCE)
            except ServeError as error:
                receipts = [Receipt(error.code, str(error))]
        self._telemetry.received(receipts, SOURCE)
        code = receipts[0].code
        if code in TEMPORARY:
            return
        target = self._folder / (REFUSED if code else ACCEPTED) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        self._sizes.pop(path, None)

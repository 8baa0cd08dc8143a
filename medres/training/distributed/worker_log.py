"""The log of each worker of a run: OUT/workers/worker-RANK.log, in which a line has the time in
UTC. The chief also shows its lines as a process that trains alone does; the others show none.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from data_pipelines.runtime.progress import ProgressReporter, Update

FOLDER = "workers"


class WorkerLog(ProgressReporter):
    """Lines go to the log, once `open` was called, and to `shown`."""

    def __init__(self, rank: int, shown: ProgressReporter) -> None:
        self.rank, self.shown = rank, shown
        self.live = shown.live
        self._file: Path | None = None
        self._pending: list[str] = []

    def open(self, out: Path) -> None:
        """Begin the log in a run folder, with what was said before."""
        folder = out / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"worker-{self.rank}.log"
        self._write(f"worker {self.rank} on {socket.gethostname()}")
        for text in self._pending:
            self._write(text)

    @contextlib.contextmanager
    def task(self, name: str) -> Iterator[Update]:
        with self.shown.task(name) as update:
            yield update

    def line(self, text: str) -> None:
        self.shown.line(text)
        self._write(text)

    def _write(self, text: str) -> None:
        if self._file is None:
            self._pending.append(text)
            return
        time = datetime.now(UTC).isoformat(timespec="seconds")
        with self._file.open("a") as file:
            file.write(f"{time} {text}\n")

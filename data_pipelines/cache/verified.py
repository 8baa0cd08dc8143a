"""Which files of a cache were hashed already, so that opening a cache again reads no byte of them.

A file whose hash was right is known by size, modification time, time of status change and inode:
whatever writes to it changes one of them. Only a file that is older than TOO_NEW_S is remembered,
since two writes within one tick of the clock look alike. What changes no time, such as a decaying
disk, is found by `verify_caches`, which hashes every byte.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from data_pipelines.runtime.atomic_files import file_sha256, write_atomic

NAME = "verified.json"
TOO_NEW_S = 2.0


class VerifiedFiles:
    """The files of a cache folder that were hashed. A folder that cannot be written to remembers
    none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._states, self._changed = folder, _read(folder), False

    def has_digest(self, path: Path, digest: str) -> bool:
        """Whether the SHA-256 of a file is `digest`; it is computed unless it is known."""
        state = _state(path)
        if self._states.get(path.name) == [*state, digest]:
            return True
        if file_sha256(path) != digest:
            return False
        if state == _state(path) and time.time_ns() - max(state[1:3]) > TOO_NEW_S * 1e9:
            self._states[path.name] = [*state, digest]
            self._changed = True
        return True

    def save(self) -> None:
        """Remember the files for the next process."""
        if self._changed:
            with contextlib.suppress(OSError):
                write_atomic(self._folder / NAME, json.dumps(self._states).encode())


def _read(folder: Path) -> dict[str, list[int | str]]:
    try:
        states = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return states if isinstance(states, dict) else {}


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]

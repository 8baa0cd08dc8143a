"""The server's database: SQLite in WAL mode, one file of the spool. A transaction that has returned
is on the disk (`synchronous=FULL`).

States of a study: open (images may still come) or closed (a job has all of them). States of a job:
ready -> scored -> made -> sent, or dead after too many attempts to send.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

READY, SCORED, MADE, SENT, DEAD = STATES = ("ready", "scored", "made", "sent", "dead")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS study (
    uid TEXT PRIMARY KEY,
    patient TEXT NOT NULL,          -- keyed pseudonym of issuer and PatientID
    touched REAL NOT NULL,          -- when the last new image came, seconds since 1970
    is_open INTEGER NOT NULL,
    is_asked INTEGER NOT NULL,      -- somebody said that it is complete
    expected INTEGER                -- images that it has when it is complete, if somebody said so
);
CREATE TABLE IF NOT EXISTS instance (
    sop TEXT PRIMARY KEY,
    study TEXT NOT NULL REFERENCES study (uid),
    sha256 TEXT NOT NULL,           -- of the data set and its transfer syntax
    file TEXT NOT NULL,             -- name in files/; '' after the retention time
    bytes INTEGER NOT NULL,
    modality TEXT NOT NULL,
    body_part TEXT NOT NULL,
    view TEXT NOT NULL,
    received REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS instance_study ON instance (study);
CREATE INDEX IF NOT EXISTS instance_held ON instance (bytes) WHERE file != '';
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY,            -- keyed pseudonym of result_key
    result_key TEXT NOT NULL,
    study TEXT NOT NULL REFERENCES study (uid),
    revision INTEGER NOT NULL,
    predecessor TEXT REFERENCES job (id),
    instances TEXT NOT NULL,        -- JSON, the SOP Instance UIDs
    model TEXT NOT NULL,            -- SHA-256 of the model file; '' where no model was chosen
    state TEXT NOT NULL,
    result TEXT,                    -- JSON, from the state scored on
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    changed REAL NOT NULL,
    failure TEXT,                   -- code of the last attempt at a step that failed
    refused_objects TEXT,           -- JSON, role and code of each object that could not be made
    UNIQUE (study, revision)
);
CREATE INDEX IF NOT EXISTS job_state ON job (state, next_try);
CREATE TABLE IF NOT EXISTS made_object (
    sop TEXT PRIMARY KEY,
    job TEXT NOT NULL REFERENCES job (id),
    file TEXT NOT NULL,             -- name in objects/<job>/
    is_sent INTEGER NOT NULL DEFAULT 0,
    role TEXT NOT NULL DEFAULT ''   -- report, overlay or segmentation
);
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    fields TEXT NOT NULL,
    hash TEXT NOT NULL              -- HMAC of the hash before and of this row
);
"""

#: columns that databases of earlier versions do not have yet
_ADDED: Final = (
    ("study", "expected", "INTEGER"),
    ("job", "failure", "TEXT"),
    ("job", "refused_objects", "TEXT"),
    ("made_object", "role", "TEXT NOT NULL DEFAULT ''"),
)


class Database:
    """One connection that all threads share, one at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)
        for table, column, definition in _ADDED:
            columns = {row["name"] for row in self.rows(f"PRAGMA table_info({table})")}
            if column not in columns:
                self.execute(f"ALTER TABLE {table} ADD COLUMN {column} {definition}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements of the block, or none. A block within a block belongs to the outer one."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def execute(self, statement: str, *values: Any) -> int:
        """The number of rows that the statement changed."""
        with self._lock:
            return self._connection.execute(statement, values).rowcount

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        with self._lock:
            return self._connection.execute(query, values).fetchone()

    def value(self, query: str, *values: Any) -> Any:
        """The only value of the only row."""
        row = self.row(query, *values)
        return None if row is None else row[0]

    def move(self, job: str, state: str, **columns: str | float | None) -> None:
        """Give a job another state, and new values in other columns. It is due at once, unless
        next_try is one of them.
        """
        columns = {"next_try": 0, **columns}
        names = "".join(f", {name} = ?" for name in columns)
        self.execute(
            f"UPDATE job SET state = ?, changed = ?{names} WHERE id = ?",
            state,
            time.time(),
            *columns.values(),
            job,
        )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

"""The audit log: who sent what, what was refused, which model answered. Each row carries an
HMAC-SHA256 of itself and of the row before, so that a changed, removed or inserted row is found.

The log is a table of the database: an event and what it is about are one transaction. It holds
codes, counts and keyed pseudonyms only. Whoever has the key of the spool can forge it; note the
printed head elsewhere to guard against that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.pseudonyms import KEY_NAME, find_key
from medres.errors import ServeError
from medres.serve.database import Database

_FIRST = "0" * 64


class AuditState(NamedTuple):
    """n_events: int. head: str, the hash of the last row."""

    n_events: int
    head: str


class AuditLog:
    """Appends events, and checks the chain. secret: the key of the spool."""

    def __init__(self, database: Database, secret: bytes) -> None:
        self.database, self._secret = database, secret

    def add(self, event: str, **fields: str | int | float | None) -> None:
        """Append one event; in the transaction of the caller, if there is one. fields: no
        identifiers, no free text of a file.
        """
        with self.database.transaction():
            row = self.database.row("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
            last = self.database.value("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")
            number, previous = (last or 0) + 1, row["hash"] if row else _FIRST
            at, text = time.time(), json.dumps(fields, sort_keys=True, allow_nan=False)
            self.database.execute(
                "INSERT INTO audit (number, at, event, fields, hash) VALUES (?, ?, ?, ?, ?)",
                number,
                at,
                event,
                text,
                self._hash(previous, number, at, event, text),
            )

    def verify(self) -> AuditState:
        """Raises ServeError (code audit_broken) with the number of the first row that is missing
        or altered.
        """
        head, expected = _FIRST, 1
        with self.database.transaction():
            rows = self.database.rows("SELECT * FROM audit ORDER BY number")
            last = self.database.value("SELECT seq FROM sqlite_sequence WHERE name = 'audit'") or 0
        for row in rows:
            computed = self._hash(head, row["number"], row["at"], row["event"], row["fields"])
            if row["number"] != expected or not hmac.compare_digest(computed, row["hash"]):
                raise _broken(expected)
            head, expected = row["hash"], expected + 1
        if expected != last + 1:
            raise _broken(expected)
        return AuditState(len(rows), head)

    def events(self) -> list[dict[str, Any]]:
        """Every row: number, at, event, fields, hash."""
        rows = self.database.rows("SELECT * FROM audit ORDER BY number")
        return [dict(row) | {"fields": json.loads(row["fields"])} for row in rows]

    def _hash(self, previous: str, number: int, at: float, event: str, fields: str) -> str:
        message = "\x1f".join((previous, str(number), repr(at), event, fields))
        return hmac.new(self._secret, message.encode(), hashlib.sha256).hexdigest()


def open_log(spool: Path) -> AuditLog:
    """The log of a spool folder, also while its server runs."""
    return AuditLog(Database(spool / "spool.db"), find_key(spool / KEY_NAME).secret)


def _broken(number: int) -> ServeError:
    return ServeError(
        f"the audit log is broken at event {number}: the row is missing or was altered after it "
        f"was written",
        code="audit_broken",
    )

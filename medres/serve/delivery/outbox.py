"""The outbox: objects that were made are sent until they have arrived, with growing pauses. The
rows of the database are the outbox, so that a crash forgets nothing; an object that is sent twice
has the same UID and the same bytes, so that a PACS holds it once.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from data_pipelines.errors import CodedError
from medres.serve.database import DEAD, MADE, SCORED, SENT
from medres.serve.spool import Spool, objects_folder
from medres.serve.telemetry import Telemetry

#: tries while nobody answers (about a day), and while the destination says no (about 40 minutes)
MAX_SENDINGS, MAX_REFUSALS = 150, 12
FIRST_WAIT, LONGEST_WAIT = 2.0, 600.0  # seconds between two tries; doubled each time
JITTER = 0.2  # share of a wait by which it is longer or shorter, so that tries do not come together
UNREACHABLE = "unreachable"  # the code of a destination that does not answer
Send = Callable[[Path], None]


class Outbox:
    """Sends the objects of one job after the other.

    send: delivers the file of one object, or raises ServeError (unreachable, refused_by_pacs); None
    where there is nowhere to send to. jitter: the factor of the next wait.
    """

    def __init__(
        self,
        spool: Spool,
        telemetry: Telemetry,
        send: Send | None,
        *,
        jitter: Callable[[], float] = lambda: random.uniform(1 - JITTER, 1 + JITTER),
    ) -> None:
        self._spool, self._telemetry, self._send, self._jitter = spool, telemetry, send, jitter

    def send_next(self) -> bool:
        """made -> sent: one job. Whether there was one."""
        job = self._spool.database.row(
            "SELECT * FROM job WHERE state = ? AND next_try <= ?"
            " ORDER BY next_try, created LIMIT 1",
            MADE,
            time.time(),
        )
        if job is None:
            return False
        try:
            n_objects = self._send_objects(job)
        except Exception as error:  # noqa: BLE001  whatever the network does
            self._send_later(job, error)
            return True
        with self._spool.database.transaction():
            self._spool.database.move(job["id"], SENT, failure=None)
            if self._send is not None:
                self._spool.audit.add("sent", job=job["id"], objects=n_objects)
        return True

    def _send_objects(self, job: sqlite3.Row) -> int:
        """The number of objects of the job."""
        objects = self._spool.database.rows(
            "SELECT sop, file, is_sent FROM made_object WHERE job = ? ORDER BY file", job["id"]
        )
        for one in objects:
            if self._send is None or one["is_sent"]:
                continue
            self._send(objects_folder(self._spool, job["id"]) / one["file"])
            self._telemetry.delivered("delivered")
            self._spool.database.execute(
                "UPDATE made_object SET is_sent = 1 WHERE sop = ?", one["sop"]
            )
            # it answers again: what waits for that need not wait any longer
            self._spool.database.execute(
                "UPDATE job SET next_try = 0 WHERE state = ? AND failure = ? AND next_try > 0",
                MADE,
                UNREACHABLE,
            )
        return len(objects)

    def _send_later(self, job: sqlite3.Row, error: Exception) -> None:
        attempts = job["attempts"] + 1
        code = UNREACHABLE if isinstance(error, OSError) else failure_code(error)
        self._telemetry.delivered(code)
        self._telemetry.log("not_sent", job=job["id"], code=code, attempts=attempts)
        if attempts >= (MAX_SENDINGS if code == UNREACHABLE else MAX_REFUSALS):
            bury(self._spool, job["id"], code)
            return
        wait = wait_seconds(attempts) * self._jitter()
        self._spool.database.move(
            job["id"], MADE, attempts=attempts, next_try=time.time() + wait, failure=code
        )


def wait_seconds(attempts: int) -> float:
    """The pause after so many tries that failed.

    >>> [wait_seconds(n) for n in (1, 2, 3, 100)]
    [2.0, 4.0, 8.0, 600.0]
    """
    return min(FIRST_WAIT * 2 ** min(attempts - 1, 16), LONGEST_WAIT)


def failure_code(error: Exception) -> str:
    """The code of an error, or the name of its class; its text could hold a patient's data."""
    return error.code if isinstance(error, CodedError) and error.code else type(error).__name__


def bury(spool: Spool, job: str, failure: str) -> None:
    """Make a job a dead letter. failure: the code of what went wrong last."""
    with spool.database.transaction():
        spool.database.move(job, DEAD, failure=failure)
        spool.audit.add("dead", job=job, code=failure)


def dead_letters(spool: Spool) -> list[sqlite3.Row]:
    """The jobs whose objects were not made or not delivered, the newest first: id, study, failure
    (a code), attempts, changed, n_objects, n_sent.
    """
    return spool.database.rows(
        "SELECT id, study, failure, attempts, changed,"
        " (SELECT count(*) FROM made_object WHERE job = job.id) AS n_objects,"
        " (SELECT count(*) FROM made_object WHERE job = job.id AND is_sent) AS n_sent"
        " FROM job WHERE state = ? ORDER BY changed DESC",
        DEAD,
    )


def retry_dead_letter(spool: Spool, job: str) -> bool:
    """Send the objects of a dead letter again from now on, or make them, if there are none.
    Whether the job was a dead letter.
    """
    database = spool.database
    with database.transaction():
        if not database.row("SELECT 1 FROM job WHERE id = ? AND state = ?", job, DEAD):
            return False
        is_made = database.row("SELECT 1 FROM made_object WHERE job = ?", job)
        database.move(job, MADE if is_made else SCORED, attempts=0, next_try=0, failure=None)
        spool.audit.add("retried", job=job)
    return True

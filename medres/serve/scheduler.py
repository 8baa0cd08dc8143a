"""Carries every job through its states: ready -> scored -> made -> sent. Each step is written to
the database when it is done, and done again if a crash came before; every step gives the same
result again.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from data_pipelines.errors import CodedError
from medres.errors import ServeError
from medres.serve.completion import close_due_studies, work_folder
from medres.serve.database import MADE, READY, SCORED, SENT
from medres.serve.delivery.outbox import (
    MAX_SENDINGS,
    Outbox,
    Send,
    bury,
    wait_seconds,
)
from medres.serve.model_process import CRASHED, INTERNAL, SPOOL_FULL, TIME_LIMIT
from medres.serve.page.drawing import Drawing
from medres.serve.parts import EarlierResult, MadeObject, MakeOrder
from medres.serve.results import FILES_EXPIRED, MODEL_GONE, refusal_of, stored_result
from medres.serve.routing import ServedModel
from medres.serve.spool import Spool, is_disk_full, objects_folder
from medres.serve.telemetry import Telemetry

TICK_SECONDS = 0.5  # how often quiet times, retries and retention are looked at
MAX_CRASHES, MAX_STARTS = 3, 20  # attempts at one step; starts of a step that ended the server
OBJECT_SECONDS = 2.0  # objects that have waited so long take turns with studies
LONGEST_PAUSE = 30.0  # seconds after a fault that cannot even be noted in the database
FINAL = frozenset({TIME_LIMIT, FILES_EXPIRED})  # another attempt would end in the same way


class Model(Protocol):
    """What the scheduler needs of a model; `ModelProcess` is one."""

    @property
    def facts(self) -> ServedModel: ...

    def predict(self, folder: Path, seconds: float) -> list[dict[str, Any]]: ...

    def make(self, order: MakeOrder, seconds: float) -> list[MadeObject]: ...

    def draw(self, folder: Path, seconds: float) -> list[Drawing]: ...

    def close(self) -> None: ...


class Scheduler:
    """One thread per model, one for the clock, one for the outbox.

    makes_objects: whether the models make DICOM objects. send: see `Outbox`.
    """

    def __init__(
        self,
        spool: Spool,
        models: Sequence[Model],
        telemetry: Telemetry,
        *,
        quiet_seconds: float = 60.0,
        predict_seconds: float = 600.0,
        keep_hours: float = 24.0,
        makes_objects: bool = False,
        send: Send | None = None,
    ) -> None:
        self.spool, self.telemetry = spool, telemetry
        self._models = {model.facts.sha256: model for model in models}
        self._quiet_seconds, self._predict_seconds = quiet_seconds, predict_seconds
        self._keep_seconds = keep_hours * 3600
        self._makes_objects = makes_objects
        self._outbox = Outbox(spool, telemetry, send)
        self._news, self._stopping = threading.Condition(), False
        self.listeners: list[Callable[[str], None]] = []  # are told the id of each answered job
        self._threads: list[threading.Thread] = []
        self._failures: Counter[str] = Counter()  # of a job that is answered
        self._faults: Counter[str] = Counter()

    @property
    def models(self) -> list[Model]:
        """In the order in which they were given."""
        return list(self._models.values())

    @property
    def served(self) -> list[ServedModel]:
        return [model.facts for model in self.models]

    def start(self) -> None:
        give_back_unserved(self.spool, self.served)
        for model in self._models.values():
            self._run(self._answer_all, model)
        self._run(self._keep_time)
        self._run(self._send_all)

    def stop(self, seconds: float = 30.0) -> None:
        """Let the present steps end, at most for so long."""
        with self._news:
            self._stopping = True
            self._news.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def wake(self) -> None:
        """There may be a new job."""
        with self._news:
            self._news.notify_all()

    def replace_model(self, old_sha256: str, model: Model) -> None:
        """Serve another model file from now on. The old model answers the jobs that it has, and
        ends then.
        """
        new = model.facts.sha256
        if new == old_sha256:
            model.close()
            return
        with self.spool.database.transaction():
            self._models = {
                new if sha256 == old_sha256 else sha256: model if sha256 == old_sha256 else other
                for sha256, other in self._models.items()
            }
            self.spool.audit.add("model_replaced", old=old_sha256, new=new)
        self._run(self._answer_all, model)
        self.wake()

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _pause(self, seconds: float) -> None:
        with self._news:
            if not self._stopping:
                self._news.wait(seconds)

    def _next_job(self, model: str, *, after: str = SCORED) -> sqlite3.Row | None:
        """The next step of a model; `after` is the state of the job before. Studies come before
        objects, but after a study it is the turn of objects that have waited long: so neither
        waits for all of the others.
        """
        overdue = time.time() - OBJECT_SECONDS if after == READY else 0.0
        return self.spool.database.row(
            "SELECT * FROM job WHERE model = ? AND next_try <= ? AND state IN (?, ?)"
            " ORDER BY (state = ? AND changed <= ?) DESC, state = ? DESC, created LIMIT 1",
            model,
            time.time(),
            READY,
            SCORED,
            SCORED,
            overdue,
            READY,
        )

    def _has(self, model: str) -> bool:
        """Whether a model has jobs, also such as wait for another attempt."""
        query = "SELECT 1 FROM job WHERE model = ? AND state IN (?, ?) LIMIT 1"
        return self.spool.database.row(query, model, READY, SCORED) is not None

    def _answer_all(self, model: Model) -> None:
        """The thread of one model."""
        sha256, last = model.facts.sha256, SCORED
        while not self._stopping:
            job = self._next_job(sha256, after=last)
            if job is None and self._models.get(sha256) is not model and not self._has(sha256):
                break
            if job is None:
                self._pause(TICK_SECONDS)
            else:
                last = job["state"]
                self._guarded(self.answer if last == READY else self.make, model, job)
        model.close()

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:
        """A fault of our own must not end the thread: the longer it lasts, the longer the pause."""
        try:
            step(*arguments)
        except Exception as error:  # noqa: BLE001
            self.telemetry.log("internal_error", kind=type(error).__name__)
            self._faults[step.__name__] += 1
            pause = TICK_SECONDS * 2 ** min(self._faults[step.__name__], 10)
            self._pause(min(pause, LONGEST_PAUSE))
        else:
            self._faults[step.__name__] = 0

    def answer(self, model: Model, job: sqlite3.Row) -> None:
        """ready -> scored; sent, where no objects are made. A step that fails is done again after
        a pause, and is a refusal at last.
        """
        database, since = self.spool.database, time.monotonic()
        try:
            database.execute("UPDATE job SET attempts = attempts + 1 WHERE id = ?", job["id"])
            if job["attempts"] >= MAX_STARTS:
                raise ServeError("the study was begun too often", code=CRASHED)
            with work_folder(self.spool, job) as folder:
                predictions = model.predict(folder, self._predict_seconds)
        except Exception as error:  # noqa: BLE001  of this study, not of the others
            code = self._code(error)
            self._failures[job["id"]] += 1
            if self._waits(job, code, self._failures[job["id"]], job["attempts"]):
                return
            predictions = [refusal_of(code)]
        self._failures.pop(job["id"], None)
        answered = next((one["code"] for one in predictions if one["code"]), None)
        with database.transaction():
            # without objects there is nothing to send, and none are made of files that are gone
            makes_objects = self._makes_objects and answered != FILES_EXPIRED
            state = SCORED if makes_objects else SENT
            result = stored_result(predictions, model.facts)
            database.move(job["id"], state, attempts=0, failure=None, result=result)
            self.spool.audit.add("answered", job=job["id"], model=model.facts.sha256, code=answered)
        self.telemetry.answered(answered, time.monotonic() - since, job["id"])
        for listener in self.listeners:
            listener(job["id"])

    def _code(self, error: Exception) -> str:
        """The code of a failed step; its text could hold a patient's data."""
        if isinstance(error, CodedError):
            return error.code
        self.telemetry.log("internal_error", kind=type(error).__name__)
        return SPOOL_FULL if is_disk_full(error) else INTERNAL

    def _waits(self, job: sqlite3.Row, code: str, failures: int, attempts: int) -> bool:
        """Whether a step that failed so often is tried again, which then waits for its time. A full
        disk is waited for about a day. attempts: of the job, to be noted; a full disk, or a crash
        of the server, is no fault of the study.
        """
        most = MAX_SENDINGS if code == SPOOL_FULL else MAX_CRASHES
        is_begun_too_often = code != SPOOL_FULL and job["attempts"] >= MAX_STARTS
        if code in FINAL or is_begun_too_often or failures >= most:
            return False
        self.spool.database.execute(
            "UPDATE job SET attempts = ?, next_try = ?, failure = ? WHERE id = ?",
            attempts,
            time.time() + wait_seconds(failures),
            code,
            job["id"],
        )
        return True

    def make(self, model: Model, job: sqlite3.Row) -> None:
        """scored -> made: the DICOM objects of the result. A step that fails is done again after a
        pause, and leaves a dead letter at last.
        """
        try:
            with work_folder(self.spool, job) as folder:
                made = model.make(self._order(job, folder), self._predict_seconds)
            self._note_made(job, made)
        except Exception as error:  # noqa: BLE001  of this study, not of the others
            code, failures = self._code(error), job["attempts"] + 1
            self.telemetry.log("not_made", job=job["id"], code=code, attempts=failures)
            if not self._waits(job, code, failures, failures):
                bury(self.spool, job["id"], code)
            return
        self.wake()

    def _note_made(self, job: sqlite3.Row, made: Sequence[MadeObject]) -> None:
        database = self.spool.database
        objects = [one for one in made if not one.get("code")]
        left_out = [{"role": one["role"], "code": one["code"]} for one in made if one.get("code")]
        with database.transaction():
            for one in objects:
                database.execute(
                    "INSERT OR REPLACE INTO made_object (sop, job, file, role) VALUES (?, ?, ?, ?)",
                    one["sop"],
                    job["id"],
                    one["file"],
                    one["role"],
                )
            database.move(
                job["id"], MADE, attempts=0, failure=None, refused_objects=json.dumps(left_out)
            )
            self.spool.audit.add("made", job=job["id"], objects=len(objects))

    def _order(self, job: sqlite3.Row, folder: Path) -> MakeOrder:
        predictions = json.loads(job["result"])["predictions"]
        by_server = [one for one in predictions if "probabilities" not in one]
        return MakeOrder(
            folder=str(folder),
            out=str(objects_folder(self.spool, job["id"])),
            key=job["result_key"],
            revision=job["revision"],
            predecessor=self._earlier(job),
            created=job["changed"],
            refusal=(by_server[0]["refused"], by_server[0]["code"]) if by_server else None,
        )

    def _earlier(self, job: sqlite3.Row) -> EarlierResult | None:
        """The revision before, if it has objects."""
        row = self.spool.database.row(
            "SELECT result_key, result FROM job WHERE id = ? AND EXISTS"
            " (SELECT 1 FROM made_object WHERE job = job.id)",
            job["predecessor"],
        )
        if row is None:
            return None
        predictions = json.loads(row["result"])["predictions"]
        return EarlierResult(row["result_key"], [one.get("series_uids", []) for one in predictions])

    def send_next(self) -> bool:
        """made -> sent: one job. Whether there was one."""
        return self._outbox.send_next()

    def _send_all(self) -> None:
        while not self._stopping:
            if not self.send_next():
                self._pause(TICK_SECONDS)

    def _keep_time(self) -> None:
        while not self._stopping:
            self._guarded(self.tick)
            self._pause(TICK_SECONDS)

    def tick(self) -> None:
        """What only the clock brings: quiet times, refused routes, retention."""
        if close_due_studies(self.spool, self.served, self._quiet_seconds):
            self.wake()
        with self.spool.database.transaction():
            while job := self._next_job(""):
                self.spool.database.move(job["id"], SENT)
        remove_expired(self.spool, self._keep_seconds)


def give_back_unserved(spool: Spool, served: Sequence[ServedModel]) -> None:
    """At the start: jobs whose model is no longer served are refused, and their studies get a new
    revision from the models that are.
    """
    database, known = spool.database, {model.sha256 for model in served}
    with database.transaction():
        for job in database.rows("SELECT * FROM job WHERE state IN (?, ?)", READY, SCORED):
            if job["model"] in known or not job["model"]:
                continue
            if job["state"] == SCORED:  # its objects can no longer be made
                bury(spool, job["id"], MODEL_GONE)
            else:
                result = stored_result([refusal_of(MODEL_GONE)], None)
                database.execute("UPDATE job SET result = ? WHERE id = ?", result, job["id"])
                database.execute(
                    "UPDATE study SET is_open = 1, is_asked = 1 WHERE uid = ?", job["study"]
                )
                spool.audit.add("answered", job=job["id"], model=job["model"], code=MODEL_GONE)
                database.execute("UPDATE job SET state = ? WHERE id = ?", SENT, job["id"])


def remove_expired(spool: Spool, keep_seconds: float) -> None:
    """Remove the files of studies whose results were all sent so long ago; hashes and results
    stay, so that a re-sent image is known.
    """
    studies = spool.database.rows(
        "SELECT study FROM job GROUP BY study HAVING max(changed) <= ? AND min(state = ?)"
        " INTERSECT SELECT study FROM instance WHERE file != ''"
        " EXCEPT SELECT uid FROM study WHERE is_open",
        time.time() - keep_seconds,
        SENT,
    )
    for row in studies:
        study = row["study"]
        with spool.database.transaction():
            files = spool.database.rows(
                "SELECT file FROM instance WHERE study = ? AND file != ''", study
            )
            jobs = spool.database.rows("SELECT id FROM job WHERE study = ?", study)
            spool.database.execute("UPDATE instance SET file = '' WHERE study = ?", study)
            pseudonym = spool.key.pseudonym("study", study)
            spool.audit.add("removed", study=pseudonym, files=len(files))
        for file in files:
            (spool.folder / "files" / file["file"]).unlink(missing_ok=True)
        for job in jobs:
            shutil.rmtree(objects_folder(spool, job["id"]), ignore_errors=True)

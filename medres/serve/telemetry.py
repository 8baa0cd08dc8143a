"""What operators see: counters for Prometheus, and one JSON line per event on standard error.

Neither holds an identifier: labels and fields come from closed lists, and a study appears as a
keyed pseudonym.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import IO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from medres.serve.database import STATES
from medres.serve.spool import Receipt, Spool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Telemetry:
    """The counters and the log of one server. stream: of the log; None is standard error."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream, self._lock = stream, threading.Lock()
        self.registry = registry = CollectorRegistry()
        self._files = Counter(
            "medres_files", "Received files", ["source", "outcome"], registry=registry
        )
        self._requests = Counter("medres_http_requests", "Requests", ["status"], registry=registry)
        self._answers = Counter("medres_answers", "Answered jobs", ["code"], registry=registry)
        self._deliveries = Counter(
            "medres_deliveries", "Objects sent to the PACS", ["outcome"], registry=registry
        )
        self._seconds = Histogram(
            "medres_predict_seconds", "Seconds per prediction", registry=registry
        )
        self._jobs = Gauge("medres_jobs", "Jobs by state", ["state"], registry=registry)
        self._waiting = Gauge("medres_studies_waiting", "Studies not yet read", registry=registry)
        self._bytes = Gauge("medres_spool_bytes", "Bytes of received files", registry=registry)

    def log(self, event: str, **fields: str | int | float | None) -> None:
        """fields: codes, counts, pseudonyms."""
        line = json.dumps({"at": round(time.time(), 3), "event": event, **fields})
        with self._lock:
            print(line, file=self._stream or sys.stderr, flush=True)

    def received(self, receipts: list[Receipt], source: str) -> None:
        for receipt in receipts:
            outcome = receipt.code or ("stored" if receipt.is_new else "duplicate")
            self._files.labels(source, outcome).inc()
            if receipt.code:
                self.log("refused", source=source, code=receipt.code)

    def answered(self, code: str | None, seconds: float, job: str) -> None:
        self._answers.labels(code or "").inc()
        self._seconds.observe(seconds)
        self.log("answered", job=job, code=code, seconds=round(seconds, 3))

    def delivered(self, outcome: str) -> None:
        """outcome: delivered, or the code of a failure."""
        self._deliveries.labels(outcome).inc()

    def requested(self, status: int) -> None:
        self._requests.labels(str(status)).inc()

    def metrics(self, spool: Spool) -> bytes:
        """The text that Prometheus reads."""
        rows = spool.database.rows("SELECT state, count(*) AS n FROM job GROUP BY state")
        counts = {row["state"]: row["n"] for row in rows}
        for state in STATES:
            self._jobs.labels(state).set(counts.get(state, 0))
        self._waiting.set(spool.n_waiting())
        held = spool.database.value("SELECT total(bytes) FROM instance WHERE file != ''")
        self._bytes.set(held)
        return generate_latest(self.registry)

"""Whether the server is well, in figures and words."""

from __future__ import annotations

import shutil
from importlib import metadata
from typing import NamedTuple

from medres.errors import ServeError
from medres.serve.database import STATES
from medres.serve.page.words import STATES as STATE_TEXTS
from medres.serve.scheduler import Scheduler
from medres.serve.settings import Settings


class Health(NamedTuple):
    """problem: why no files are taken in at present, '' if they are. jobs: state in words ->
    number.
    """

    problem: str
    n_waiting: int
    max_waiting: int
    held_bytes: int
    max_bytes: int
    free_bytes: int
    keep_hours: float
    jobs: dict[str, int]
    n_models: int
    n_events: int
    version: str


def health(scheduler: Scheduler, settings: Settings) -> Health:
    spool = scheduler.spool
    rows = spool.database.rows("SELECT state, count(*) AS n FROM job GROUP BY state")
    counts = {row["state"]: row["n"] for row in rows}
    try:
        spool.require_space(0)
        problem = ""
    except ServeError as error:
        problem = str(error)
    return Health(
        problem=problem,
        n_waiting=spool.n_waiting(),
        max_waiting=spool.capacity.studies,
        held_bytes=int(spool.database.value("SELECT total(bytes) FROM instance WHERE file != ''")),
        max_bytes=spool.capacity.n_bytes,
        free_bytes=shutil.disk_usage(spool.folder).free,
        keep_hours=settings.keep_hours,
        jobs={STATE_TEXTS[state]: counts.get(state, 0) for state in STATES},
        n_models=len(scheduler.models),
        n_events=spool.database.value("SELECT count(*) FROM audit"),
        version=metadata.version("medres"),
    )

"""When a study is complete, the jobs that follow from it, and the files of a job.

DICOM has no "complete" study. It is complete after a quiet time without a new image, when a
client says so, or when it has as many images as a client said. An image that comes later makes a
new revision that names its predecessor.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from medres.errors import ServeError
from medres.results.identity import result_key
from medres.serve.database import READY, SCORED
from medres.serve.results import FILES_EXPIRED, refusal_of, stored_result
from medres.serve.routing import ServedModel, choose_model
from medres.serve.spool import Spool


def close_due_studies(
    spool: Spool, models: Sequence[ServedModel], quiet_seconds: float
) -> list[str]:
    """Make a job of every open study that is complete. Returns the ids of the new jobs."""
    due = spool.database.rows(
        "SELECT uid FROM study WHERE is_open AND (is_asked OR touched <= ? OR expected <="
        " (SELECT count(*) FROM instance WHERE study = study.uid))",
        time.time() - quiet_seconds,
    )
    return [close_study(spool, models, row["uid"]) for row in due]


def announce_count(spool: Spool, study: str, images: int | None) -> bool:
    """Note how many images an open study will have. Whether all are held; None: they are."""
    database = spool.database
    with database.transaction():
        held = database.value("SELECT count(*) FROM instance WHERE study = ?", study)
        if images is None or held >= images:
            return True
        database.execute(
            "UPDATE study SET expected = ?, is_open = 1, touched = ? WHERE uid = ?",
            images,
            time.time(),
            study,
        )
    return False


def close_study(spool: Spool, models: Sequence[ServedModel], study: str) -> str:
    """Make a job of all images of the study, unless its result key is known. Returns its id."""
    database = spool.database
    with database.transaction():
        images = database.rows("SELECT * FROM instance WHERE study = ? ORDER BY sop", study)
        choice = choose_model(models, images)
        sha256, preprocessing = (
            ("", "") if isinstance(choice, str) else (choice.sha256, choice.preprocessing_sha256)
        )
        key = result_key(sha256, preprocessing, [(row["sop"], row["sha256"]) for row in images])
        job = spool.key.pseudonym("result", key, study)
        database.execute(
            "UPDATE study SET is_open = 0, is_asked = 0, expected = NULL WHERE uid = ?", study
        )
        if database.row("SELECT 1 FROM job WHERE id = ?", job):
            return job
        last = latest_job(spool, study)
        revision = last["revision"] + 1 if last else 1
        database.execute(
            "INSERT INTO job (id, result_key, study, revision, predecessor, instances, model,"
            " state, result, created, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            job,
            key,
            study,
            revision,
            last["id"] if last else None,
            json.dumps([row["sop"] for row in images]),
            sha256,
            SCORED if isinstance(choice, str) else READY,
            stored_result([refusal_of(choice)], None) if isinstance(choice, str) else None,
            time.time(),
            time.time(),
        )
        spool.audit.add(
            "study_complete",
            job=job,
            study=spool.key.pseudonym("study", study),
            images=len(images),
            revision=revision,
            model=sha256 or None,
        )
    return job


def latest_job(spool: Spool, study: str) -> sqlite3.Row | None:
    return spool.database.row(
        "SELECT * FROM job WHERE study = ? ORDER BY revision DESC LIMIT 1", study
    )


@contextlib.contextmanager
def work_folder(spool: Spool, job: sqlite3.Row) -> Iterator[Path]:
    """The files of a job under names without identifiers, while the block runs; images that come
    meanwhile are not among them. Raises ServeError (files_expired).
    """
    sops = {*json.loads(job["instances"])}
    rows = spool.database.rows(
        "SELECT sop, file FROM instance WHERE study = ? ORDER BY received, sop", job["study"]
    )
    files = [row["file"] for row in rows if row["sop"] in sops]
    if not all(files):
        raise ServeError("files of this study were removed", code=FILES_EXPIRED)
    folder = spool.folder / "work" / uuid.uuid4().hex
    folder.mkdir(mode=0o700)
    try:
        for number, name in enumerate(files):
            os.link(spool.folder / "files" / name, folder / f"{number:06d}.dcm")
        yield folder
    finally:
        shutil.rmtree(folder)

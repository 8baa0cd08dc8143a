"""An upload on the page: it is complete at once, and is answered as a whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from data_pipelines.runtime.plain_text import escaped
from medres.serve.completion import close_study
from medres.serve.intake.statuses import status_of, worst
from medres.serve.intake.uploads import Upload, received_upload
from medres.serve.page.sessions import Sessions
from medres.serve.page.words import advice
from medres.serve.scheduler import Scheduler
from medres.serve.settings import Settings
from medres.serve.spool import Receipt

SOURCE = "page"
MAX_NAME, MOST_SHOWN = 100, 50  # characters of a file name, and files, that are shown
_DICM = slice(128, 132)  # where a DICOM file says that it is one (PS3.10 section 7.1)
_DIRECTORY = "DICOMDIR"


class FileProblem(NamedTuple):
    """A file as the browser called it, and why it was not taken."""

    name: str
    code: str
    message: str
    advice: str


class Outcome(NamedTuple):
    """What became of an upload. jobs: of its studies. refusals: if there are some, nothing was
    stored. left_out: the names of files beside the images, such as a DICOMDIR.
    """

    status: int
    jobs: list[str]
    n_files: int
    refusals: list[FileProblem]
    left_out: list[str]


async def upload(
    request: Request, scheduler: Scheduler, settings: Settings, sessions: Sessions
) -> Outcome:
    """Take the files of the form in. Raises ServeError: bad_form, and those of
    `received_upload`.
    """
    spool = scheduler.spool
    with spool.incoming() as incoming:
        form = await received_upload(request, spool, incoming, settings.max_upload)
        sessions.require_csrf(request, form.fields)
        outcome, receipts = await run_in_threadpool(_take, scheduler, form)
    scheduler.telemetry.received(receipts, SOURCE)
    return outcome


def _take(scheduler: Scheduler, form: Upload) -> tuple[Outcome, list[Receipt]]:
    files = [(path, _shown_name(name)) for path, name in zip(form.paths, form.names, strict=True)]
    are_images = [_may_be_image(path, name) for path, name in files]
    if not any(are_images):  # so that each file gets its reason
        are_images = [True] * len(files)
    images = [file for file, is_image in zip(files, are_images, strict=True) if is_image]
    left_out = [file[1] for file, is_image in zip(files, are_images, strict=True) if not is_image]
    receipts = scheduler.spool.accept(
        [path for path, _ in images], source=SOURCE, is_complete=True, whole=True
    )
    codes = [receipt.code for receipt in receipts if receipt.code]
    if receipts and not codes:
        jobs = _close(scheduler, receipts)
        return Outcome(200, jobs, len(images), [], left_out[:MOST_SHOWN]), receipts
    code = worst(codes) if codes else "no_file"
    refusals = _problems([name for _, name in images], receipts)
    outcome = Outcome(status_of(code).http, [], len(images), refusals, left_out[:MOST_SHOWN])
    return outcome, receipts


def _problems(names: Sequence[str], receipts: Sequence[Receipt]) -> list[FileProblem]:
    return [
        FileProblem(name, receipt.code, receipt.message, advice(receipt.code))
        for name, receipt in zip(names, receipts, strict=True)
        if receipt.code
    ][:MOST_SHOWN]


def _close(scheduler: Scheduler, receipts: Sequence[Receipt]) -> list[str]:
    studies = dict.fromkeys(receipt.study for receipt in receipts)
    jobs = [close_study(scheduler.spool, scheduler.served, study) for study in studies]
    scheduler.wake()
    return jobs


def _may_be_image(path: Path, name: str) -> bool:
    """Not so: what does not begin as DICOM files do, and the directory of a medium. An empty file
    may be an image that was not copied.
    """
    with path.open("rb") as file:
        head = file.read(_DICM.stop)
    return (not head or head[_DICM] == b"DICM") and name.upper() != _DIRECTORY


def _shown_name(name: str) -> str:
    return escaped(name.replace("\\", "/").rpartition("/")[2])[:MAX_NAME] or "a file"

"""What operators and scripts ask over HTTP: this study is complete, which results were not
delivered, deliver this one again. Study UIDs stand in bodies, never in URLs.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from medres.errors import ServeError
from medres.serve.completion import announce_count, close_study, latest_job
from medres.serve.delivery.outbox import dead_letters, retry_dead_letter
from medres.serve.intake.access import error_response
from medres.serve.intake.openapi import MAX_IMAGES
from medres.serve.intake.uploads import counted
from medres.serve.results import document_bytes, result_document
from medres.serve.scheduler import Scheduler

MAX_JSON = 1 << 16  # bytes of a request


def control_routes(scheduler: Scheduler) -> list[Route]:
    """POST /v1/complete, GET /v1/dead-letters, POST /v1/dead-letters/<id>/retry."""
    control = _Control(scheduler)
    return [
        Route("/v1/complete", control.complete, methods=["POST"]),
        Route("/v1/dead-letters", control.dead, methods=["GET"]),
        Route("/v1/dead-letters/{job}/retry", control.retry, methods=["POST"]),
    ]


class _Control:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._spool = scheduler, scheduler.spool

    async def complete(self, request: Request) -> Response:
        """{"study_uid": ..., "images": N}: the study is complete when N images are held; without
        `images` it is complete now. 202 while images are awaited.
        """
        chunks = [chunk async for chunk in counted(request, self._spool, MAX_JSON)]
        study, images = _asked(b"".join(chunks))
        job = await run_in_threadpool(self._complete, study, images)
        if job is None:
            return _json({"results": [], "waits": True}, 202)
        document = await run_in_threadpool(result_document, self._spool, job)
        return _json({"results": [document], "waits": False})

    def _complete(self, study: str, images: int | None) -> str | None:
        """The job of the study; None while images are awaited."""
        row = self._spool.database.row("SELECT is_open FROM study WHERE uid = ?", study)
        if row is None:
            raise ServeError("no image of this study is held", code="unknown_study")
        last = latest_job(self._spool, study)
        if not announce_count(self._spool, study, images):
            return None
        if not row["is_open"] and last is not None:
            return last["id"]
        job = close_study(self._spool, self._scheduler.served, study)
        self._scheduler.wake()
        return job

    async def dead(self, request: Request) -> Response:
        rows = await run_in_threadpool(dead_letters, self._spool)
        names = ("id", "failure", "attempts", "changed", "n_objects", "n_sent")
        return _json([{name: row[name] for name in names} for row in rows])

    async def retry(self, request: Request) -> Response:
        job = request.path_params["job"]
        if not await run_in_threadpool(retry_dead_letter, self._spool, job):
            return error_response(404, "unknown_result", "there is no dead letter with this id")
        self._scheduler.wake()
        return _json(await run_in_threadpool(result_document, self._spool, job))


def _asked(body: bytes) -> tuple[str, int | None]:
    """The study and the number of its images. Raises ServeError (bad_json)."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    asked: dict[str, Any] = value if isinstance(value, dict) else {}
    study, images = asked.get("study_uid"), asked.get("images")
    is_count = type(images) is int and 0 < images <= MAX_IMAGES
    if not isinstance(study, str) or not (images is None or is_count):
        raise ServeError('send {"study_uid": "...", "images": N}', code="bad_json")
    return study, images


def _json(value: Any, status: int = 200) -> Response:
    return Response(document_bytes(value), status, media_type="application/json")

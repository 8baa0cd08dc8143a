"""The HTTP side: `POST /v1/studies`, `GET /v1/results/<id>`, STOW-RS, health and metrics. No URL
holds an identifier.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from importlib import metadata
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from data_pipelines.errors import CodedError
from medres.artefact.card import INTENDED_USE
from medres.errors import ServeError
from medres.serve.completion import close_study
from medres.serve.database import READY
from medres.serve.intake.access import error_response
from medres.serve.intake.control import control_routes
from medres.serve.intake.folders import copy_below_roots
from medres.serve.intake.openapi import DICOM_JSON, FHIR_JSON, JSON_TYPE, MAX_WAIT, openapi
from medres.serve.intake.statuses import RETRY_SECONDS, status_of, worst
from medres.serve.intake.uploads import RELATED, counted, received_files
from medres.serve.results import UNSIGNED, document_bytes, fhir_file, result_document
from medres.serve.scheduler import Scheduler
from medres.serve.settings import Settings
from medres.serve.spool import TEMPORARY, Receipt
from medres.serve.telemetry import CONTENT_TYPE

MAX_JSON = 1 << 16  # bytes of a request that names a path
SOURCE = "http"


def application(
    scheduler: Scheduler, settings: Settings, more: Sequence[BaseRoute] = ()
) -> Starlette:
    """The routes, without the layer of `intake.access`. more: further ones."""
    api = _Api(scheduler, settings)
    return Starlette(
        routes=[
            Route("/livez", api.live, methods=["GET"]),
            Route("/readyz", api.ready, methods=["GET"]),
            Route("/metrics", api.metrics, methods=["GET"]),
            Route("/openapi.json", api.describe, methods=["GET"]),
            Route("/v1/models", api.models, methods=["GET"]),
            Route("/v1/studies", api.post_study, methods=["POST"]),
            Route("/v1/results/{job}", api.result, methods=["GET"]),
            Route("/v1/results/{job}/fhir", api.fhir, methods=["GET"]),
            Route("/dicom-web/studies", api.store, methods=["POST"]),
            *control_routes(scheduler),
            *more,
        ],
        exception_handlers={
            CodedError: _coded_error,
            HTTPException: _http_error,
            Exception: _internal_error,
        },
        lifespan=api.lifespan,
    )


class _Api:
    def __init__(self, scheduler: Scheduler, settings: Settings) -> None:
        self._scheduler, self._settings = scheduler, settings
        self._spool, self._telemetry = scheduler.spool, scheduler.telemetry
        self._waiting: dict[str, list[asyncio.Event]] = {}

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def listener(job: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._announce, job)

        self._scheduler.listeners.append(listener)
        yield
        self._scheduler.listeners.remove(listener)

    def _announce(self, job: str) -> None:
        for event in self._waiting.get(job, ()):
            event.set()

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        try:
            await run_in_threadpool(self._spool.require_space, 0)
        except ServeError as error:
            return JSONResponse({"ready": False, "code": error.code}, 503)
        return JSONResponse({"ready": True})

    async def metrics(self, request: Request) -> Response:
        text = await run_in_threadpool(self._telemetry.metrics, self._spool)
        return Response(text, media_type=CONTENT_TYPE)

    async def describe(self, request: Request) -> Response:
        return _json(openapi(metadata.version("medres")))

    async def models(self, request: Request) -> Response:
        return _json(
            [
                {
                    "sha256": model.sha256,
                    "preprocessing_sha256": model.preprocessing_sha256,
                    "signer": model.signer,
                    "banner": None if model.signer else UNSIGNED,
                    "research_use_only": INTENDED_USE,
                    "card": model.card,
                }
                for model in self._scheduler.served
            ]
        )

    async def post_study(self, request: Request) -> Response:
        """One or more complete studies: DICOM files, or the path of a folder below a root. All
        files are taken, or none. ?wait=SECONDS waits for the answers.
        """
        seconds = _wait_seconds(request)
        with self._spool.incoming() as incoming:
            if request.headers.get("content-type", "").partition(";")[0].strip() == JSON_TYPE:
                path = await self._path_of(request)
                paths = await run_in_threadpool(
                    copy_below_roots, path, self._settings.roots, incoming
                )
            else:
                paths = await received_files(
                    request, self._spool, incoming, self._settings.max_upload
                )
            receipts = await run_in_threadpool(
                self._spool.accept, paths, source=SOURCE, is_complete=True, whole=True
            )
        self._telemetry.received(receipts, SOURCE)
        if not receipts or any(receipt.code for receipt in receipts):
            return _refusal(receipts)
        jobs = await run_in_threadpool(self._close, receipts)
        await self._wait(jobs, seconds)
        documents = [await run_in_threadpool(result_document, self._spool, job) for job in jobs]
        is_done = all(document and document["state"] != READY for document in documents)
        location = {"Location": f"/v1/results/{jobs[0]}"}
        return _json({"results": documents}, 200 if is_done else 202, location)

    async def _path_of(self, request: Request) -> str:
        chunks = [chunk async for chunk in counted(request, self._spool, MAX_JSON)]
        try:
            value = json.loads(b"".join(chunks))
        except (ValueError, RecursionError):
            value = None
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str):
            raise ServeError('send {"path": "..."}', code="bad_json")
        return path

    def _close(self, receipts: Sequence[Receipt]) -> list[str]:
        studies = dict.fromkeys(receipt.study for receipt in receipts)
        jobs = [close_study(self._spool, self._scheduler.served, study) for study in studies]
        self._scheduler.wake()
        return jobs

    async def _wait(self, jobs: Sequence[str], seconds: float) -> None:
        """Until all jobs are answered, or so long."""
        if seconds <= 0:
            return
        events = {job: asyncio.Event() for job in jobs}
        for job, event in events.items():
            self._waiting.setdefault(job, []).append(event)
        try:
            states = await run_in_threadpool(self._states, jobs)
            pending = [events[job].wait() for job in jobs if states[job] == READY]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*pending), seconds)
        finally:
            for job, event in events.items():
                self._waiting[job].remove(event)
                if not self._waiting[job]:
                    del self._waiting[job]

    def _states(self, jobs: Sequence[str]) -> dict[str, str]:
        query = "SELECT state FROM job WHERE id = ?"
        return {job: self._spool.database.value(query, job) for job in jobs}

    async def result(self, request: Request) -> Response:
        """The result of an opaque id; ?wait=SECONDS waits until it is answered."""
        job, seconds = request.path_params["job"], _wait_seconds(request)
        document = await run_in_threadpool(result_document, self._spool, job)
        if document is not None and document["state"] == READY:
            await self._wait([job], seconds)
            document = await run_in_threadpool(result_document, self._spool, job)
        if document is None:
            return error_response(404, "unknown_result", "there is no result with this id")
        return _json(document, 202 if document["state"] == READY else 200)

    async def fhir(self, request: Request) -> Response:
        """The FHIR R4 bundle of a result."""
        path = await run_in_threadpool(fhir_file, self._spool, request.path_params["job"])
        if path is None:
            return error_response(404, "no_fhir", "there is no FHIR bundle of such a result")
        return Response(await run_in_threadpool(path.read_bytes), media_type=FHIR_JSON)

    async def store(self, request: Request) -> Response:
        """STOW-RS (PS3.18 section 10.5): the study is complete after the quiet time."""
        if RELATED not in request.headers.get("content-type", "").lower():
            raise ServeError(f"send {RELATED}; type=application/dicom", code="other_type")
        with self._spool.incoming() as incoming:
            paths = await received_files(request, self._spool, incoming, self._settings.max_upload)
            receipts = await run_in_threadpool(self._spool.accept, paths, source=SOURCE)
        self._telemetry.received(receipts, SOURCE)
        return _stow_response(receipts)


def _wait_seconds(request: Request) -> float:
    """Raises ServeError (bad_wait). More than MAX_WAIT is MAX_WAIT."""
    text = request.query_params.get("wait", "0")
    if not (text.isascii() and text.isdecimal()):
        raise ServeError(f"wait is a number of seconds from 0 to {MAX_WAIT}", code="bad_wait")
    return float(text) if len(text) < 3 and int(text) <= MAX_WAIT else float(MAX_WAIT)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(document_bytes(value), status, headers, media_type=JSON_TYPE)


def _refusal(receipts: Sequence[Receipt]) -> Response:
    """Why an upload was refused as a whole. files: the code of each file, in their order."""
    codes = [receipt.code for receipt in receipts if receipt.code]
    code = worst(codes) if codes else "no_file"
    messages = {receipt.code: receipt.message for receipt in receipts}
    value = {
        "code": code,
        "message": messages.get(code, "there is no file in this upload"),
        "files": [receipt.code for receipt in receipts],
    }
    headers = {"Retry-After": str(RETRY_SECONDS)} if code in TEMPORARY else {}
    return _json(value, status_of(code).http, headers)


def _stow_response(receipts: Sequence[Receipt]) -> Response:
    """The Store Instances Response Module (PS3.18 table I.1-1)."""
    stored = [_reference(receipt) for receipt in receipts if not receipt.code]
    failed = [
        _reference(receipt) | {"00081197": {"vr": "US", "Value": [status_of(receipt.code).dimse]}}
        for receipt in receipts
        if receipt.code
    ]
    value: dict[str, Any] = {}
    if stored:
        value["00081199"] = {"vr": "SQ", "Value": stored}
    if failed:
        value["00081198"] = {"vr": "SQ", "Value": failed}
    codes = [receipt.code for receipt in receipts if receipt.code]
    headers = {"Retry-After": str(RETRY_SECONDS)} if TEMPORARY & {*codes} else {}
    status = 200 if not codes else 202
    if not stored:
        status = status_of(worst(codes)).http if codes else 400
    return Response(document_bytes(value), status, headers, media_type=DICOM_JSON)


def _reference(receipt: Receipt) -> dict[str, Any]:
    values = {"00081150": receipt.sop_class, "00081155": receipt.sop}
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in values.items() if uid}


async def _coded_error(request: Request, error: Exception) -> Response:
    code = getattr(error, "code", "")
    retry = RETRY_SECONDS if code in TEMPORARY else None
    return error_response(status_of(code).http, code, str(error), retry)


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    response = error_response(status, f"http_{status}", str(getattr(error, "detail", "")))
    response.headers.update(getattr(error, "headers", None) or {})  # such as Allow
    return response


async def _internal_error(request: Request, error: Exception) -> Response:
    """The text of a fault of our own could hold a patient's data."""
    return error_response(500, "internal", f"internal error ({type(error).__name__})")

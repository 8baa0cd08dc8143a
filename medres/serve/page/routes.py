"""The routes of the page: what each address shows and does. No address holds an identifier."""

from __future__ import annotations

import inspect
import json
import sqlite3
from collections.abc import Callable
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from data_pipelines.errors import CodedError
from medres.errors import ServeError
from medres.serve.database import READY
from medres.serve.delivery.outbox import dead_letters, retry_dead_letter
from medres.serve.intake.access import PAGE, TokenCheck
from medres.serve.intake.statuses import status_of
from medres.serve.intake.uploads import counted
from medres.serve.page import study, uploading
from medres.serve.page.health import health
from medres.serve.page.images import ShownImage
from medres.serve.page.pictures import Pictures
from medres.serve.page.render import Renderer
from medres.serve.page.reports import report_of
from medres.serve.page.sessions import Sessions
from medres.serve.page.windows import window_named, windows_of
from medres.serve.page.words import STATES, advice, clock
from medres.serve.page.worklist import kind_of, worklist
from medres.serve.results import MODEL_GONE, UNSIGNED, document_bytes, fhir_file, result_document
from medres.serve.scheduler import Scheduler
from medres.serve.settings import Settings

Endpoint = Callable[[Request], Any]
MAX_FORM = 1 << 14  # bytes of a form without files
MAX_NUMBER = 1_000_000
REFRESH_SECONDS = 2  # while a study waits for its answer
#: what the browser may load: only what this server sends; no script within a page
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers hide the origin of forms too
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ASSETS = {
    "page.css": "text/css; charset=utf-8",
    "drop.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Page:
    """The page of one server. token: asked of people who log in."""

    def __init__(self, scheduler: Scheduler, settings: Settings, token: TokenCheck) -> None:
        self._scheduler, self._settings, self._token = scheduler, settings, token
        self._spool = scheduler.spool
        self._sessions = Sessions(is_secure=settings.tls_certificate is not None)
        self._pictures = Pictures(scheduler)
        self._renderer = Renderer()

    def close(self) -> None:
        self._pictures.close()

    def routes(self) -> list[BaseRoute]:
        job = f"{PAGE}/studies/{{job}}"
        return [
            Route("/", _to_page, methods=["GET"]),
            Route("/favicon.ico", _to_icon, methods=["GET"]),
            *(self._route(f"{PAGE}/{name}", self._asset, is_open=True) for name in _ASSETS),
            self._route(f"{PAGE}/login", self._login_form, is_open=True),
            self._route(f"{PAGE}/login", self._login, "POST", is_open=True),
            self._route(f"{PAGE}/logout", self._logout, "POST"),
            self._route(f"{PAGE}/", self._worklist),
            self._route(f"{PAGE}/upload", self._upload, "POST"),
            self._route(f"{PAGE}/undelivered", self._undelivered),
            self._route(f"{PAGE}/models", self._models),
            self._route(f"{PAGE}/health", self._health),
            self._route(job, self._study),
            self._route(f"{job}/result.json", self._result),
            self._route(f"{job}/fhir.json", self._fhir),
            self._route(f"{job}/images/{{number:int}}.png", self._image),
            self._route(f"{job}/drawings/{{prediction:int}}-{{part:int}}.png", self._drawing),
            self._route(f"{job}/retry", self._retry, "POST"),
            self._route(f"{PAGE}/{{rest:path}}", self._unknown),
        ]

    def _route(
        self, path: str, endpoint: Endpoint, method: str = "GET", *, is_open: bool = False
    ) -> Route:
        """is_open: also for people who have not logged in."""

        async def guarded(request: Request) -> Response:
            if not (is_open or self._may_see(request)):
                response: Response = RedirectResponse(f"{PAGE}/login", 303)
            else:
                response = await self._answer(endpoint, request)
            for name, value in _HEADERS.items():
                response.headers[name] = value
            return response

        return Route(path, guarded, methods=[method])

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        """The response of the endpoint; an error becomes a page that says what to do."""
        try:
            if inspect.iscoroutinefunction(endpoint):
                return await endpoint(request)
            return await run_in_threadpool(endpoint, request)
        except CodedError as error:
            status = 404 if error.code == "unknown_page" else status_of(error.code).http
            return self._message(request, status, str(error), error.code)

    def _may_see(self, request: Request) -> bool:
        return not self._token.is_needed or self._sessions.is_open(request)

    def _show(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        return self._renderer.response(
            template,
            status,
            csrf=self._sessions.csrf(request),
            can_log_out=self._token.is_needed and self._sessions.is_open(request),
            may_see=self._may_see(request),
            banner=UNSIGNED if self._is_unsigned() else "",
            n_undelivered=len(dead_letters(self._spool)) if self._may_see(request) else 0,
            **values,
        )

    def _is_unsigned(self) -> bool:
        return not all(model.signer for model in self._scheduler.served)

    def _message(self, request: Request, status: int, text: str, code: str) -> Response:
        sentence = text[:1].upper() + text[1:]
        return self._show(
            request,
            "message.html.j2",
            status,
            sentence=sentence if sentence.endswith(".") else f"{sentence}.",
            code=code,
            advice=advice(code),
        )

    def _asset(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        data = (resources.files("medres.serve.page") / "templates" / name).read_bytes()
        return Response(data, media_type=_ASSETS[name])

    def _unknown(self, request: Request) -> Response:
        raise _no_page()

    def _login_form(self, request: Request) -> Response:
        return self._show(request, "login.html.j2")

    async def _login(self, request: Request) -> Response:
        fields = await self._form(request)
        self._sessions.require_csrf(request, fields)
        client = request.client.host if request.client else ""
        refusal = await run_in_threadpool(self._token.refusal, fields.get("token", ""), client)
        if refusal is not None and self._token.is_needed:
            told = json.loads(bytes(refusal.body))
            text = "this is not the token" if refusal.status_code == 401 else told["message"]
            return self._message(request, refusal.status_code, text, told["code"])
        await run_in_threadpool(self._spool.audit.add, "logged_in")
        response = RedirectResponse(f"{PAGE}/", 303)
        self._sessions.open(response)
        return response

    async def _logout(self, request: Request) -> Response:
        self._sessions.require_csrf(request, await self._form(request))
        response = RedirectResponse(f"{PAGE}/login", 303)
        self._sessions.close(request, response)
        return response

    async def _form(self, request: Request) -> dict[str, str]:
        data = b"".join([chunk async for chunk in counted(request, self._spool, MAX_FORM)])
        return dict(parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True))

    def _worklist(self, request: Request) -> Response:
        """?new=1, after an upload of several studies: the page reloads until all are answered."""
        listed = worklist(self._spool, _number(request.query_params.get("page")))
        is_new = listed.n_waiting > 0 and "new" in request.query_params
        refresh = REFRESH_SECONDS if is_new else 0
        return self._show(request, "worklist.html.j2", list=listed, refresh=refresh)

    async def _upload(self, request: Request) -> Response:
        outcome = await uploading.upload(request, self._scheduler, self._settings, self._sessions)
        if outcome.jobs and not outcome.left_out:
            one = len(outcome.jobs) == 1
            path = f"studies/{outcome.jobs[0]}" if one else "?new=1"
            return RedirectResponse(f"{PAGE}/{path}", 303)
        return await run_in_threadpool(
            self._show, request, "upload.html.j2", outcome.status, o=outcome
        )

    def _undelivered(self, request: Request) -> Response:
        letters = [
            {
                "job": row["id"],
                "when": clock(row["changed"]),
                "what": kind_of(self._spool, row["study"]),
                "failure": row["failure"] or "",
                "advice": advice(row["failure"]),
                "attempts": row["attempts"],
                "n_objects": row["n_objects"],
                "n_sent": row["n_sent"],
            }
            for row in dead_letters(self._spool)
        ]
        return self._show(request, "undelivered.html.j2", letters=letters)

    async def _retry(self, request: Request) -> Response:
        self._sessions.require_csrf(request, await self._form(request))
        await run_in_threadpool(self._retry_job, self._job(request))
        self._scheduler.wake()
        return RedirectResponse(f"{PAGE}/undelivered", 303)

    def _retry_job(self, job: sqlite3.Row) -> None:
        served = {model.sha256 for model in self._scheduler.served}
        made = self._spool.database.row("SELECT 1 FROM made_object WHERE job = ?", job["id"])
        if not made and job["model"] not in served:
            raise ServeError(
                "the objects of this result were never made, and its model is no longer served",
                code=MODEL_GONE,
            )
        retry_dead_letter(self._spool, job["id"])

    def _models(self, request: Request) -> Response:
        models = [
            {"facts": model, "report": report_of(model.sha256, self._settings.models)}
            for model in self._scheduler.served
        ]
        return self._show(request, "models.html.j2", models=models, unsigned=UNSIGNED)

    def _health(self, request: Request) -> Response:
        return self._show(request, "health.html.j2", h=health(self._scheduler, self._settings))

    def _job(self, request: Request) -> sqlite3.Row:
        job = self._spool.database.row("SELECT * FROM job WHERE id = ?", request.path_params["job"])
        if job is None:
            raise _no_page()
        return job

    def _result(self, request: Request) -> Response:
        document = result_document(self._spool, self._job(request)["id"])
        return Response(document_bytes(document), media_type="application/json")

    def _fhir(self, request: Request) -> Response:
        path = fhir_file(self._spool, self._job(request)["id"])
        if path is None:
            raise _no_page()
        return Response(path.read_bytes(), media_type="application/fhir+json")

    def _study(self, request: Request) -> Response:
        job = self._job(request)
        document = result_document(self._spool, job["id"]) or {}
        predictions = document["predictions"] or []
        report = report_of(job["model"], self._settings.models)
        order = study.images_in_order(job, predictions)
        number = _number(request.query_params.get("image"), study.first_image(predictions, order))
        number = min(number, len(order))
        frame, window = (
            _number(request.query_params.get("frame")),
            request.query_params.get("window"),
        )
        image, problem = self._image_or_problem(job, order[number - 1], frame, window)
        shown = study.shown_predictions(predictions, report, order)
        return self._show(
            request,
            "study.html.j2",
            d=document,
            job=job["id"],
            state_text=STATES[job["state"]],
            failure=job["failure"],
            objects=study.objects_text(document["objects"], has_pacs=self._has_pacs),
            when=clock(job["created"]),
            kind=kind_of(self._spool, job["study"]),
            shown=shown,
            boxes=study.boxes_on(shown, number, frame),
            sets=[study.class_set(one) for one in predictions],
            rows=study.image_probabilities(predictions, order),
            report=report,
            model=self._served(job["model"]),
            colors=study.mask_colors(self._served(job["model"])),
            number=number,
            n_images=len(order),
            frame=frame,
            window=window or "",
            windows=windows_of(self._served(job["model"])),
            image=image,
            problem=problem,
            refresh=REFRESH_SECONDS if job["state"] == READY else 0,
        )

    @property
    def _has_pacs(self) -> bool:
        return bool(self._settings.pacs or self._settings.pacs_dicomweb)

    def _served(self, sha256: str) -> Any:
        """The served model with this hash, None if it is no longer served."""
        return next((one for one in self._scheduler.served if one.sha256 == sha256), None)

    def _image_or_problem(
        self, job: sqlite3.Row, sop: str, frame: int, window: str | None
    ) -> tuple[ShownImage | None, CodedError | None]:
        try:
            return self._shown(job, sop, frame, window), None
        except CodedError as error:
            return None, error

    def _shown(self, job: sqlite3.Row, sop: str, frame: int, window: str | None) -> ShownImage:
        chosen = window_named(window, self._served(job["model"]))
        return self._pictures.image(sop, frame - 1, chosen)

    def _image(self, request: Request) -> Response:
        job = self._job(request)
        predictions = (result_document(self._spool, job["id"]) or {})["predictions"] or []
        order = study.images_in_order(job, predictions)
        number = request.path_params["number"]
        if not 1 <= number <= len(order):
            raise _no_page()
        frame = _number(request.query_params.get("frame"))
        image = self._shown(job, order[number - 1], frame, request.query_params.get("window"))
        return Response(image.png, media_type="image/png")

    def _drawing(self, request: Request) -> Response:
        key = request.path_params["prediction"], request.path_params["part"]
        drawn = self._pictures.drawings(self._job(request))
        if key not in drawn:
            raise _no_page()
        return Response(drawn[key][1], media_type="image/png")


async def _to_page(request: Request) -> Response:
    return RedirectResponse(f"{PAGE}/", 303)


async def _to_icon(request: Request) -> Response:
    return RedirectResponse(f"{PAGE}/icon.svg", 303)


def _number(text: str | None, default: int = 1) -> int:
    """A number from 1 on."""
    if not text or not text.isdecimal() or len(text) > 7:
        return default
    return min(max(1, int(text)), MAX_NUMBER)


def _no_page() -> ServeError:
    return ServeError("there is no such page", code="unknown_page")

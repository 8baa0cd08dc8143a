"""The server as a whole: models, spool, doors, signals."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from data_pipelines.errors import CodedError, InputError
from medres.errors import ServeError
from medres.serve.delivery.c_store import StoreSender
from medres.serve.delivery.outbox import Send
from medres.serve.delivery.stow import StowSender
from medres.serve.intake.access import Access, TokenCheck
from medres.serve.intake.dimse import DicomDoor
from medres.serve.intake.folders import WatchedFolder
from medres.serve.intake.web import application
from medres.serve.model_process import ModelOptions, ModelProcess
from medres.serve.page.routes import Page
from medres.serve.scheduler import Model, Scheduler
from medres.serve.settings import Address, Settings
from medres.serve.spool import Spool
from medres.serve.telemetry import Telemetry

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
STOP_SECONDS = 30  # for uploads and predictions that have begun
MAX_CONNECTIONS = 256


class Server:
    """Doors, spool and scheduler of one set of settings. models: running models; by default a
    process for each model file.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: Sequence[Model] | None = None,
        send: Send | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """Raises ServeError (spool_in_use, needs_signature, same_model ...), ArtefactError,
        InputError (address_in_use ...), and OSError if an address cannot be used.
        """
        silence_libraries()
        self.settings, self.telemetry = settings, telemetry or Telemetry()
        tls = settings.tls()
        self.spool = Spool(settings.spool, settings.capacity)
        self._doors: list[DicomDoor | WatchedFolder] = []
        self._models: list[Model] = []
        self._socket: socket.socket | None = None
        self._page: Page | None = None
        self._stopped, self._reloading = threading.Event(), threading.Lock()
        try:
            self._open_doors()
            opened = models if models is not None else map(self._open_model, settings.models)
            for model in opened:
                self._models.append(model)
            _require_distinct(self._models)
            self.scheduler = Scheduler(
                self.spool,
                self._models,
                self.telemetry,
                quiet_seconds=settings.quiet_seconds,
                predict_seconds=settings.predict_seconds,
                keep_hours=settings.keep_hours,
                makes_objects=settings.maker is not None,
                send=send or sender_of(settings),
            )
        except BaseException:
            self._close()
            raise
        self._http = uvicorn.Server(self._http_config(tls))
        http: Any = self._http
        http.capture_signals = contextlib.nullcontext

    @property
    def http_address(self) -> str:
        """http://HOST:PORT, '' without HTTP."""
        if self._socket is None or self.settings.http is None:
            return ""
        scheme = "https" if self.settings.tls_certificate else "http"
        return f"{scheme}://{Address(self.settings.http.host, self._socket.getsockname()[1])}"

    @property
    def dicom_address(self) -> str:
        """AET@HOST:PORT, '' without DICOM."""
        doors = [door for door in self._doors if isinstance(door, DicomDoor)]
        return f"{self.settings.aet}@{doors[0].address}" if doors else ""

    @property
    def is_signed(self) -> bool:
        return all(model.facts.signer for model in self.scheduler.models)

    def run(self) -> None:
        """Serve until `stop`; then let what has begun end."""
        self.spool.audit.add("started")
        self.scheduler.start()
        for door in self._doors:
            if isinstance(door, WatchedFolder):
                door.start()
        try:
            if self._socket is not None:
                self._http.run(sockets=[self._socket])
            else:
                self._stopped.wait()
        finally:
            self._close()

    def stop(self) -> None:
        """From any thread, or from a signal handler. The second time it waits for no upload."""
        self._http.force_exit = self._http.should_exit
        self._http.should_exit = True
        self._stopped.set()

    def handle_signals(self) -> None:
        """SIGINT and SIGTERM stop in order; SIGHUP reads the model files again."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(
            signal.SIGHUP,
            lambda *_: threading.Thread(target=self.reload_models, daemon=True).start(),
        )

    def reload_models(self) -> None:
        """Open each model file again. A file that does not reproduce its reference outputs, or is
        refused for another reason, leaves the running model in service.
        """
        with self._reloading:
            for path, model in zip(self.settings.models, self.scheduler.models, strict=True):
                try:
                    new = self._open_model(path)
                    self.scheduler.replace_model(model.facts.sha256, new)
                except CodedError as error:
                    self.spool.audit.add("model_not_replaced", code=error.code)
                    self.telemetry.log("model_not_replaced", code=error.code)

    def _open_model(self, path: Path) -> ModelProcess:
        """From copies: a process that has to start again must not find other files."""
        if not path.is_file():
            raise InputError(f"{path} is no file: give a model file", code="no_model_file")
        signature, public_key = path.with_name(f"{path.name}.sig"), self.settings.public_key
        has_signature = public_key is not None and signature.is_file()
        if self.settings.needs_signature and not has_signature:
            raise ServeError(
                f"{path.name} is not signed, and other machines can reach the server: give "
                f"--public-key and a signature at {signature.name}, or --unsigned",
                code="needs_signature",
            )
        folder = self.spool.new_model_folder()

        def copy_of(file: Path | None) -> str | None:
            return None if file is None else str(shutil.copyfile(file, folder / file.name))

        return ModelProcess(
            ModelOptions(
                path=str(copy_of(path)),
                signature=copy_of(signature) if has_signature else None,
                public_key=copy_of(public_key) if has_signature else None,
                maker=self.settings.maker,
                fhir=self.settings.fhir,
            )
        )

    def _open_doors(self) -> None:
        settings = self.settings
        if settings.dicom is not None:
            with _free(settings.dicom, "--dicom"):
                door = DicomDoor(
                    settings.dicom,
                    settings.aet,
                    settings.peers,
                    self.spool,
                    self.telemetry,
                    tls=settings.dimse_tls(),
                )
            self._doors.append(door)
        if settings.watch is not None:
            self._doors.append(WatchedFolder(settings.watch, self.spool, self.telemetry))
        if settings.http is not None:
            family = socket.AF_INET6 if ":" in settings.http.host else socket.AF_INET
            with _free(settings.http, "--http"):
                self._socket = socket.create_server(settings.http, family=family, backlog=128)

    def _http_config(self, tls: Any) -> uvicorn.Config:
        http = self.settings.http
        token = TokenCheck(self.settings.token, self.spool.audit)
        self._page = Page(self.scheduler, self.settings, token)
        app = Access(
            application(self.scheduler, self.settings, self._page.routes()),
            token=token,
            hosts=(*LOOPBACK_NAMES, http.host) if http and http.is_loopback else (),
            requests_per_second=self.settings.requests_per_second,
            telemetry=self.telemetry,
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=STOP_SECONDS,
            proxy_headers=False,
        )
        config.load()
        config.ssl = tls
        return config

    def _close(self) -> None:
        for door in self._doors:
            door.stop()
        if self._socket is not None:
            self._socket.close()
        models = {*self._models}
        if hasattr(self, "scheduler"):
            self.scheduler.stop(STOP_SECONDS)
            self.spool.audit.add("stopped")
            models |= {*self.scheduler.models}
        for model in models:
            model.close()
        if self._page is not None:
            self._page.close()
        self.spool.close()


def sender_of(settings: Settings) -> Send | None:
    """What sends objects to the PACS of the settings; None without one. Raises InputError
    (bad_endpoint, bad_certificate).
    """
    context = settings.pacs_tls()
    if settings.pacs_dicomweb is not None:
        return StowSender(
            settings.pacs_dicomweb, authorization=settings.pacs_authorization, context=context
        )
    if settings.pacs is not None:
        return StoreSender(settings.pacs, settings.aet, context=context)
    return None


@contextlib.contextmanager
def _free(address: Address, option: str) -> Iterator[None]:
    """Raises InputError (address_in_use) if another program listens on the address."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise InputError(
            f"another program listens on {address}: stop it, or choose another port with "
            f"{option} {Address(address.host, address.port + 1)}",
            code="address_in_use",
        ) from None


def silence_libraries() -> None:
    """Their messages and tracebacks could hold a patient's data."""
    warnings.filterwarnings("ignore", module="pydicom|pynetdicom")
    for name in (
        "uvicorn",
        "uvicorn.error",
        "pydicom",
        "pynetdicom",
        "asyncio",
        "python_multipart",
    ):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers = [logging.NullHandler()]


def _require_distinct(models: Sequence[Model]) -> None:
    if len({model.facts.sha256 for model in models}) < len(models):
        raise ServeError("the same model file was given twice", code="same_model")

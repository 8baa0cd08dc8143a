"""`medres serve doctor`: whether a spool is sound, and whether the PACS answers. It changes
nothing, and may run beside the server.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from data_pipelines.dicomweb.client import DicomWeb, parse_endpoint
from data_pipelines.errors import CodedError
from medres.errors import ServeError
from medres.serve.audit import open_log
from medres.serve.database import DEAD
from medres.serve.settings import Pacs, Settings
from medres.serve.spool import Capacity

TIMEOUT_SECONDS = 10.0


class Check(NamedTuple):
    """name: what was looked at. text: what was found, without identifiers."""

    name: str
    is_ok: bool
    text: str


def diagnose(settings: Settings) -> list[Check]:
    """Every check that the settings allow."""
    checks = [
        _check("results", _results),
        _check("spool", lambda: _spool(settings)),
        _check("space", lambda: _space(settings)),
    ]
    if (settings.spool / "spool.db").is_file():
        checks += [
            _check("audit log", lambda: _audit(settings)),
            _check("dead letters", lambda: _dead(settings)),
        ]
    if settings.pacs_dicomweb is not None:
        url = settings.pacs_dicomweb
        checks.append(_check("PACS", lambda: _search(url, settings)))
    if settings.pacs is not None:
        pacs = settings.pacs
        checks.append(_check("PACS", lambda: _echo(pacs, settings)))
    return checks


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except CodedError as error:
        return Check(name, False, f"{error} ({error.code})")
    except OSError as error:
        return Check(name, False, type(error).__name__)


def _results() -> str:
    if find_spec("highdicom") is None:
        raise ServeError('highdicom is missing: pip install "medres[serve]"', code="no_highdicom")
    return "DICOM objects can be made"


def _spool(settings: Settings) -> str:
    if not settings.spool.exists():
        return f"{settings.spool} is made when the server starts"
    if settings.spool.stat().st_mode & 0o077:
        raise ServeError(
            f"{settings.spool} can be read by other users: run chmod 700 {settings.spool}",
            code="spool_open_to_others",
        )
    return f"{settings.spool} is private"


def _space(settings: Settings) -> str:
    folder = settings.spool
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, Capacity().free_bytes
    if free < needed:
        raise ServeError(
            f"{free >> 20} MiB are free, and the server keeps {needed >> 20} MiB free",
            code="spool_full",
        )
    return f"{free >> 30} GiB are free"


def _audit(settings: Settings) -> str:
    state = open_log(settings.spool).verify()
    return f"{state.n_events} events, unbroken; head {state.head}"


def _dead(settings: Settings) -> str:
    database = open_log(settings.spool).database
    count = database.value("SELECT count(*) FROM job WHERE state = ?", DEAD)
    if count:
        raise ServeError(
            f"{count} results were not delivered: medres serve retry lists them",
            code="dead_letters",
        )
    return "none"


def _search(url: str, settings: Settings) -> str:
    client = DicomWeb(
        parse_endpoint(url),
        authorization=settings.pacs_authorization,
        timeout=TIMEOUT_SECONDS,
        context=settings.pacs_tls(),
    )
    try:
        next(client.search("studies", {"StudyInstanceUID": "0.0"}), None)
    finally:
        client.close()
    return "answers a search (QIDO-RS)"


def _echo(pacs: Pacs, settings: Settings) -> str:
    """Raises ServeError: unreachable, refused_by_pacs."""
    host, port, aet = pacs
    try:
        socket.create_connection((host, port), TIMEOUT_SECONDS).close()
    except OSError as error:
        raise ServeError(
            f"nobody answers at {host}:{port} ({type(error).__name__})", code="unreachable"
        ) from None
    entity, context = AE(ae_title=settings.aet), settings.pacs_tls()
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = TIMEOUT_SECONDS
    entity.add_requested_context(Verification)
    tls = None if context is None else (context, host)
    peer = entity.associate(host, port, ae_title=aet, tls_args=tls)
    is_well = peer.is_established and peer.send_c_echo().get("Status") == 0
    if peer.is_established:
        peer.release()
    if not is_well:
        raise ServeError(
            f"the PACS does not accept the AE title {settings.aet}, or is not called {aet}",
            code="refused_by_pacs",
        )
    return "answers C-ECHO"

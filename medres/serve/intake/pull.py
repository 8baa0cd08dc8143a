"""Studies from a PACS on request: files by QIDO-RS and WADO-RS, or a C-MOVE that makes the PACS
send them to the server.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from data_pipelines.dicomweb.client import DicomWeb, parse_endpoint
from data_pipelines.errors import DicomError, InputError
from medres.errors import ServeError
from medres.results.identity import is_own_result
from medres.serve.intake.client import ServerClient
from medres.serve.settings import Pacs, Settings

TIMEOUT_SECONDS = 60.0
_PENDING = (0xFF00, 0xFF01)
Progress = Callable[[int, int], None]


class Moved(NamedTuple):
    """images: int, that the server has taken. failed: int, that it has refused, such as its own
    results.
    """

    images: int
    failed: int


def pulled(
    settings: Settings, study: str, client: ServerClient, *, wait: int, progress: Progress
) -> list[dict[str, Any]]:
    """Bring a study from the PACS of the settings to a running server. Its results, answered within
    `wait` seconds, or not yet. Raises NetworkError, ServeError, InputError.
    """
    if settings.pacs_dicomweb is not None:
        web = DicomWeb(
            parse_endpoint(settings.pacs_dicomweb),
            authorization=settings.pacs_authorization,
            context=settings.pacs_tls(),
        )
        try:
            with tempfile.TemporaryDirectory() as folder:
                return client.upload(fetch_study(web, study, Path(folder), progress), wait)
        finally:
            web.close()
    if settings.pacs is None:
        raise InputError("there is no PACS: give --pacs-dicomweb or --pacs", code="no_pacs")
    moved = move_study(
        settings.pacs,
        study,
        aet=settings.aet,
        destination=settings.aet,
        context=settings.pacs_tls(),
        progress=progress,
    )
    results = client.complete(study, max(1, moved.images))
    return [client.result(result["id"], wait) for result in results]


def fetch_study(client: DicomWeb, study: str, folder: Path, progress: Progress) -> list[Path]:
    """The objects of the study as files of the folder, without results of medres. Raises
    NetworkError; ServeError (unknown_study).
    """
    instances = client.instances(study)
    if not instances:
        raise _unknown_study()
    paths: list[Path] = []
    for number, instance in enumerate(instances, start=1):
        path = folder / f"{number:06d}.dcm"
        with path.open("wb") as file:
            client.retrieve(instance, file)
        if not _is_own(path):
            paths.append(path)
        progress(number, len(instances))
    return paths


def _is_own(path: Path) -> bool:
    try:
        return is_own_result(path)
    except DicomError:
        return False  # the server says what is wrong with it


def move_study(
    pacs: Pacs,
    study: str,
    *,
    aet: str,
    destination: str,
    context: ssl.SSLContext | None,
    progress: Progress,
) -> Moved:
    """Have the PACS send the study to the AE title `destination`, which it must know. aet: of the
    caller. Raises ServeError: unreachable, refused_by_pacs, unknown_study.
    """
    entity = AE(ae_title=aet)
    entity.connection_timeout = entity.acse_timeout = TIMEOUT_SECONDS
    entity.dimse_timeout = entity.network_timeout = TIMEOUT_SECONDS
    entity.add_requested_context(Find)
    entity.add_requested_context(Move)
    try:
        socket.create_connection((pacs.host, pacs.port), TIMEOUT_SECONDS).close()
    except OSError as error:
        raise _no_answer(type(error).__name__) from None
    tls = None if context is None else (context, pacs.host)
    peer: Any = entity.associate(pacs.host, pacs.port, ae_title=pacs.aet, tls_args=tls)
    if not peer.is_established:
        raise ServeError(f"the PACS does not accept the AE title {aet}", code="refused_by_pacs")
    try:
        if not [answer for answer in _answers(peer.send_c_find(_query(study), Find)) if answer[1]]:
            raise _unknown_study()
        return _moved(peer.send_c_move(_query(study), destination, Move), progress)
    finally:
        if peer.is_established:
            peer.release()


def _query(study: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
    return query


def _answers(responses: Any) -> Iterator[tuple[Dataset, Dataset | None]]:
    """Status and identifier of each answer; raises where the last one is a failure."""
    for status, identifier in responses:
        if "Status" not in status:
            raise _no_answer("no status")
        yield status, identifier
        if status.Status not in (0x0000, 0xB000, *_PENDING):
            raise ServeError(
                f"the PACS refused the request (0x{status.Status:04X}). Does it know the AE title "
                f"of the server, with its address?",
                code="refused_by_pacs",
            )


def _moved(responses: Any, progress: Progress) -> Moved:
    moved = Moved(0, 0)
    for status, _ in _answers(responses):
        done = int(status.get("NumberOfCompletedSuboperations") or 0)
        done += int(status.get("NumberOfWarningSuboperations") or 0)
        failed = int(status.get("NumberOfFailedSuboperations") or 0)
        left = int(status.get("NumberOfRemainingSuboperations") or 0)
        moved = Moved(done, failed)
        progress(done + failed, done + failed + left)
    return moved


def _unknown_study() -> ServeError:
    return ServeError("the PACS has no such study", code="unknown_study")


def _no_answer(why: str) -> ServeError:
    return ServeError(f"the PACS does not answer ({why})", code="unreachable")

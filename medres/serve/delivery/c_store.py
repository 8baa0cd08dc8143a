"""Sending by C-STORE (PS3.4 Annex B), over TCP or TLS."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from data_pipelines.dicom.reader import silence_pydicom
from medres.errors import ServeError
from medres.serve.delivery.outbox import UNREACHABLE
from medres.serve.delivery.stow import REFUSED
from medres.serve.settings import Pacs

DUPLICATE = 0x0111
_WARNING = 0xB000  # 0xBxxx: stored, with a remark (PS3.4 B.2.3)


class StoreSender:
    """Sends objects to a PACS, each in an association of its own. aet: of this server. context: of
    TLS, None for plain TCP.
    """

    def __init__(
        self,
        pacs: Pacs,
        aet: str,
        *,
        context: ssl.SSLContext | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._pacs, self._aet, self._context, self._timeout = pacs, aet, context, timeout

    def __call__(self, path: Path) -> None:
        """Deliver one file. Raises ServeError (unreachable, refused_by_pacs), and OSError where
        nobody listens.
        """
        with silence_pydicom():  # not while it is sent: whoever receives files needs it too
            dataset = dcmread(path)
        status = self._status(dataset)
        is_stored = status in (0, DUPLICATE) or status & 0xF000 == _WARNING
        if not is_stored:
            code = UNREACHABLE if status & 0xFF00 == 0xA700 else REFUSED  # out of resources
            raise ServeError(f"the PACS refused an object (0x{status:04X})", code=code)

    def _status(self, dataset: Dataset) -> int:
        uid = str(dataset.SOPClassUID)
        entity = AE(ae_title=self._aet)
        entity.connection_timeout = entity.acse_timeout = self._timeout
        entity.dimse_timeout = entity.network_timeout = self._timeout
        entity.add_requested_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        host, port, aet = self._pacs
        # pynetdicom leaves the socket open when nobody listens
        socket.create_connection((host, port), self._timeout).close()
        tls = None if self._context is None else (self._context, host)
        peer = entity.associate(host, port, ae_title=aet, tls_args=tls)
        if not peer.is_established:
            raise _no_association(is_rejected=peer.is_rejected)
        try:
            if not any(context.abstract_syntax == uid for context in peer.accepted_contexts):
                raise ServeError("the PACS does not take this kind of object", code=REFUSED)
            answer = peer.send_c_store(dataset)
        finally:
            if peer.is_established:
                peer.release()
        if "Status" not in answer:
            raise _no_association(is_rejected=False)
        return int(answer.Status)


def _no_association(*, is_rejected: bool) -> ServeError:
    if is_rejected:
        return ServeError("the PACS does not know the AE title of this server", code=REFUSED)
    return ServeError("the PACS does not answer", code=UNREACHABLE)

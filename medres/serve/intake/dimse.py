"""The DICOM side: C-STORE and C-ECHO for the listed peers (PS3.4 Annex B, PS3.7 section 9.1)."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from data_pipelines.errors import CodedError
from medres.serve.intake.statuses import SUCCESS, status_of
from medres.serve.settings import Address, Peer
from medres.serve.spool import Receipt, Spool
from medres.serve.telemetry import Telemetry

SYNTAXES: list[UID] = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    JPEG2000,
    JPEGLSNearLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
]
MAX_ASSOCIATIONS = 16
TIMEOUT_SECONDS = 60.0  # of a peer that says nothing
SOURCE = "dicom"


class DicomDoor:
    """A running service class provider. Each data set goes to the spool as it came, undecoded."""

    def __init__(
        self,
        address: Address,
        aet: str,
        peers: tuple[Peer, ...],
        spool: Spool,
        telemetry: Telemetry,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """tls: None for plain TCP. Raises OSError if the address cannot be used."""
        logging.getLogger("pynetdicom").propagate = False  # it would print what files hold
        logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
        self._peers, self._spool, self._telemetry = peers, spool, telemetry
        entity = AE(ae_title=aet)
        entity.require_called_aet = True
        entity.require_calling_aet = [peer.aet for peer in peers]
        entity.maximum_associations = MAX_ASSOCIATIONS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = TIMEOUT_SECONDS
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), SYNTAXES)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
        ]
        server: Any = entity.start_server(
            (address.host, address.port), block=False, evt_handlers=handlers, ssl_context=tls
        )
        self._server = server
        self.address = Address(address.host, server.socket.getsockname()[1])

    def stop(self) -> None:
        self._server.shutdown()

    def _requested(self, event: Any) -> None:
        """Refuse a listed AE title from another address than its own; pynetdicom rejects those
        that are not listed.
        """
        requestor = event.assoc.requestor
        title, ip = str(requestor.primitive.calling_ae_title).strip(), requestor.address
        addresses = {peer.ip for peer in self._peers if peer.aet == title}
        if addresses and not addresses & {"", ip}:
            self._rejected(event)
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # calling AE title not recognized

    def _rejected(self, event: Any) -> None:
        self._spool.audit.add("association_rejected")
        self._telemetry.log("association_rejected")

    def _store(self, event: Any) -> int:
        try:
            with self._spool.incoming() as incoming:
                path = incoming.add(event.encoded_dataset())
                receipts = self._spool.accept([path], source=SOURCE)
        except CodedError as error:
            receipts = [Receipt(error.code, str(error))]
        except Exception as error:  # noqa: BLE001  not acknowledged; the peer tries again
            self._telemetry.log("internal_error", kind=type(error).__name__)
            return status_of("spool_full").dimse
        self._telemetry.received(receipts, SOURCE)
        code = receipts[0].code
        return status_of(code).dimse if code else SUCCESS

"""Sending by STOW-RS (PS3.18 section 10.5)."""

from __future__ import annotations

import ssl
from pathlib import Path

from data_pipelines.dicomweb.client import DicomWeb, parse_endpoint
from data_pipelines.errors import NetworkError
from medres.errors import ServeError
from medres.serve.delivery.outbox import UNREACHABLE

REFUSED = "refused_by_pacs"


class StowSender:
    """Sends objects to a DICOMweb service. authorization: the value of the header Authorization."""

    def __init__(
        self,
        url: str,
        *,
        authorization: str | None = None,
        context: ssl.SSLContext | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Raises InputError (code bad_endpoint)."""
        endpoint = parse_endpoint(url)
        self._client = DicomWeb(
            endpoint, authorization=authorization, context=context, timeout=timeout
        )

    def __call__(self, path: Path) -> None:
        """Deliver one file. Raises ServeError: unreachable, refused_by_pacs."""
        try:
            self._client.store(path)
        except NetworkError as error:
            code = UNREACHABLE if error.code == UNREACHABLE else REFUSED
            raise ServeError(str(error), code=code) from None
        finally:
            self._client.close()

"""The reason codes of the spool in the words of HTTP and of DICOM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from medres.serve.spool import TEMPORARY

RETRY_SECONDS = 10
SUCCESS = 0x0000


class Status(NamedTuple):
    """http: status code. dimse: status of a C-STORE response (PS3.4 B.2.3, PS3.7 C.5), also the
    failure reason of STOW-RS (PS3.18 section 10.5.3).
    """

    http: int
    dimse: int


_CANNOT_UNDERSTAND = Status(400, 0xC000)
_STATUSES = {
    "queue_full": Status(429, 0xA700),
    "spool_full": Status(507, 0xA700),
    "other_bytes": Status(409, 0x0111),  # duplicate SOP instance
    "other_patient": Status(409, 0x0110),  # processing failure
    "own_output": Status(409, 0x0122),  # SOP class not supported
    "too_large": Status(413, 0xA700),
    "limit_exceeded": Status(413, 0xA700),
    "other_type": Status(415, 0xC000),
    "too_slow": Status(408, 0xC000),
    "unknown_study": Status(404, 0x0112),
    "not_allowed": Status(403, 0x0124),
}


def status_of(code: str) -> Status:
    """The status of a code; of one that is not listed, that the file is not understood."""
    return _STATUSES.get(code, _CANNOT_UNDERSTAND)


def worst(codes: Iterable[str]) -> str:
    """The code that stands for several: one after which trying again helps comes last."""
    return min(codes, key=lambda code: (code in TEMPORARY, code))

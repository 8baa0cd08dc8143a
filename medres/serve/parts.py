"""The parts of a result: a job has one prediction or several, and each has objects of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAKER = "medres.serve.objects:make_objects"
FHIR = "fhir.json"  # name of the FHIR bundle among the objects of a job
#: role of an object by its SOP class (PS3.4 B.5)
ROLES = {
    "1.2.840.10008.5.1.4.1.1.88.34": "report",
    "1.2.840.10008.5.1.4.1.1.7": "overlay",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "segmentation",
}


class EarlierResult(NamedTuple):
    """The result of the revision before. key: of its job. series: the Series Instance UIDs of each
    of its predictions.
    """

    key: str
    series: list[list[str]]


class MakeOrder(TypedDict):
    """What objects are made for. folder: with the files of the study. out: where objects go. key:
    of the result. predecessor: the result of the revision before. created: when the result was
    made, seconds since 1970. refusal: the reason and its code, where the server refused the study
    itself, which the model then is not asked about.
    """

    folder: str
    out: str
    key: str
    revision: int
    predecessor: EarlierResult | None
    created: NotRequired[float]
    refusal: NotRequired[tuple[str, str] | None]


class MadeObject(TypedDict):
    """sop: SOP Instance UID. file: its name in the folder. role: report, overlay, segmentation or
    ''. code: why it could not be made; then it has neither UID nor file.
    """

    sop: str
    file: str
    role: str
    code: NotRequired[str]


class Part(NamedTuple):
    """One prediction of a job. files: of the study. key, predecessor: see `part_key`. created: when
    the result was made, seconds since 1970.
    """

    files: list[Path]
    key: str
    revision: int
    predecessor: str
    created: float


class Objects(NamedTuple):
    """What was made of a part. refused: role and code of each object that could not be made. fhir:
    a Bundle as JSON; None without images.
    """

    datasets: list[Dataset]
    refused: list[dict[str, str]]
    fhir: dict[str, Any] | None = None


def part_key(key: str, number: int) -> str:
    """The key of the objects of one prediction of a job: a study with several CT series has several
    predictions. number: from 0 on; the first has the key of the job.
    """
    if number == 0:
        return key
    return hashlib.sha256(json.dumps([key, number]).encode()).hexdigest()


def predecessor_key(earlier: EarlierResult | None, series: Sequence[str]) -> str:
    """The key of the earlier objects that those of these series replace; '' where there are none.
    A result without series (a refusal) is that of the whole study.
    """
    if earlier is None:
        return ""
    for number, uids in enumerate(earlier.series):
        if not uids or not series or {*uids} & {*series}:
            return part_key(earlier.key, number)
    return ""

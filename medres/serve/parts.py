"""The parts of a result: a job has one prediction or several, and each has objects of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

MAKER = "medres.serve.objects:make_objects"
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

"""Studies of a DICOMweb server in a folder. A download that was interrupted goes on: what is there
already is not asked for again.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from data_pipelines.dicomweb.client import STUDY, DicomWeb, Instance, parse_endpoint, value_of
from data_pipelines.errors import InputError
from data_pipelines.runtime.atomic_files import sync_folder

AUTHORIZATION = "MEDRES_DICOMWEB_AUTHORIZATION"
SUFFIX, PARTIAL = ".dcm", ".partial"


class Download(NamedTuple):
    """new: int, files that came now. known: int, files that were there. studies: int."""

    new: int
    known: int
    studies: int


def is_address(text: str) -> bool:
    """Whether a source of `ingest` is a DICOMweb server, not a path.

    >>> is_address("dicomweb://pacs/dicom-web"), is_address("folder")
    (True, False)
    """
    return text.startswith("dicomweb:")


def download(
    address: str, folder: Path, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Download:
    """Every object of the studies that the search of the address finds, as files of `folder`.
    Their names are hashes: no UID is in them. progress: is told (done, total) after each object of
    a study.

    Raises InputError: bad_endpoint, no_study; NetworkError; OSError.
    """
    endpoint = parse_endpoint(address)
    client = DicomWeb(endpoint, authorization=os.environ.get(AUTHORIZATION))
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(f"*{PARTIAL}"):
        left_over.unlink()
    new = known = 0
    try:
        studies = sorted({value_of(row, STUDY) for row in client.search("studies", endpoint.query)})
        if not studies:
            raise InputError("the DICOMweb server has no study for this search", code="no_study")
        for study in studies:
            for done, (instance, total) in enumerate(_listed(client, study), start=1):
                is_new = _fetch(client, instance, folder)
                new, known = new + is_new, known + (not is_new)
                progress(done, total)
    finally:
        client.close()
    sync_folder(folder)
    return Download(new, known, len(studies))


def _listed(client: DicomWeb, study: str) -> Iterator[tuple[Instance, int]]:
    instances = client.instances(study)
    return ((instance, len(instances)) for instance in instances)


def file_name(instance: Instance) -> str:
    return hashlib.sha256("/".join(instance).encode()).hexdigest()[:32] + SUFFIX


def _fetch(client: DicomWeb, instance: Instance, folder: Path) -> bool:
    """Whether the object was not there yet."""
    target = folder / file_name(instance)
    if target.exists():
        return False
    partial = folder / f"{uuid.uuid4().hex}{PARTIAL}"
    try:
        with partial.open("wb") as file:
            client.retrieve(instance, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
    return True
